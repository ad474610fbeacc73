"""Which bases are held out. Blocks of fixed length in record coordinates, dealt by a keyed hash: the same for every vocabulary."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from grover_dist.config import SplitSettings
from grover_dist.errors import UserError
from grover_dist.genome.contigs import ContigTable

TRAIN, HELD_OUT, MIXED = 0, 1, -1
_BLOCKS_AT_LEAST = 5


@dataclass(frozen=True)
class Split:
    """Rows cut into pieces at every block edge and contig end.

    row_edges int64[pieces + 1]: sorted edges in rows, from 0 to n_rows. piece_block int64[pieces]: block of each piece (a block with an
    N run inside has several). held_out bool[blocks].
    """

    row_edges: np.ndarray
    piece_block: np.ndarray
    held_out: np.ndarray

    @property
    def piece_held_out(self) -> np.ndarray:
        """bool[pieces]"""
        return self.held_out[self.piece_block]

    @property
    def held_out_rows(self) -> int:
        return int(np.diff(self.row_edges)[self.piece_held_out].sum())

    @property
    def train_rows(self) -> int:
        return int(self.row_edges[-1]) - self.held_out_rows

    def block_of(self, rows: np.ndarray) -> np.ndarray:
        """Block index of each row."""
        return self.piece_block[np.searchsorted(self.row_edges, rows, side="right") - 1]

    def is_held_out(self, rows: np.ndarray) -> np.ndarray:
        return self.held_out[self.block_of(rows)]

    def side_of_interval(self, row_start: np.ndarray | int, row_stop: np.ndarray | int) -> np.ndarray:
        """int8 of the intervals' shape: TRAIN, HELD_OUT, or MIXED where an interval touches both sides. Intervals are not empty."""
        first = np.searchsorted(self.row_edges, row_start, side="right") - 1
        last = np.searchsorted(self.row_edges, np.asarray(row_stop) - 1, side="right") - 1
        before = np.concatenate([[0], np.cumsum(self.piece_held_out)])  # held-out pieces before each piece
        held, touched = before[last + 1] - before[first], last + 1 - first
        return np.where(held == 0, TRAIN, np.where(held == touched, HELD_OUT, MIXED)).astype(np.int8)


def split_blocks(contigs: ContigTable, settings: SplitSettings, seed: int) -> Split:
    """Deal the blocks in the order of a keyed hash, until the held-out bases come nearest to `held_out_fraction` (one block at the least).

    With `held_out_records` these records are held out whole. UserError where either side would be empty.
    """
    row_edges, piece_record, piece_index = _cut(contigs, settings.block_bp)
    keys = piece_record.astype(np.int64) * (int(piece_index.max()) + 1) + piece_index
    _, first, piece_block = np.unique(keys, return_index=True, return_inverse=True)
    block_rows = np.bincount(piece_block, weights=np.diff(row_edges)).astype(np.int64)
    if settings.held_out_records:
        held = {contigs.record_index(name) for name in settings.held_out_records}
        held_out = np.isin(piece_record[first], sorted(held))
    else:
        names = [contigs.record_names[record] for record in piece_record[first]]
        held_out = _deal(names, piece_index[first], block_rows, settings, seed)
    if held_out.all() or not held_out.any():
        raise _too_small(contigs, settings, len(held_out))
    return Split(row_edges, piece_block, held_out)


def _cut(contigs: ContigTable, block_bp: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """row_edges, and record and block number of each piece."""
    first, last = contigs.start_bp // block_bp, (contigs.end_bp - 1) // block_bp
    counts = last - first + 1
    contig = np.repeat(np.arange(len(contigs)), counts)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    index = first[contig] + within
    start_bp = np.maximum(index * block_bp, contigs.start_bp[contig])
    rows = contigs.row_start[contig] + start_bp - contigs.start_bp[contig]
    return np.append(rows, contigs.n_rows), contigs.record[contig], index


def _deal(names: list[str], indices: np.ndarray, block_rows: np.ndarray, settings: SplitSettings, seed: int) -> np.ndarray:
    digests = [
        hashlib.blake2b(f"{seed}\t{name}\t{index}".encode(), digest_size=8).digest()
        for name, index in zip(names, indices.tolist(), strict=True)
    ]
    order = np.argsort(np.array([int.from_bytes(digest, "big") for digest in digests], np.uint64), kind="stable")
    target = settings.held_out_fraction * block_rows.sum()
    count = int(np.argmin(np.abs(np.cumsum(block_rows[order]) - target))) + 1
    held_out = np.zeros(len(block_rows), bool)
    held_out[order[: min(count, len(order) - 1)]] = True
    return held_out


def _too_small(contigs: ContigTable, settings: SplitSettings, blocks: int) -> UserError:
    if settings.held_out_records:
        return UserError(
            "split.held_out_records leaves one side empty",
            where="split.held_out_records",
            got=", ".join(settings.held_out_records),
            hint="hold out some records with bases, and not all of them",
        )
    block_bp = contigs.n_rows // (2 * _BLOCKS_AT_LEAST)
    return UserError(
        "the genome is too small for the held-out split",
        where="split.block_bp",
        got=f"{blocks} block{'s' if blocks != 1 else ''} of {settings.block_bp:,} bp in {contigs.n_rows:,} bases",
        expected="two blocks at the least",
        hint=f"set split.block_bp={block_bp}" if block_bp >= 1_000 else "give a genome of 10,000 bases or more",
    )
