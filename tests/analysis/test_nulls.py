"""Word2Vec learns what stands together; maps and clusters keep what is near; the shuffled model is one more column of every table."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from grover_dist.analysis import embeddings
from grover_dist.analysis.map import clusters, plane
from grover_dist.analysis.nulls import pretrain_shuffled
from grover_dist.analysis.word2vec import cbow
from grover_dist.corpus.windows import WindowTable
from grover_dist.errors import UserError
from grover_dist.training.ranks import Ranks


class Sentences:
    """A corpus of two topics: words 5-9 stand with 5-9, words 10-14 with 10-14."""

    vocabulary = SimpleNamespace(strings=lambda cycles: ["x"] * 15)

    def ids_of_windows(self, row_start, row_stop, cycles, out, column=0) -> None:
        random = np.random.default_rng(0)
        for line in range(len(row_start)):
            out[line, column : column + 20] = random.integers(5, 10, 20) + 5 * (line % 2)


def test_word2vec_tells_topics_apart() -> None:
    windows = WindowTable(np.arange(3_200), np.arange(3_200) + 1, np.full(3_200, 20, np.int32))
    vectors = cbow(Sentences(), windows, 6, hidden=16, tokens=64_000, seed=1)
    vectors[5:] -= vectors[5:].mean(axis=0)
    unit = vectors[5:] / np.linalg.norm(vectors[5:], axis=1, keepdims=True)
    cosine = unit @ unit.T
    same = np.add.outer(np.arange(10) // 5, -(np.arange(10) // 5)) == 0
    assert cosine[same & ~np.eye(10, dtype=bool)].mean() > cosine[~same].mean() + 0.3
    again = cbow(Sentences(), windows, 6, hidden=16, tokens=64_000, seed=1)
    assert np.array_equal(vectors[5:], again[5:] - again[5:].mean(axis=0))


def test_maps_and_clusters_keep_groups() -> None:
    random = np.random.default_rng(0)
    group = np.repeat([0, 1, 2], [30, 20, 10])
    vectors = 10 * np.eye(8)[group] + random.normal(size=(60, 8))
    found = clusters(vectors, 3)
    assert [len(np.unique(found[group == g])) for g in range(3)] == [1, 1, 1]
    assert found.tolist() == [1] * 30 + [2] * 20 + [3] * 10  # by falling size
    places = plane(vectors, "tsne", 1)
    centres = np.stack([places[group == g].mean(axis=0) for g in range(3)])
    nearest = np.linalg.norm(places[:, None] - centres, axis=2).argmin(axis=1)
    assert (nearest == group).mean() > 0.95


def test_umap_names_its_extra() -> None:
    pytest.importorskip("sklearn")
    try:
        import umap  # noqa: F401
    except ImportError:
        with pytest.raises(UserError, match="umap-learn") as error:
            plane(np.eye(4), "umap", 1)
        assert "[analysis]" in str(error.value)


def test_the_shuffled_model_stands_beside_the_twin(small_run) -> None:
    config = small_run.config.model_copy(
        update={
            "analysis": small_run.config.analysis.model_copy(update={"shuffled_fraction": 0.5, "word2vec_tokens": 5_000}),
            "pretrain": small_run.config.pretrain.model_copy(update={"budget_bases": 60_000, "batch_windows": 16}),
        }
    )
    cycles = small_run.chosen
    ranks = Ranks.join(600, threads=1)
    shuffled = pretrain_shuffled(config, small_run.run, corpus=small_run.learn, cycles=cycles, ranks=ranks, say=lambda _: None)["shuffled"]
    assert shuffled.manifest["stage"] == "shuffled-model" and shuffled.counts["bases"] == pytest.approx(30_000, rel=0.2)
    model = next(a for a in small_run.pretrain if a.counts["cycles"] == cycles)
    found = embeddings.analyze(config, small_run.run, small_run.learn, model, cycles=cycles, shuffled=shuffled, say=lambda _: None)
    table = embeddings.read_table(found, "correlations.arrow").to_pydict()
    kinds = set(zip(table["model"], table["vectors"], strict=True))
    assert kinds >= {("shuffled", "static"), ("shuffled", "contextual"), ("word2vec", "static"), ("twin", "static")}
    lines = embeddings.read_summary(found)["strongest"]
    assert all(0 <= line["shuffled_rho"] <= 1 for line in lines)
    assert [line["word2vec_rho"] is None for line in lines] == [line["kind"] == "contextual" for line in lines]
    assert "model of the shuffled genome" in embeddings.read_summary(found)["findings"][0]
