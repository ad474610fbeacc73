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

_BLOCK_ROWS = 4_096


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
    state = np.zeros(5, np.int64)
    contig_edges = store.contigs.row_start
    pieces = []
    for start, stop in store.batches():
        contig_ends = int(np.searchsorted(contig_edges, stop, side="right") - np.searchsorted(contig_edges, start, side="right"))
        out = np.empty((3, (stop - start) // settings.min_tokens + contig_ends + 1), np.int64)
        level = store.level(start, stop)
        count = _tile(level, start, contig_edges, cycles, key, full, settings.min_tokens, settings.max_tokens, state, out)
        pieces.append(out[:, :count].copy())
    rows = np.concatenate(pieces, axis=1)
    return WindowTable(rows[0], rows[1], rows[2].astype(np.int32))


@njit(cache=True, nogil=True)
def _tile(level, first_row, contig_edges, cycles, key, full, min_tokens, max_tokens, state, out):
    """Walk consecutive rows and write the windows that end there. `state` carries the contig, its windows begun so far, and the open
    window: its first row, its tokens so far, its wanted tokens (0: none is open).

    Token starts are gathered block by block without branches; windows then step through them by their length.
    """
    contig, begun, opened, tokens, wanted = state
    starts = np.empty(_BLOCK_ROWS, np.int64)
    count = 0
    row, last_row = first_row, first_row + len(level)
    while row < last_row:
        stop = min(last_row, contig_edges[contig + 1], row + _BLOCK_ROWS)
        found = 0
        for i in range(row - first_row, stop - first_row):
            starts[found] = first_row + i
            found += level[i] > cycles
        at = 0
        while at < found:
            if tokens == wanted:
                if wanted > 0:
                    out[0, count], out[1, count], out[2, count] = opened, starts[at], tokens
                    count += 1
                kind, length, _, _ = philox(key, uint32(begun), contig, 0, 0)
                wanted = max_tokens if kind < full else min_tokens + np.int64(below(length, max_tokens - min_tokens + 1))
                opened, tokens, begun = starts[at], 0, begun + 1
            step = min(wanted - tokens, found - at)
            tokens += step
            at += step
        row = stop
        if row == contig_edges[contig + 1]:
            if tokens >= min_tokens:
                out[0, count], out[1, count], out[2, count] = opened, row, tokens
                count += 1
            contig, begun, tokens, wanted = contig + 1, 0, 0, 0
    state[0], state[1], state[2], state[3], state[4] = contig, begun, opened, tokens, wanted
    return count
