"""The worker's side of learning: a stretch of the genome, cut into strips that threads merge side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np

from grover_dist.bpe import indexing, kernels
from grover_dist.bpe.cost import Memory, choose_memory
from grover_dist.bpe.crew import MAIL_SIZE, SIZE, Crew, ask, serve
from grover_dist.bpe.kernels import EDGE, EDGE_COLUMNS
from grover_dist.bpe.levels import tokens_to_levels
from grover_dist.bpe.messages import MAX_MERGES_A_ROUND, Reply, RoundMessage, sum_payloads

MAX_STRIP_ROWS = 2**32 - 2**20  # positions inside a strip are uint32
SENT_APART = 2  # strips whose payloads the coordinator may as well sum itself
SCANNED_SHARE, MAX_SCANNED = 0.5, 64  # lean: no index before this share of tokens a base is left, or so many merges


def cut(contig_starts: np.ndarray, n_rows: int, n_parts: int) -> list[tuple[int, int]]:
    """Row ranges of `n_parts` parts of equal size, in order, covering rows 0 to n_rows.

    Cuts fall anywhere, also inside a contig; a cut moves to a contig's start (int64 rows, ascending) within 1/64 of a part's length.
    """
    edges = [n_rows * part // n_parts for part in range(n_parts + 1)]
    starts = np.asarray(contig_starts, np.int64)
    reach = n_rows // max(1, n_parts) // 64
    for part in range(1, n_parts):
        place = int(np.searchsorted(starts, edges[part]))
        near = [int(start) for start in starts[max(0, place - 1) : place + 1] if abs(int(start) - edges[part]) <= reach]
        if near:
            edges[part] = min(near, key=lambda start: abs(start - edges[part]))
    return [(edges[part], edges[part + 1]) for part in range(n_parts)]


class Strip:
    """A contiguous stretch of rows that one thread merges. See kernels.py for the layout."""

    def __init__(self, bases: np.ndarray, contig_starts: np.ndarray, starts_contig: bool, memory: str = "fast") -> None:
        """contig_starts: rows, relative to the strip, at which a contig starts, in (0, n)."""
        n = len(bases)
        assert n <= MAX_STRIP_ROWS
        self.n_rows = n
        self.soft_left = not starts_contig
        self.piece_starts = np.concatenate([[0], contig_starts]).astype(np.int64)  # rows
        n_pieces = len(self.piece_starts)
        self.slots = np.empty(n + n_pieces + 2, np.uint16)
        ends = np.append(self.piece_starts[1:], n)
        for piece, (start, stop) in enumerate(zip(self.piece_starts.tolist(), ends.tolist(), strict=True)):
            self.slots[start + piece] = EDGE
            self.slots[start + piece + 1 : stop + piece + 1] = bases[start:stop]
        end = n + n_pieces
        self.slots[end:] = EDGE
        self.state = np.zeros(kernels.STATE_SIZE, np.int64)
        self.state[kernels.END] = end
        self.state[kernels.FIRST] = 1
        self.state[kernels.HEAD_END] = ends[0] + 1
        self.state[kernels.LAST] = end - 1
        self.state[kernels.SINGLE] = n_pieces == 1
        self.edges = np.zeros(EDGE_COLUMNS, np.int64)
        self.drops: list[tuple[int, int, int]] = []
        self.base_counts = np.zeros(16, np.int64)
        indexing.count_base_pairs(self.slots, end, self.base_counts)
        kernels.describe_edges(self.slots, self.state, np.ones(4, np.uint32), self.edges)
        self.state[kernels.TOKENS] = n
        self._scan_first = memory == "lean"
        self._mail, self._out = np.zeros(MAIL_SIZE, np.int64), np.empty(0, np.uint8)
        self.pool = np.empty(0, np.uint32)
        # Untouched pages of these arrays cost nothing: tokens of one merge, and lists.
        entries = 3 * n // 2 + 4 * 65_536
        self.tables = np.empty(entries, np.uint16), np.empty(entries, np.int64), np.zeros(2 * 65_536, np.int64)
        self.scratch = (
            np.empty(n + 2, np.uint16),  # left and right neighbours of the tokens of one merge, and their places
            np.empty(n + 2, np.uint16),
            np.empty(n + 2, np.uint32),
            np.zeros(65_536, np.uint32),  # histograms
            np.zeros(65_536, np.uint32),
            np.zeros(65_536, np.uint16),  # list of each neighbour, and where each list is written next
            np.zeros(65_536, np.uint64),
            np.empty(65_536, np.int64),  # distinct neighbours, and one bit for each
            np.zeros(1_024, np.uint64),
            np.zeros(65_536, np.uint32),  # right neighbours shift nothing
        )

    def _index(self, lengths: np.ndarray, n_tokens: int) -> None:
        # Each merge takes a token away and files two positions, one of them where its own list was, or both when that list is shared.
        self.pool = np.empty(int(self.state[kernels.TOKENS]) + 2 * self.n_rows + 2 * kernels.AHEAD, np.uint32)
        if n_tokens == 4:
            indexing.index_base_pairs(self.slots, self.state, self.base_counts, self.pool, self.tables)
        else:
            counts = np.zeros((n_tokens, n_tokens), np.int64)
            indexing.index_tokens(self.slots, self.state, lengths, counts, self.pool, self.tables)

    def prepare(self, merges: np.ndarray, drop: int, lengths: np.ndarray, cycles: int) -> bool:
        """Before the merges of a round: the index where its time has come. Returns whether there is one."""
        first = int(merges[0, 2])
        scanning = self._scan_first and first < 4 + MAX_SCANNED and self.state[kernels.TOKENS] > SCANNED_SHARE * self.n_rows
        if not self.state[kernels.INDEXED] and not scanning:
            self._index(lengths, first)
        if drop >= 0:
            self.drops.append((int(self.state[kernels.FIRST]), int(merges[drop, 1]), int(merges[drop, 2]) - 3))
        if not len(self._out):  # untouched pages cost nothing here either
            self._out = np.empty(MAX_MERGES_A_ROUND * (24 + 16 * min(cycles + 4, self.n_rows + 1)), np.uint8)
        return bool(self.state[kernels.INDEXED])

    def work(self, merges: np.ndarray, lengths: np.ndarray, *, stay: bool) -> tuple:
        """What crew.serve takes; the same until the index is made. merges int64[MAX_MERGES_A_ROUND, 3] is written before each round."""
        return (
            self._mail, merges, stay, self.slots, self.state, lengths, self.pool, self.tables, self.scratch, self.edges, self._out
        )  # fmt: skip

    def round(self, merges: np.ndarray, n_merges: int, drop: int, take: int, lengths: np.ndarray, cycles: int) -> None:
        """Make the merges of one round, in the calling thread."""
        ask(self._mail, n_merges, drop, take, cycles)
        serve(*self.work(merges, lengths, stay=False))

    def payload(self) -> np.ndarray:
        """The last round's message (uint8), until the next one."""
        return self._out[: self._mail[SIZE]]

    def finish(self, lengths: np.ndarray, left: np.ndarray, right: np.ndarray) -> None:
        """Turn the tokens into boundary levels, in place; the index goes."""
        del self.pool, self.tables, self.scratch, self._out
        drops = np.asarray(self.drops, np.int64).reshape(-1, 3)
        tokens_to_levels(self.slots, self.state, lengths, left, right, drops)

    def levels(self, start: int, stop: int) -> np.ndarray:
        """Levels of the strip's rows start to stop, after `finish`."""
        first, last = np.searchsorted(self.piece_starts, [start, max(start, stop - 1)], side="right")
        cuts = [start, *self.piece_starts[first:last].tolist(), stop]
        return np.concatenate([self.slots[a + piece : b + piece] for piece, (a, b) in enumerate(pairwise(cuts), start=first)])


class Partition:
    """Consecutive rows of the genome under learning: what one worker holds.

    bases: uint8[n] base codes 0 to 3, any array-like that slices (copied). contig_starts: int64 rows inside the partition (0 < row < n) at
    which a contig starts. starts_contig: whether row 0 starts a contig. threads: strips merged side by side. The results never depend on
    threads or memory.

    Messages are those of messages.py. `start`, `round`, `replay` and then `levels` are called by the coordinator, also over Ray.
    """

    def __init__(
        self,
        bases: np.ndarray,
        contig_starts: np.ndarray,
        starts_contig: bool,
        *,
        threads: int = 1,
        memory: Memory = "fast",
        strips: int | None = None,
    ) -> None:
        n = len(bases)
        memory = choose_memory(n, memory)
        starts = np.asarray(contig_starts, np.int64)
        assert starts.size == 0 or (starts[0] > 0 and starts[-1] < n and bool(np.all(np.diff(starts) > 0)))
        self.n_rows = n
        wanted = max(1, strips or threads, -(-n // MAX_STRIP_ROWS))
        self._ranges = cut(starts, n, wanted)
        hard = set(starts.tolist())
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        self._strips = self._each(
            lambda rows: Strip(
                bases[rows[0] : rows[1]],
                starts[(starts > rows[0]) & (starts < rows[1])] - rows[0],
                starts_contig if rows[0] == 0 else rows[0] in hard,
                memory,
            ),
            self._ranges,
        )
        self._merges = np.zeros((MAX_MERGES_A_ROUND, 3), np.int64)
        self._crew: Crew | None = None
        self._threads = threads
        self._left, self._right, self._n_tokens = np.zeros(65_536, np.int64), np.zeros(65_536, np.int64), 4
        self._lengths = np.zeros(65_536, np.uint32)  # of each token, in bases; an edge has none
        self._lengths[:4] = 1
        self._round, self._reply = -1, b""
        self._finished = False

    def start(self) -> bytes:
        """The first reply: base-pair counts, geometry and edges of the strips."""
        if self._round < 0:
            counts = sum(strip.base_counts for strip in self._strips)
            geometry = [[strip.n_rows, strip.soft_left, strip.state[kernels.SINGLE]] for strip in self._strips]
            payload = np.concatenate([counts, np.asarray(geometry, np.int64).ravel()]).astype("<i8")
            self._answer(0, [payload.view(np.uint8)])
        assert self._round == 0
        return self._reply

    def round(self, message: bytes) -> bytes:
        """Make the merges of one round. A repeated round is answered from memory and changes nothing."""
        request = RoundMessage.unpack(message)
        if request.number == self._round:
            return self._reply
        assert request.number == self._round + 1 and not self._finished
        self._add_tokens(request.merges)
        k = len(request.merges)
        self._merges[:k] = request.merges
        if self._crew is None:
            self._first_rounds(request)
        else:
            for strip, drop in zip(self._strips, request.drop.tolist(), strict=True):
                strip.prepare(request.merges, drop, self._lengths, request.cycles)
            self._crew.ask(k, request.drop[1:], request.take[1:], request.cycles)
            self._strips[0].round(self._merges, k, int(request.drop[0]), int(request.take[0]), self._lengths, request.cycles)
            self._crew.wait()
        parts = [strip.payload() for strip in self._strips]
        self._answer(request.number, parts if len(parts) <= SENT_APART else [sum_payloads(parts, request.merges)])
        return self._reply

    def _first_rounds(self, request: RoundMessage) -> None:
        """A round without a crew, which needs strips that have their index, and a thread for each."""

        def make(job: tuple[Strip, int, int]) -> bool:
            strip, drop, take = job
            indexed = strip.prepare(request.merges, drop, self._lengths, request.cycles)
            strip.round(self._merges, len(request.merges), drop, take, self._lengths, request.cycles)
            return indexed

        indexed = self._each(make, list(zip(self._strips, request.drop.tolist(), request.take.tolist(), strict=True)))
        if self._threads == len(self._strips) > 1 and all(indexed):
            self._crew = Crew([strip.work(self._merges, self._lengths, stay=True) for strip in self._strips[1:]])

    def _each(self, work: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        return list((self._pool.map if self._pool is not None else map)(work, items))

    def replay(self, messages: list[bytes]) -> bytes:
        """All rounds so far, on a fresh partition; the last reply."""
        reply = self.start()
        for message in messages:
            reply = self.round(message)
        return reply

    def levels(self, row_start: int = 0, row_stop: int | None = None) -> np.ndarray:
        """uint16: the cycle at which the boundary before each row disappears, 65,535 for never. Ends the learning of this partition."""
        if not self._finished:
            if self._crew is not None:
                self._crew.close()
            self._each(lambda strip: strip.finish(self._lengths, self._left, self._right), self._strips)
            self._finished = True
        row_stop = self.n_rows if row_stop is None else row_stop
        pieces = [
            strip.levels(max(a, row_start) - a, min(b, row_stop) - a)
            for strip, (a, b) in zip(self._strips, self._ranges, strict=True)
            if max(a, row_start) < min(b, row_stop)
        ]
        return np.concatenate(pieces) if pieces else np.empty(0, np.uint16)

    def _add_tokens(self, merges: np.ndarray) -> None:
        assert merges[0, 2] == self._n_tokens
        self._n_tokens += len(merges)
        self._left[merges[:, 2]], self._right[merges[:, 2]] = merges[:, 0], merges[:, 1]
        # Longer than any strip is long enough.
        both = self._lengths[merges[:, 0]].astype(np.int64) + self._lengths[merges[:, 1]]
        self._lengths[merges[:, 2]] = np.minimum(both, MAX_STRIP_ROWS)

    def _answer(self, number: int, payloads: list[np.ndarray]) -> None:
        edges = np.stack([strip.edges for strip in self._strips])
        self._round, self._reply = number, Reply(number, edges, payloads).pack()
