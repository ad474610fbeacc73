"""Planted enrichment is found and a track that has nothing to do with the words is not."""

from __future__ import annotations

import numpy as np

from grover_dist.analysis.enrichment import BLOCK_ROWS, class_enrichment, enrichment
from grover_dist.corpus.corpus import Corpus


def test_a_track_drawn_over_one_word_finds_this_word(small_run) -> None:
    corpus, cycles = Corpus.open(small_run.learn), small_run.chosen
    n = corpus.store.n_rows
    ids, starts = corpus.ids_of_rows(0, n, cycles), corpus.starts_of_rows(0, n, cycles)
    word = corpus.vocabulary.strings(cycles).index("TT")
    stops = np.append(starts[1:], n)
    track = np.zeros(n, bool)
    for start, stop in zip(starts[ids == word], stops[ids == word], strict=True):
        track[start:stop] = True
    found = enrichment(corpus, cycles, track, permutations=50)
    assert found.share[word] == 1.0 and found.q[word] < 1e-6 and np.nanargmax(found.fold) == word
    others = np.delete(found.share, word)
    assert np.nanmax(others) == 0.0 and np.nanmin(np.delete(found.q, word)) > 0.5


def test_a_track_of_random_runs_finds_nothing(small_run) -> None:
    corpus = Corpus.open(small_run.learn)
    random = np.random.default_rng(3)
    track = np.repeat(random.random(corpus.store.n_rows // 100 + 1) < 0.3, 100)[: corpus.store.n_rows]
    found = enrichment(corpus, small_run.chosen, track, permutations=99)
    assert (found.q[np.isfinite(found.q)] < 0.05).sum() == 0
    assert abs(np.nanmedian(found.fold) - 1) < 0.2


def test_counts_are_of_whole_tokens_in_whole_blocks(small_run) -> None:
    corpus = Corpus.open(small_run.learn)
    found = enrichment(corpus, small_run.chosen, np.ones(corpus.store.n_rows, bool), permutations=3)
    blocks = corpus.store.n_rows // BLOCK_ROWS
    longest = int(corpus.vocabulary.lengths(small_run.chosen).max())
    assert blocks * (BLOCK_ROWS - 2 * longest) <= found.bases.sum() <= blocks * BLOCK_ROWS
    assert np.nanmin(found.share) == np.nanmax(found.share) == 1.0
    assert np.isnan(found.p).all()  # a track without contrast tests nothing


def test_classes_are_told_apart(small_run) -> None:
    """One class drawn over TT, one over AA, both in one pass: each finds its word and not the other's."""
    corpus, cycles = Corpus.open(small_run.learn), small_run.chosen
    n = corpus.store.n_rows
    ids, starts = corpus.ids_of_rows(0, n, cycles), corpus.starts_of_rows(0, n, cycles)
    words = [corpus.vocabulary.strings(cycles).index(word) for word in ("TT", "AA")]
    labels = np.full(n, -1)
    for kind, word in enumerate(words):
        for start, stop in zip(starts[ids == word], np.append(starts[1:], n)[ids == word], strict=True):
            labels[start:stop] = kind
    found = class_enrichment(corpus, cycles, lambda a, b: labels[a:b], 2, permutations=50)
    for kind in range(2):
        assert found[kind].share[words[kind]] > 0.999 and found[kind].q[words[kind]] < 1e-6
        assert found[kind].share[words[1 - kind]] == 0 and found[kind].q[words[1 - kind]] > 0.5
    single = enrichment(corpus, cycles, labels == 0, permutations=50)
    np.testing.assert_allclose(found[0].expected, single.expected)
