"""Token statistics and embeddings against the slow obvious way, and what the stage writes."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch

from grover_dist.analysis import embeddings, sums
from grover_dist.analysis.token_statistics import token_chunks, token_statistics
from grover_dist.corpus.corpus import Corpus
from grover_dist.errors import UserError


def test_token_statistics_equal_a_count_by_hand(small_run) -> None:
    corpus = Corpus.open(small_run.learn)
    found = token_statistics(corpus, small_run.chosen)
    count, masked = {}, {}
    n = corpus.store.n_rows
    starts = np.flatnonzero(corpus.store.level(0, n) > small_run.chosen)
    text = "".join("ACGT"[code] for code in corpus.store.base(0, n))
    mask = corpus.store.masked(0, n)
    for start, stop in zip(starts, [*starts[1:], n], strict=True):
        word = text[start:stop]
        count[word] = count.get(word, 0) + 1
        masked[word] = masked.get(word, 0) + int(mask[start:stop].sum())
    for i, word in enumerate(found.strings):
        if found.is_word[i]:
            assert (found.count[i], found.masked_bases[i]) == (count.get(word, 0), masked.get(word, 0)), word
            assert found.gc[i] == pytest.approx(sum(base in "GC" for base in word) / len(word))
            assert found.ag[i] == pytest.approx(sum(base in "AG" for base in word) / len(word))
            assert found.ac[i] == pytest.approx(sum(base in "AC" for base in word) / len(word))
        else:
            assert found.count[i] == 0


@pytest.mark.parametrize("chunk_rows", [1, 7, 1_000, 10**9])
def test_chunks_cover_the_genome_and_cut_at_tokens(small_run, chunk_rows: int) -> None:
    corpus = Corpus.open(small_run.learn)
    if chunk_rows < 10:
        corpus = _ShortCorpus(corpus, 3_000)
    level = corpus.store.level(0, corpus.store.n_rows)
    chunks = list(token_chunks(corpus, small_run.chosen, chunk_rows))
    assert chunks[0][0] == 0 and chunks[-1][1] == corpus.store.n_rows
    assert all(a[1] == b[0] and level[b[0]] > small_run.chosen for a, b in itertools.pairwise(chunks))


class _ShortCorpus:
    """The first rows of a corpus, up to a token's end: enough for the smallest chunks."""

    def __init__(self, corpus: Corpus, rows: int) -> None:
        self.store = self
        level = corpus.store.level(0, rows)
        self.n_rows = int(np.flatnonzero(level > 60)[-1])
        self._level = level[: self.n_rows]

    def level(self, row_start: int, row_stop: int) -> np.ndarray:
        return self._level[row_start:row_stop]


def test_contextual_means_equal_the_plain_average(small_run) -> None:
    corpus = Corpus.open(small_run.learn)
    model = sums.load_model(small_run.pretrain[chosen_index(small_run)])
    batches = [sums.unmask(batch) for batch in sums.held_out_batches(small_run.config, corpus, small_run.chosen)[:1]]
    found = sums.contextual_means(model, batches, small_run.chosen + 9)
    vectors: dict[int, list[np.ndarray]] = {}
    with torch.no_grad():
        for batch in batches:
            for ids, mask in zip(batch.input_ids, batch.attention_mask, strict=True):
                real = ids[: mask.sum()]
                hidden = model.bert(torch.from_numpy(real[None])).last_hidden_state[0].numpy()
                for token, vector in zip(real.tolist(), hidden, strict=True):
                    vectors.setdefault(token, []).append(vector)
    assert {token: len(rows) for token, rows in vectors.items()} == {i: n for i, n in enumerate(found.count) if n}
    for token, rows in vectors.items():
        np.testing.assert_allclose(found.means[token], np.mean(rows, axis=0), atol=1e-4)


def chosen_index(run) -> int:
    return [artifact.counts["cycles"] for artifact in run.pretrain].index(run.chosen)


def test_unmask_restores_the_genome(small_run) -> None:
    corpus = Corpus.open(small_run.learn)
    batch = sums.held_out_batches(small_run.config, corpus, small_run.chosen)[0]
    plain = sums.unmask(batch)
    assert (plain.input_ids.ravel()[batch.masked_index] == batch.labels).all()
    assert not (plain.input_ids == 4).any() and (batch.input_ids == 4).any()


def test_a_constant_model_predicts_nothing_first(small_run) -> None:
    corpus = Corpus.open(small_run.learn)
    model = sums.load_model(small_run.pretrain[chosen_index(small_run)])
    with torch.no_grad():
        for weights in model.parameters():
            weights.zero_()
    batches = sums.held_out_batches(small_run.config, corpus, small_run.chosen)
    found = sums.masked_performance(model, batches, small_run.chosen + 9)
    assert found.first.sum() == 0
    assert found.tests.sum() == sum(int((batch.input_ids == 4).sum()) for batch in batches)
    assert found.nats.sum() / found.tests.sum() == pytest.approx(np.log(small_run.chosen + 9), rel=1e-5)


def test_principal_components_find_a_planted_axis() -> None:
    random = np.random.default_rng(0)
    hidden = random.normal(size=100)
    vectors = np.outer(hidden, random.normal(size=8)) + 0.01 * random.normal(size=(100, 8)) + 5.0
    scores, shares = embeddings.principal_components(vectors, 2)
    assert abs(np.corrcoef(scores[:, 0], hidden)[0, 1]) > 0.999 and shares[0] > 0.99


def test_what_the_stage_writes(small_run) -> None:
    tokens = embeddings.read_table(small_run.analysis, "tokens.arrow")
    assert len(tokens) == small_run.chosen + 4 and tokens["token"][0].as_py() == "A"
    vectors = embeddings.read_table(small_run.analysis, "embeddings.arrow")
    assert len(vectors) == small_run.chosen + 9 and vectors["twin_static"].type.list_size == 16
    table = embeddings.read_table(small_run.analysis, "correlations.arrow").to_pydict()
    assert set(table["model"]) == {"trained", "twin", "word2vec"} and max(table["component"]) == 3
    assert all(q >= p - 1e-12 for p, q in zip(table["p"], table["q"], strict=True) if not np.isnan(p))
    summary = json.loads(small_run.analysis.file("analysis.json").read_text())
    assert sum("twin" in sentence for sentence in summary["findings"]) >= 6 and len(summary["findings"]) >= 7
    context = embeddings.read_table(small_run.analysis, "context.arrow").to_pydict()
    assert set(zip(context["model"], context["layer"], strict=True)) == {(m, n) for m in ("trained", "twin") for n in (0, 1)}
    repeats = embeddings.read_table(small_run.analysis, "repeats.arrow")
    assert repeats["token"].to_pylist() == tokens["token"].to_pylist()


def test_an_untrained_model_holds_no_more_than_its_twin(small_run) -> None:
    # The artefact's model was never trained: whatever is reported as learned would be chance.
    strongest = embeddings.read_summary(small_run.analysis)["strongest"]
    assert sum(line["beyond_twin"] for line in strongest if line["kind"] == "static") <= 1


def test_too_few_windows_are_refused(small_run) -> None:
    config = small_run.config.model_copy(update={"analysis": small_run.config.analysis.model_copy(update={"windows": 1})})
    with pytest.raises(UserError, match="too few tokens"):
        embeddings.analyze(
            config, small_run.run, small_run.learn, small_run.pretrain[chosen_index(small_run)], cycles=small_run.chosen, say=lambda _: None
        )


@pytest.mark.parametrize(
    ("twin", "shuffled", "words"),
    [
        (False, None, ", not beyond the untrained twin"),
        (True, None, ", beyond the untrained twin"),
        (True, True, ", beyond the untrained twin and the model of the shuffled genome"),
        (True, False, ", beyond the untrained twin but not beyond the model of the shuffled genome"),
    ],
)
def test_a_finding_says_which_nulls_it_beats(twin, shuffled, words) -> None:
    line = {"kind": "contextual", "property": "gc", "component": 1, "rho": 0.5, "partial": 0.4, "twin_rho": 0.1, "beyond_twin": twin}
    line |= {"beyond_shuffled": shuffled, "shuffled_rho": None if shuffled is None else 0.2}
    assert embeddings.findings({"strongest": [line]})[0].endswith(words)
