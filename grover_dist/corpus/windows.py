"""Windows as in Sanabria et al. 2024: left to right inside a contig, no overlap; full with probability 1/2, else of a uniform length."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit, uint32

from grover_dist.config import WindowSettings
from grover_dist.corpus.counter_random import WINDOW_LENGTHS, below, philox, stream_key
from grover_dist.corpus.store import Store
from grover_dist.errors import UserError
from grover_dist.genome.split import HELD_OUT, TRAIN, Split


@dataclass(frozen=True)
class WindowTable:
    """row_start, row_stop int64[n], n_tokens int32[n] (without [CLS] and [SEP]), in genome order."""

    row_start: np.ndarray
    row_stop: np.ndarray
    n_tokens: np.ndarray

    def __len__(self) -> int:
        return len(self.row_start)

    @property
    def n_bases(self) -> int:
        return int((self.row_stop - self.row_start).sum())

    def take(self, indices: np.ndarray) -> WindowTable:
        return WindowTable(self.row_start[indices], self.row_stop[indices], self.n_tokens[indices])


@dataclass(frozen=True)
class Windows:
    train: WindowTable
    held_out: WindowTable


def make_windows(store: Store, split: Split, settings: WindowSettings, cycles: int, seed: int) -> Windows:
    """The windows of one vocabulary. A window belongs to a side only if it lies wholly there.

    UserError where either side gets none.
    """
    table = tile(store, settings, cycles, seed)
    side = split.side_of_interval(table.row_start, table.row_stop)
    windows = Windows(train=table.take(np.flatnonzero(side == TRAIN)), held_out=table.take(np.flatnonzero(side == HELD_OUT)))
    for name, part, rows in (("training", windows.train, split.train_rows), ("held-out", windows.held_out, split.held_out_rows)):
        if not len(part):
            raise UserError(
                f"no {name} window of {settings.min_tokens} to {settings.max_tokens} tokens fits",
                where=f"{cycles} cycles, split.block_bp and windows",
                got=f"{rows:,} {name} bases",
                hint="set a larger split.block_bp or smaller windows.max_tokens and windows.min_tokens",
            )
    return windows


def tile(store: Store, settings: WindowSettings, cycles: int, seed: int) -> WindowTable:
    """Windows over all contigs, in one pass over the levels. Each contig is tiled from its first token; what is left at its end is a window
    too if it has `min_tokens` tokens.
    """
    key = stream_key(seed, WINDOW_LENGTHS)
    full = round(settings.full_probability * 2.0**32)
    # contig, its windows begun so far, first row of the open window, its tokens, its wanted length
    state = np.array([-1, 0, 0, 0, 0], np.int64)
    pieces = []
    contig_starts = np.append(store.contigs.row_start[:-1], store.n_rows)
    for start, stop in store.batches():
        level = store.level(start, stop)
        contigs_here = int(np.searchsorted(contig_starts, stop) - np.searchsorted(contig_starts, start)) + 1
        room = (stop - start) // settings.min_tokens + contigs_here + 1
        out = np.empty((3, room), np.int64)
        count = _tile(level, start, contig_starts, cycles, key, full, settings.min_tokens, settings.max_tokens, state, out)
        pieces.append(out[:, :count].copy())
    if state[3] >= settings.min_tokens:
        pieces.append(np.array([[state[2]], [store.n_rows], [state[3]]]))
    rows = np.concatenate(pieces, axis=1)
    return WindowTable(rows[0], rows[1], rows[2].astype(np.int32))


@njit(cache=True, nogil=True)
def _tile(level, first_row, contig_starts, cycles, key, full, min_tokens, max_tokens, state, out):
    """Walk some rows, write the windows that end at a token of theirs, carry the open window in `state`."""
    contig, begun, opened, tokens, wanted = state
    count = 0
    for i in range(len(level)):
        if level[i] <= cycles:
            continue
        row = first_row + i
        new_contig = row == contig_starts[contig + 1]
        if new_contig or tokens == wanted:
            if tokens >= min_tokens:
                out[0, count], out[1, count], out[2, count] = opened, row, tokens
                count += 1
            if new_contig:
                contig, begun = contig + 1, 0
            kind, length, _, _ = philox(key, uint32(begun), contig, 0, 0)
            wanted = max_tokens if kind < full else min_tokens + np.int64(below(length, max_tokens - min_tokens + 1))
            opened, tokens, begun = row, 0, begun + 1
        tokens += 1
    state[0], state[1], state[2], state[3], state[4] = contig, begun, opened, tokens, wanted
    return count
