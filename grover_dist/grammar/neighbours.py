"""What stands beside a word, what could stand in its place, and what the model takes for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa

from grover_dist.grammar.counting import SparseCounts


@dataclass(frozen=True)
class Ranked:
    """For each row of `of`, the word `other`, best first. of, other: ids int64[n]; value float64[n]; count int64[n]."""

    of: np.ndarray
    other: np.ndarray
    value: np.ndarray
    count: np.ndarray

    def by_word(self, size: int) -> list[slice]:
        edges = np.searchsorted(self.of, np.arange(size + 1))
        return [slice(int(a), int(b)) for a, b in pairwise(edges)]

    def table(self, strings: Sequence[str], names: tuple[str, str, str]) -> pa.Table:
        words = np.array(strings, object)
        columns: dict[str, object] = {"token": words[self.of], names[0]: words[self.other], names[1]: self.value, names[2]: self.count}
        return pa.table({name: pa.array(list(column) if column.dtype == object else column) for name, column in columns.items()})


def side_neighbours(pairs: SparseCounts, size: int, *, side: str, min_count: int, most: int) -> Ranked:
    """Pointwise mutual information in bits, log2 of P(pair) / (P(left) P(right)), of each word's neighbours on the `left` or `right`."""
    left, right = pairs.keys // size, pairs.keys % size
    as_left = np.bincount(left, weights=pairs.counts, minlength=size)
    as_right = np.bincount(right, weights=pairs.counts, minlength=size)
    total = max(int(pairs.counts.sum()), 1)
    often = pairs.counts >= min_count
    left, right, count = left[often], right[often], pairs.counts[often]
    information = np.log2(count * total / (as_left[left] * as_right[right]))
    of, other = (right, left) if side == "left" else (left, right)
    return best(of, other, information, count, most)


def embedding_neighbours(vectors: np.ndarray, known: np.ndarray, most: int) -> Ranked:
    """Cosine between the words' vectors, centred on their mean: what all words share tells them apart in nothing. known: bool [size]."""
    ids = np.flatnonzero(known)
    if len(ids) < 2:
        nothing = np.empty(0, np.int64)
        return Ranked(nothing, nothing, np.empty(0), nothing)
    chosen = vectors[ids] - vectors[ids].mean(axis=0)
    chosen /= np.maximum(np.linalg.norm(chosen, axis=1, keepdims=True), 1e-12)
    cosine = chosen @ chosen.T
    np.fill_diagonal(cosine, -np.inf)
    most = min(most, len(ids) - 1)
    near = np.argpartition(-cosine, most - 1, axis=1)[:, :most]
    value = np.take_along_axis(cosine, near, axis=1)
    of = np.repeat(ids, most)
    return best(of, ids[near.ravel()], value.ravel(), np.ones(len(of), np.int64), most)


def substitutes(confusion: Mapping[str, np.ndarray], most: int) -> Ranked:
    """The words that the model expects in a word's place, by mean probability. confusion: `token` and `predicted` as ids, `probability`,
    `first` (how often it was the first guess)."""
    other = confusion["token"] != confusion["predicted"]
    columns = (confusion[name][other] for name in ("token", "predicted", "probability", "first"))
    return best(*columns, most)


def best(of: np.ndarray, other: np.ndarray, value: np.ndarray, count: np.ndarray, most: int) -> Ranked:
    order = np.lexsort((other, -value, of))
    of, other, value, count = (np.asarray(column)[order] for column in (of, other, value, count))
    rank = np.arange(len(of)) - np.searchsorted(of, of)
    kept = rank < most
    return Ranked(of[kept].astype(np.int64), other[kept].astype(np.int64), value[kept], count[kept].astype(np.int64))
