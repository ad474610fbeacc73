"""Sums over shards against a walk over every contig by hand."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from grover_dist.corpus.corpus import Corpus
from grover_dist.grammar.counting import SparseCounts, count_phrases, count_words, make_bins, shards, split_keys, sum_shards


@pytest.fixture(scope="module")
def corpus(small_run) -> Corpus:
    return Corpus.open(small_run.learn)


def contig_ids(corpus: Corpus, cycles: int) -> list[list[int]]:
    edges = corpus.store.contigs.row_start.tolist()
    return [corpus.ids_of_rows(a, b, cycles).tolist() for a, b in pairwise(edges)]


@pytest.mark.parametrize("number", [1, 3, 40])
def test_shards_add_up_to_the_whole(small_run, corpus: Corpus, number: int) -> None:
    cycles = small_run.chosen
    size, bins = cycles + 9, make_bins(corpus, 50)
    parts = shards(corpus, cycles, number)
    assert number <= len(parts) <= number + 2 and parts[0][0] == 0 and parts[-1][1] == corpus.store.n_rows
    found = sum_shards(parts, lambda a, b: count_words(corpus, cycles, a, b, bins))
    words, pairs, triples = Counter(), Counter(), Counter()
    for ids in contig_ids(corpus, cycles):
        words.update(ids)
        pairs.update(pairwise(ids))
        triples.update(zip(ids, ids[1:], ids[2:], strict=False))
    assert {i: int(n) for i, n in enumerate(found.count) if n} == words
    assert {tuple(k): int(n) for k, n in zip(split_keys(found.pairs.keys, 2, size).tolist(), found.pairs.counts, strict=True)} == pairs
    assert np.array_equal(found.bins.sum(axis=1), found.count)
    frequent = found.pairs.at_least(5)
    often = {pair for pair, n in pairs.items() if n >= 5}
    expected = {t: n for t, n in triples.items() if t[:2] in often and t[1:] in often}
    phrases = sum_shards(parts, lambda a, b: count_phrases(corpus, cycles, a, b, 3, frequent))
    assert {tuple(k): int(n) for k, n in zip(split_keys(phrases.keys, 3, size).tolist(), phrases.counts, strict=True)} == expected


def test_bins_hold_the_words_of_their_place(small_run, corpus: Corpus) -> None:
    cycles, bins = small_run.chosen, make_bins(corpus, 40)
    found = count_words(corpus, cycles, 0, corpus.store.n_rows, bins)
    contigs, bin_bp = corpus.store.contigs, int(bins.bin_bp[0])
    name = contigs.record_names[1]
    tokens = corpus.tokens(name, 2 * bin_bp, 3 * bin_bp, cycles)
    inside = tokens.ids[(tokens.start_bp >= 2 * bin_bp) & (tokens.start_bp < 3 * bin_bp)]
    assert np.array_equal(found.bins[:, int(bins.record_first[1]) + 2], np.bincount(inside, minlength=cycles + 9))


def test_sparse_counts() -> None:
    a, b = SparseCounts.of(np.array([3, 1, 3])), SparseCounts.of(np.array([7, 3]))
    both = a + b
    assert both.keys.tolist() == [1, 3, 7] and both.counts.tolist() == [1, 3, 1]
    assert both.of_keys(np.array([7, 2, 3, 99])).tolist() == [1, 0, 3, 0]
    assert both.at_least(2).keys.tolist() == [3]
    assert SparseCounts.of(np.empty(0, np.int64)).of_keys(np.array([1])).tolist() == [0]
