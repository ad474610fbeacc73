"""What is known of each token without a model: its content, how often it occurs, how much of it lies in soft-masked bases."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from grover_dist.bpe.vocabulary import FIRST_BASE_ID
from grover_dist.corpus.corpus import Corpus

_CHUNK_ROWS = 1 << 21


@dataclass(frozen=True)
class TokenStatistics:
    """Arrays by model id, [cycles + 9]; zeros for the special tokens.

    length_bp; gc, ag, ac: shares of the token's bases; count: occurrences in the whole genome; masked_bases: soft-masked bases in them.
    """

    strings: list[str]
    length_bp: np.ndarray
    gc: np.ndarray
    ag: np.ndarray
    ac: np.ndarray
    count: np.ndarray
    masked_bases: np.ndarray

    @property
    def masked_share(self) -> np.ndarray:
        """Of the bases of all occurrences; NaN for a token that never occurs."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.count > 0, self.masked_bases / (self.count * self.length_bp), np.nan)

    @property
    def is_word(self) -> np.ndarray:
        """bool: not a special token."""
        return np.arange(len(self.strings)) >= FIRST_BASE_ID


def token_statistics(corpus: Corpus, cycles: int) -> TokenStatistics:
    """One pass over the whole genome."""
    strings = corpus.vocabulary.strings(cycles)
    length_bp = corpus.vocabulary.lengths(cycles).astype(np.int64)
    count = np.zeros(len(strings), np.int64)
    masked_bases = np.zeros(len(strings), np.int64)
    for row_start, row_stop in token_chunks(corpus, cycles):
        ids = corpus.ids_of_rows(row_start, row_stop, cycles)
        starts = corpus.starts_of_rows(row_start, row_stop, cycles) - row_start
        masked = np.add.reduceat(corpus.store.masked(row_start, row_stop), starts, dtype=np.int64)
        count += np.bincount(ids, minlength=len(strings))
        masked_bases += np.bincount(ids, weights=masked, minlength=len(strings)).astype(np.int64)
    words = ["" if i < FIRST_BASE_ID else text for i, text in enumerate(strings)]
    bases = np.array([[word.count(base) for base in "ACGT"] for word in words], dtype=np.float64)
    shares = bases / np.maximum(length_bp, 1)[:, None]
    return TokenStatistics(
        strings=strings,
        length_bp=length_bp,
        gc=shares[:, 1] + shares[:, 2],
        ag=shares[:, 0] + shares[:, 2],
        ac=shares[:, 0] + shares[:, 1],
        count=count,
        masked_bases=masked_bases,
    )


def token_chunks(
    corpus: Corpus, cycles: int, chunk_rows: int = _CHUNK_ROWS, *, row_start: int = 0, row_stop: int | None = None
) -> Iterator[tuple[int, int]]:
    """The genome, or a part of it that begins and ends at token boundaries, in pieces of about `chunk_rows` that do so too."""
    store, start = corpus.store, row_start
    last = store.n_rows if row_stop is None else row_stop
    while start < last:
        stop = start + chunk_rows
        while stop < last:
            # The end moves left to the nearest boundary; a token longer than the chunk moves it right.
            boundaries = np.flatnonzero(store.level(start + 1, stop + 1) > cycles)
            if len(boundaries):
                stop = start + 1 + int(boundaries[-1])
                break
            stop += chunk_rows
        yield start, min(stop, last)
        start = stop
