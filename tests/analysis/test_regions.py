"""Probes find what was planted in the vectors, and nothing else; each null can stop a relation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from grover_dist.analysis import sums
from grover_dist.analysis.regions import Probe, composition, probe_regions, region_embeddings
from grover_dist.corpus.corpus import Corpus
from grover_dist.corpus.windows import tile

N, BLOCKS = 240, 24
BLOCK = np.repeat(np.arange(BLOCKS), N // BLOCKS)


def planted(strength: float, classes: np.ndarray, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    values = random.normal(size=(N, 6))
    values[:, 0] += strength * (classes == "repeat")
    return values


@pytest.fixture(scope="module")
def classes() -> np.ndarray:
    return np.where(np.random.default_rng(0).random(N) < 0.4, "repeat", "unique").astype("<U6")


def test_a_relation_beyond_all_nulls_is_found(classes: np.ndarray) -> None:
    probe = probe_regions(
        "repeats", classes, BLOCK, {"cls": planted(3.0, classes, 1)}, {"cls": planted(0.0, classes, 2)}, planted(0.0, classes, 3)
    )
    assert isinstance(probe, Probe) and probe.found and probe.accuracy > 0.85
    assert all(abs(value - 0.5) < 0.15 for value in probe.nulls.values())
    assert "beyond all three" in probe.sentence()


@pytest.mark.parametrize("null", ["twin", "composition", "nothing"])
def test_a_null_that_knows_as_much_stops_it(classes: np.ndarray, null: str) -> None:
    strong = {"twin": 0.0, "composition": 0.0, null: 3.0}
    trained = {"cls": planted(0.0 if null == "nothing" else 3.0, classes, 1)}
    probe = probe_regions(
        "repeats", classes, BLOCK, trained, {"cls": planted(strong["twin"], classes, 2)}, planted(strong["composition"], classes, 3)
    )
    assert not probe.found and "not a relation" in probe.sentence()


def test_small_classes_are_left_out_and_said_so(classes: np.ndarray) -> None:
    rare = classes.copy()
    rare[:5] = "rare"
    vectors = {"cls": planted(3.0, classes, 1)}
    assert probe_regions("x", rare, BLOCK, vectors, vectors, vectors["cls"]).left_out == {"rare": 5}
    alone = np.where(classes == "repeat", "repeat", "")
    assert "needs two classes" in probe_regions("x", alone, BLOCK, vectors, vectors, vectors["cls"])


def test_region_embeddings_equal_one_window_at_a_time(small_run) -> None:
    corpus, cycles = Corpus.open(small_run.learn), small_run.chosen
    windows = tile(corpus.store, small_run.config.windows, cycles, 1).take(np.arange(5))
    model = sums.load_model(next(a for a in small_run.pretrain if a.counts["cycles"] == cycles))
    found = region_embeddings(model, corpus, windows, cycles)
    for line in range(5):
        ids = corpus.ids_of_rows(int(windows.row_start[line]), int(windows.row_stop[line]), cycles).astype(np.int64)
        with torch.no_grad():
            hidden = model.bert(torch.tensor([[2, *ids, 3]])).last_hidden_state[0].numpy()
        np.testing.assert_allclose(found["cls"][line], hidden[0], atol=1e-4)
        np.testing.assert_allclose(found["mean"][line], hidden[1:-1].mean(axis=0), atol=1e-4)
        np.testing.assert_allclose(found["max"][line], hidden[1:-1].max(axis=0), atol=1e-4)
    content = composition(corpus, windows)
    text = corpus.store.base(int(windows.row_start[0]), int(windows.row_stop[0]))
    assert content[:, :16].sum(axis=1) == pytest.approx(np.ones(5))
    assert content[0, 16] == pytest.approx(np.isin(text, (1, 2)).mean())
