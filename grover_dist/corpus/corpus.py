"""One stored genome at any vocabulary: regions to tokens and back, rows to ids, windows to padded batches."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from grover_dist.bpe.vocabulary import Vocabulary
from grover_dist.corpus.store import BATCH_ROWS, Store
from grover_dist.corpus.token_table import TokenTable, encode_rows, encode_windows, make_table
from grover_dist.errors import UserError
from grover_dist.run_dir import Artifact

_SEARCH_ROWS = 4_096


@dataclass(frozen=True)
class Tokens:
    """ids uint16[n]; start_bp, end_bp int64[n] in the record, 0-based half-open; rows of the same."""

    record: str
    ids: np.ndarray
    start_bp: np.ndarray
    end_bp: np.ndarray
    row_start: np.ndarray
    row_stop: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def token_of_base(self, start_bp: int, end_bp: int) -> np.ndarray:
        """int64[end_bp - start_bp]: index of the token over each base, -1 where there is none (an N, or outside). For tracks."""
        index = np.full(end_bp - start_bp, -1, np.int64)
        if len(self):
            positions = np.arange(start_bp, end_bp)
            token = np.searchsorted(self.start_bp, positions, side="right") - 1
            inside = (token >= 0) & (positions < self.end_bp[token])
            index[inside] = token[inside]
        return index


def vocabulary_digest(vocabulary: Vocabulary) -> str:
    """SHA-256 of the merges as little-endian (left, right) model ids: the name by which a store knows its vocabulary."""
    return hashlib.sha256(np.stack([vocabulary.left, vocabulary.right], axis=1).astype("<u2").tobytes()).hexdigest()


class Corpus:
    """A store and the vocabulary that its levels belong to."""

    def __init__(self, store: Store, vocabulary: Vocabulary) -> None:
        self.store, self.vocabulary = store, vocabulary
        self._tables: dict[int, TokenTable] = {}

    @classmethod
    def open(cls, artifact: Artifact | str | Path) -> Corpus:
        """The corpus of a learn artefact or of its folder."""
        path = artifact.path if isinstance(artifact, Artifact) else Path(artifact)
        store, vocabulary = Store.open(path), Vocabulary.read(path)
        if vocabulary_digest(vocabulary) != store.learner:
            raise UserError(
                "the store was not made by these merges",
                where=path / "merges.txt",
                got=vocabulary_digest(vocabulary)[:12],
                expected=f"{store.learner[:12]}, as the store says",
                hint=f"delete {path} and learn again",
            )
        return cls(store, vocabulary)

    def __reduce__(self):
        return Corpus.open, (self.store.path,)

    @property
    def cycles_known(self) -> int:
        """Vocabularies of 1 to this many cycles can be asked for."""
        return self.vocabulary.cycles

    def check_cycles(self, cycles: int) -> None:
        if not 0 <= cycles <= self.cycles_known:
            raise UserError(
                f"the vocabulary of {cycles:,} cycles was not learned",
                where=self.store.path,
                got=f"{cycles:,} cycles",
                expected=f"0 to {self.cycles_known:,}",
                hint="ask for a smaller one, or learn again with a larger bpe.cycles",
            )

    def table(self, cycles: int) -> TokenTable:
        if cycles not in self._tables:
            self.check_cycles(cycles)
            self._tables[cycles] = make_table(self.vocabulary.left[:cycles], self.vocabulary.right[:cycles])
        return self._tables[cycles]

    def ids_of_rows(self, row_start: int, row_stop: int, cycles: int) -> np.ndarray:
        """Ids uint16 of the tokens of these rows, which must begin and end at token boundaries. Contig ends are boundaries."""
        table = self.table(cycles)
        if row_start == row_stop:
            return np.empty(0, np.uint16)
        for row in (row_start, row_stop):
            if row != self.store.n_rows and self.store.level(row, row + 1)[0] <= cycles:
                raise ValueError(f"row {row} is inside a token at {cycles} cycles")
        pieces = []
        while row_start < row_stop:
            stop = row_stop
            if row_stop - row_start > BATCH_ROWS:
                stop = self._boundary_before(row_start // BATCH_ROWS * BATCH_ROWS + BATCH_ROWS, cycles)
                if stop <= row_start:  # a token longer than a batch
                    stop = self._boundary_after(row_start + 1, cycles)
            base, level = self.store.base(row_start, stop), self.store.level(row_start, stop)
            ids = np.empty(stop - row_start, np.uint16)
            count = encode_rows(base, level, cycles, table, ids)
            if count < 0:
                raise self._inconsistent(row_start, stop)
            pieces.append(ids[:count].copy())
            row_start = stop
        return np.concatenate(pieces)

    def starts_of_rows(self, row_start: int, row_stop: int, cycles: int) -> np.ndarray:
        """int64: the rows of row_start..row_stop at which a token starts."""
        found = [start + np.flatnonzero(self.store.level(start, stop) > cycles) for start, stop in self.store.batches(row_start, row_stop)]
        return np.concatenate(found) if found else np.empty(0, np.int64)

    def tokens(self, record: str, start_bp: int, end_bp: int, cycles: int) -> Tokens:
        """The tokens that overlap a region, whole: the first and the last may reach past its ends. Letters other than A, C, G, T have
        none. UserError where the region or the vocabulary is not there.
        """
        self.check_cycles(cycles)
        contigs = self.store.contigs
        rows = contigs.rows_of(record, start_bp, end_bp)
        pieces = [(self._boundary_before(start, cycles), self._boundary_after(stop, cycles)) for start, stop in rows]
        ids = [self.ids_of_rows(start, stop, cycles) for start, stop in pieces]
        starts = [self.starts_of_rows(start, stop, cycles) for start, stop in pieces]
        stops = [np.append(rows[1:], stop) for rows, (_, stop) in zip(starts, pieces, strict=True)]
        row_start = np.concatenate(starts) if starts else np.empty(0, np.int64)
        row_stop = np.concatenate(stops) if stops else np.empty(0, np.int64)
        _, position_bp = contigs.locate_rows(row_start)
        return Tokens(
            record=record,
            ids=np.concatenate(ids) if ids else np.empty(0, np.uint16),
            start_bp=position_bp,
            end_bp=position_bp + row_stop - row_start,
            row_start=row_start,
            row_stop=row_stop,
        )

    def _boundary_before(self, row: int, cycles: int) -> int:
        """The last row up to this one at which a token starts. Row 0 always does."""
        while True:
            low = max(0, row + 1 - _SEARCH_ROWS)
            found = np.flatnonzero(self.store.level(low, row + 1) > cycles)
            if len(found):
                return low + int(found[-1])
            row = low - 1

    def _boundary_after(self, row: int, cycles: int) -> int:
        """The first row from this one on at which a token starts; n_rows counts as one."""
        while row < self.store.n_rows:
            high = min(self.store.n_rows, row + _SEARCH_ROWS)
            found = np.flatnonzero(self.store.level(row, high) > cycles)
            if len(found):
                return row + int(found[0])
            row = high
        return row

    def ids_of_windows(self, row_start: np.ndarray, row_stop: np.ndarray, cycles: int, out: np.ndarray, column: int = 0) -> None:
        """Write the ids of window w into out[w, column:], for all windows at once; rows as in `ids_of_rows`, unchecked. What lies behind a
        window's last token in `out` is left as it was. out: integer[windows, width].
        """
        table = self.table(cycles)
        row_start, row_stop = np.asarray(row_start, np.int64), np.asarray(row_stop, np.int64)
        if len(row_start) == 0:
            return
        if row_start.min() < 0 or row_stop.max() > self.store.n_rows or (row_start >= row_stop).any():
            raise IndexError(f"a window is empty, reversed or not inside rows 0..{self.store.n_rows}")
        store = self.store
        batch = np.searchsorted(store.batch_edges, row_start, side="right") - 1
        crossing = row_stop > store.batch_edges[batch + 1]
        lines = np.flatnonzero(~crossing)
        batch, n_rows = batch[lines], (row_stop - row_start)[lines]
        offset = row_start[lines] - store.batch_edges[batch]
        base_address, level_address = store.base_address[batch] + offset, store.level_address[batch] + 2 * offset
        failed = encode_windows(base_address, level_address, n_rows, cycles, table, out, lines, column)
        if failed >= 0:
            raise self._inconsistent(row_start[lines[failed]], row_stop[lines[failed]])
        for line in np.flatnonzero(crossing):  # windows over the edge of two record batches
            ids = self.ids_of_rows(int(row_start[line]), int(row_stop[line]), cycles)
            out[line, column : column + len(ids)] = ids

    def _inconsistent(self, row_start: int, row_stop: int) -> UserError:
        return UserError(
            "the store holds a token that its vocabulary does not",
            where=f"{self.store.path}, rows {row_start:,} to {row_stop:,}",
            hint="`grover-dist verify` names the damaged file; delete the artefact's folder and learn again",
        )
