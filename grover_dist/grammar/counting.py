"""Counts of words, pairs and phrases over the store, as sums that can be made shard by shard, anywhere, and added.

A shard owns the n-grams whose first token begins in its rows; it reads a few tokens past its end, so that nothing is lost or counted twice.
No n-gram crosses the end of a contig.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numba import njit

from grover_dist.analysis.token_statistics import token_chunks
from grover_dist.corpus.corpus import Corpus

_LOOK_ROWS = 4_096


@dataclass(frozen=True)
class SparseCounts:
    """keys int64, ascending and distinct; counts int64. An n-gram's key is its ids as digits to the base of the vocabulary's size."""

    keys: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, keys: np.ndarray, weights: np.ndarray | None = None) -> SparseCounts:
        if weights is None:
            return cls(*np.unique(keys, return_counts=True))
        found, inverse = np.unique(keys, return_inverse=True)
        return cls(found, np.bincount(inverse, weights=weights, minlength=len(found)).astype(np.int64))

    def __add__(self, other: SparseCounts) -> SparseCounts:
        return SparseCounts.of(np.concatenate([self.keys, other.keys]), np.concatenate([self.counts, other.counts]))

    def of_keys(self, keys: np.ndarray) -> np.ndarray:
        """The count of each key, 0 where it was never seen."""
        if not len(self.keys):
            return np.zeros(len(keys), np.int64)
        place = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[place] == keys, self.counts[place], 0)

    def at_least(self, count: int) -> SparseCounts:
        kept = self.counts >= count
        return SparseCounts(self.keys[kept], self.counts[kept])


@dataclass(frozen=True)
class Bins:
    """Each record cut into equal bins. record_first int64[records + 1]: the first bin of each record; bin_bp int64[records]."""

    record_first: np.ndarray
    bin_bp: np.ndarray

    @property
    def total(self) -> int:
        return int(self.record_first[-1])


@dataclass(frozen=True)
class WordCounts:
    """count int64 [vocabulary]; bins int32 [vocabulary, bins] of the words' first bases; pairs: left * vocabulary + right."""

    count: np.ndarray
    bins: np.ndarray
    pairs: SparseCounts

    def __add__(self, other: WordCounts) -> WordCounts:
        return WordCounts(self.count + other.count, self.bins + other.bins, self.pairs + other.pairs)


def make_bins(corpus: Corpus, wanted: int) -> Bins:
    """About `wanted` bins of one size over all records, at least one a record."""
    lengths = np.array(corpus.store.contigs.record_lengths_bp, np.int64)
    bin_bp = max(1, -(-int(lengths.sum()) // wanted))
    number = np.maximum(1, -(-lengths // bin_bp))
    return Bins(np.concatenate([[0], np.cumsum(number)]), np.full(len(lengths), bin_bp, np.int64))


def shards(corpus: Corpus, cycles: int, number: int) -> list[tuple[int, int]]:
    """The genome's rows in at most `number` parts of about equal length that begin and end at token boundaries."""
    return list(token_chunks(corpus, cycles, max(1, -(-corpus.store.n_rows // number))))


def count_words(corpus: Corpus, cycles: int, row_start: int, row_stop: int, bins: Bins) -> WordCounts:
    """Sums over the tokens that begin in these rows, which begin and end at token boundaries."""
    size = len(corpus.vocabulary.strings(cycles))
    count, binned = np.zeros(size, np.int64), np.zeros((size, bins.total), np.int32)
    pairs = []
    for ids, starts, contig, own in _pieces(corpus, cycles, row_start, row_stop, 2):
        record, position = corpus.store.contigs.locate_rows(starts[:own])
        _add(ids[:own], bins.record_first[record] + position // bins.bin_bp[record], count, binned)
        pairs.append(SparseCounts.of(_keys(ids, contig, own, 2, size)))
    return WordCounts(count, binned, reduce(SparseCounts.__add__, pairs, SparseCounts(np.empty(0, np.int64), np.empty(0, np.int64))))


def count_phrases(corpus: Corpus, cycles: int, row_start: int, row_stop: int, n: int, frequent: SparseCounts) -> SparseCounts:
    """n-grams that begin in these rows and whose first and last n - 1 tokens are both in `frequent` (Agrawal and Srikant 1994: nothing
    else can be frequent)."""
    size = len(corpus.vocabulary.strings(cycles))
    found = SparseCounts(np.empty(0, np.int64), np.empty(0, np.int64))
    for ids, _, contig, own in _pieces(corpus, cycles, row_start, row_stop, n):
        keys = _keys(ids, contig, own, n, size)
        kept = (frequent.of_keys(keys // size) > 0) & (frequent.of_keys(keys % size ** (n - 1)) > 0)
        found += SparseCounts.of(keys[kept])
    return found


def ngram_keys(ids: np.ndarray, n: int, size: int) -> np.ndarray:
    """Keys int64 of all n-grams of one sequence."""
    count = max(0, len(ids) - n + 1)
    keys = np.zeros(count, np.int64)
    for place in range(n):
        keys = keys * size + ids[place : place + count].astype(np.int64)
    return keys


def split_keys(keys: np.ndarray, n: int, size: int) -> np.ndarray:
    """Ids int64 [len(keys), n]."""
    return np.stack([keys // size ** (n - 1 - place) % size for place in range(n)], axis=1)


def sum_shards(parts: list[tuple[int, int]], count: Callable[[int, int], WordCounts | SparseCounts]) -> WordCounts | SparseCounts:
    """The sum of `count(row_start, row_stop)` over the parts, one after the other."""
    return reduce(lambda a, b: a + b, (count(start, stop) for start, stop in parts))


def _pieces(corpus: Corpus, cycles: int, row_start: int, row_stop: int, n: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, int]]:
    """(ids, first rows, contigs, how many of them begin in the piece) with n - 1 tokens of look-ahead inside the contig."""
    for start, stop in token_chunks(corpus, cycles, row_start=row_start, row_stop=row_stop):
        end = _look_ahead(corpus, cycles, stop, n - 1)
        ids, starts = corpus.ids_of_rows(start, end, cycles), corpus.starts_of_rows(start, end, cycles)
        yield ids, starts, corpus.store.contigs.contig_of(starts), int(np.searchsorted(starts, stop))


def _look_ahead(corpus: Corpus, cycles: int, row: int, tokens: int) -> int:
    """The row after the next `tokens` tokens from this one on, or the end of the contig of the row before."""
    contigs = corpus.store.contigs
    contig_end = int(contigs.row_start[np.searchsorted(contigs.row_start, row, side="left")])
    rows = _LOOK_ROWS
    while True:
        end = min(row + rows, contig_end)
        starts = corpus.starts_of_rows(row, end, cycles)
        if len(starts) > tokens:
            return int(starts[tokens])
        if end == contig_end:
            return contig_end
        rows *= 4


def _keys(ids: np.ndarray, contig: np.ndarray, own: int, n: int, size: int) -> np.ndarray:
    keys = ngram_keys(ids, n, size)
    return keys[(contig[n - 1 :] == contig[: len(keys)]) & (np.arange(len(keys)) < own)]


@njit(cache=True, nogil=True)
def _add(ids, bins, count, binned):
    for i in range(len(ids)):
        count[ids[i]] += 1
        binned[ids[i], bins[i]] += 1
