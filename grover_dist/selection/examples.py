"""Labelled examples as a classifier sees them: tokens, or features of a frozen trunk. Plain arrays, no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from grover_dist.bpe.encode import encode_many
from grover_dist.bpe.vocabulary import SPECIAL_TOKENS, Vocabulary

PAD_ID, UNKNOWN_ID, CLS_ID, SEP_ID = (SPECIAL_TOKENS.index(name) for name in ("[PAD]", "[UNK]", "[CLS]", "[SEP]"))


class ExampleBatch(NamedTuple):
    """inputs: what the model is called with, by name, [rows, ...]. owner int64[rows]: example of each row, None where rows are examples."""

    inputs: dict[str, np.ndarray]
    owner: np.ndarray | None
    labels: np.ndarray
    n_tokens: int
    n_bases: int


class Examples(Protocol):
    labels: np.ndarray

    def __len__(self) -> int: ...

    def batch(self, indices: np.ndarray) -> ExampleBatch: ...


@dataclass(frozen=True)
class TokenRows:
    """ids uint16[rows, width] with [CLS] and [SEP], padded with [PAD]; lengths int32[rows]. Example i owns the rows from first_row[i] to
    first_row[i + 1].
    """

    ids: np.ndarray
    lengths: np.ndarray
    first_row: np.ndarray  # int64[examples + 1]
    n_bases: np.ndarray  # int64[examples]

    def __len__(self) -> int:
        return len(self.first_row) - 1

    @property
    def tokens_per_example(self) -> float:
        """Mean number of tokens, [CLS] and [SEP] not counted."""
        return float((self.lengths.sum() - 2 * len(self.lengths)) / max(1, len(self)))

    def with_labels(self, labels: np.ndarray) -> TokenExamples:
        return TokenExamples(self, np.asarray(labels, np.int64))

    def take_rows(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """What a model is called with: input_ids and attention_mask int64, as wide as the longest of these rows."""
        lengths = self.lengths[rows]
        width = int(lengths.max())
        return {
            "input_ids": self.ids[rows, :width].astype(np.int64),
            "attention_mask": (np.arange(width) < lengths[:, None]).astype(np.int64),
        }


@dataclass(frozen=True)
class TokenExamples:
    tokens: TokenRows
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: np.ndarray) -> ExampleBatch:
        first, stop = self.tokens.first_row[indices], self.tokens.first_row[indices + 1]
        if (stop - first == 1).all():
            rows, owner = first, None
        else:
            owner = np.repeat(np.arange(len(indices)), stop - first)
            rows = np.concatenate([np.arange(a, b) for a, b in zip(first, stop, strict=True)])
        n_tokens = int(self.tokens.lengths[rows].sum()) - 2 * len(rows)
        return ExampleBatch(self.tokens.take_rows(rows), owner, self.labels[indices], n_tokens, int(self.tokens.n_bases[indices].sum()))


@dataclass(frozen=True)
class FeatureExamples:
    """features float32[examples, hidden]: what a frozen trunk gives for [CLS]."""

    features: np.ndarray
    labels: np.ndarray
    n_bases: int  # of one example

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: np.ndarray) -> ExampleBatch:
        return ExampleBatch({"features": self.features[indices]}, None, self.labels[indices], len(indices), self.n_bases * len(indices))


def tokens_of_codes(codes: np.ndarray, vocabulary: Vocabulary, cycles: int) -> TokenRows:
    """Base codes uint8[n, width], each line tokenized in isolation, as one row of [CLS] ... [SEP]."""
    ids, lengths = encode_many(np.ascontiguousarray(codes), vocabulary, cycles)
    n, width = len(codes), int(lengths.max(initial=0))
    rows = np.full((n, width + 2), PAD_ID, np.uint16)
    rows[:, 0] = CLS_ID
    rows[:, 1:-1] = np.where(np.arange(width) < lengths[:, None], ids[:, :width], PAD_ID)
    rows[np.arange(n), lengths + 1] = SEP_ID
    return TokenRows(rows, (lengths + 2).astype(np.int32), np.arange(n + 1, dtype=np.int64), np.full(n, codes.shape[1], np.int64))


def tokens_of_sequences(sequences: Sequence[np.ndarray], max_tokens: int) -> TokenRows:
    """Ids of whole sequences (without [CLS] and [SEP]) as rows. More than `max_tokens` become several windows of nearly equal
    length, none cut off; `n_bases` is left 0 here.
    """
    windows: list[np.ndarray] = []
    first_row = [0]
    for ids in sequences:
        windows += np.array_split(ids, max(1, -(-len(ids) // max_tokens)))
        first_row.append(len(windows))
    lengths = np.array([len(window) for window in windows], np.int64)
    rows = np.full((len(windows), int(lengths.max(initial=0)) + 2), PAD_ID, np.uint16)
    rows[:, 0] = CLS_ID
    for row, window in zip(rows, windows, strict=True):
        row[1 : len(window) + 1] = window
    rows[np.arange(len(rows)), lengths + 1] = SEP_ID
    return TokenRows(rows, (lengths + 2).astype(np.int32), np.array(first_row, np.int64), np.zeros(len(sequences), np.int64))
