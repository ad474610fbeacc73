"""Counts of adjacent pairs, kept exact by the coordinator, and the choice of the next merges.

One row a left token: its right tokens in ascending order with their counts. Tokens get ascending ids, so a row only grows at its end.
Counts of existing pairs only fall, and from that follows all the thrift here. A pair that is made with fewer occurrences than a threshold
is not stored: it cannot be chosen before the best count has fallen below the threshold; when that happens, the counts are built again from
the workers' replies with a lower one. And each row keeps an upper bound of its best count, so that only rows that reach the top are looked
through.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from grover_dist.bpe.messages import add_merge, sum_payloads

MAX_MERGES_A_ROUND = 64
_FALL = 32  # the threshold is this part of the best count when the counts are built


class PairCounts:
    """The coordinator's counts. Tokens are small ids (bases 0 to 3, merges from 4)."""

    def __init__(self, base_counts: np.ndarray, n_tokens: int, junctions: np.ndarray, *, store_all: bool = False) -> None:
        """base_counts: int64[16] inside strips. n_tokens: tokens there will ever be. junctions int64[j, 2]: pairs that face each other at
        cuts. store_all: no threshold.
        """
        self._base_counts = np.array(base_counts, np.int64)
        self._first_junctions = junctions
        self._history: list[tuple[np.ndarray, ...]] = []
        self._sum_left, self._sum_right = np.zeros(n_tokens, np.int64), np.zeros(n_tokens, np.int64)
        self.n_tokens = 4
        self._build(1 if store_all else max(2, int(self._base_counts.max()) // _FALL))

    def choose(self, limit: int) -> tuple[np.ndarray, np.ndarray]:
        """The next merges that can be made together, in the order of the rule: int64[k, 2] and their counts int64[k]; k = 0 at the end."""
        chosen = np.empty((min(limit, MAX_MERGES_A_ROUND), 2), np.int64)
        counts = np.empty(len(chosen), np.int64)
        while True:
            k = _choose(self._rows, self._right, self._count, self.n_tokens, self._threshold, chosen, counts)
            if k > 0 or self._threshold == 2:
                return chosen[:k], counts[:k]
            self._build(max(2, self._threshold // _FALL))

    def apply(self, merges: np.ndarray, payloads: list[np.ndarray], dropped: np.ndarray, before: np.ndarray, after: np.ndarray) -> None:
        """Bring the counts up to date after a round.

        merges int64[k, 3] (left, right, new). payloads: what the workers answered. dropped int64[d, 2]: merge index and the token after a
        token that was dropped. before, after: the junctions' pairs, int64[j, 2], as they were and as they are.
        """
        payload = payloads[0] if len(payloads) == 1 else sum_payloads(payloads, merges)
        self._history.append((merges, payload, dropped, before, after))
        self._apply(*self._history[-1])
        self.n_tokens += len(merges)

    def _build(self, threshold: int) -> None:
        """Everything again from the replies so far, storing what had `threshold` occurrences when it was made."""
        self._threshold = threshold
        # begin, size and room of each row in the entry arrays; bound, best right token and whether they are up to date.
        self._rows = np.zeros((len(self._sum_left), 6), np.int64)
        self._used = np.zeros(1, np.int64)
        self._right, self._count = np.empty(0, np.uint16), np.empty(0, np.int64)
        self._reserve(64)
        for pair, count in enumerate(self._base_counts.tolist()):
            _append(self._rows, self._right, self._count, self._used, pair // 4, pair % 4, count)
        _add_pairs(self._rows, self._right, self._count, self._first_junctions, 1)
        for entry in self._history:
            self._apply(*entry)

    def _apply(self, merges: np.ndarray, payload: np.ndarray, dropped: np.ndarray, before: np.ndarray, after: np.ndarray) -> None:
        self._reserve(len(payload) + len(after) * len(merges))
        _apply(
            self._rows, self._right, self._count, self._used, self._threshold, merges, payload, dropped, before, after,
            self._sum_left, self._sum_right,
        )  # fmt: skip

    def _reserve(self, entries: int) -> None:
        """Room for `entries` more. If every row had to move to twice its room at once, three times the used part would do."""
        needed = 3 * int(self._used[0]) + 8 * entries + 8 * len(self._rows)
        if needed > len(self._right):
            right, count = np.empty(4 * needed, np.uint16), np.empty(4 * needed, np.int64)  # untouched pages cost nothing
            right[: self._used[0]] = self._right[: self._used[0]]
            count[: self._used[0]] = self._count[: self._used[0]]
            self._right, self._count = right, count


_BEGIN, _SIZE, _ROOM, _BOUND, _BEST, _EXACT = range(6)
_FACING = 1 << 60  # beside a neighbour's count: this pair stands at a junction


@njit(cache=True, nogil=True)
def _raise_bound(rows, left, right, count):
    if count > rows[left, _BOUND]:
        rows[left, _BOUND], rows[left, _BEST], rows[left, _EXACT] = count, right, 1
    elif count == rows[left, _BOUND] and right < rows[left, _BEST]:
        rows[left, _BEST] = right


@njit(cache=True, nogil=True)
def _append(rows, rights, counts, used, left, right, count):
    size = rows[left, _SIZE]
    if size == rows[left, _ROOM]:
        room = max(4, 2 * size)
        old, begin = rows[left, _BEGIN], used[0]
        for i in range(size):
            rights[begin + i] = rights[old + i]
            counts[begin + i] = counts[old + i]
        used[0] += room
        rows[left, _BEGIN], rows[left, _ROOM] = begin, room
    at = rows[left, _BEGIN] + size
    rights[at], counts[at] = right, count
    rows[left, _SIZE] = size + 1
    _raise_bound(rows, left, right, count)


@njit(cache=True, nogil=True)
def _place(rows, rights, left, right):
    """Where a pair is stored, or -1."""
    low, size = rows[left, _BEGIN], rows[left, _SIZE]
    if size == 0:
        return np.int64(-1)
    while size > 1:
        half = size >> 1
        low += half if rights[low + half] <= right else 0
        size -= half
    return low if rights[low] == right else np.int64(-1)


@njit(cache=True, nogil=True)
def find_pair(rows, rights, counts, left, right):
    """Count of a pair, 0 if it is not stored."""
    at = _place(rows, rights, left, right)
    return counts[at] if at >= 0 else np.int64(0)


@njit(cache=True, nogil=True)
def _add(rows, rights, counts, left, right, delta):
    """Change a stored pair's count; a pair that is not stored is rare and stays out."""
    low = _place(rows, rights, left, right)
    if low < 0:
        return
    counts[low] += delta
    if delta > 0:
        _raise_bound(rows, left, right, counts[low])
    elif rows[left, _BEST] == right:
        rows[left, _EXACT] = 0


@njit(cache=True, nogil=True)
def _add_pairs(rows, rights, counts, pairs, sign):
    for index in range(pairs.shape[0]):
        _add(rows, rights, counts, pairs[index, 0], pairs[index, 1], sign)


@njit(cache=True, nogil=True)
def _look_through(rows, rights, counts, left, chosen, n_chosen):
    """The exact best of a row, without the pairs already chosen; the smallest right token among equals."""
    top, place = np.int64(0), np.int64(0)
    begin = rows[left, _BEGIN]
    for at in range(begin, begin + rows[left, _SIZE]):
        if counts[at] > top:
            right = np.int64(rights[at])
            free = True
            for index in range(n_chosen):
                if chosen[index, 0] == left and chosen[index, 1] == right:
                    free = False
            if free:
                top, place = counts[at], right
    rows[left, _BOUND], rows[left, _BEST], rows[left, _EXACT] = top, place, 1


@njit(cache=True, nogil=True)
def _choose(rows, rights, counts, n_tokens, threshold, chosen, chosen_counts):
    """Ranked pairs (count down, ids up) until one shares a token crosswise with a chosen one.

    Chosen pairs then never overlap in the text, do not change each other's counts, and rank above every pair that they make: (x, new) has
    at most the count of (x, left), which ends with a chosen left token. Only (new, new) of a self pair can rank higher, with up to half of
    its pair's count; so below that the round ends.
    """
    n = 0
    floor = np.int64(threshold)
    while n < chosen.shape[0]:
        top, row = np.int64(0), np.int64(-1)
        for left in range(n_tokens):
            if rows[left, _BOUND] > top:
                top, row = rows[left, _BOUND], left
        if top < floor:
            break
        if not rows[row, _EXACT]:
            _look_through(rows, rights, counts, row, chosen, n)
            continue
        a, b = row, rows[row, _BEST]
        crossed = False
        for index in range(n):
            if a == chosen[index, 1] or b == chosen[index, 0]:
                crossed = True
        if crossed:
            break
        chosen[n, 0], chosen[n, 1], chosen_counts[n] = a, b, top
        n += 1
        if a == b:
            floor = max(floor, (top + 1) // 2)
        _look_through(rows, rights, counts, row, chosen, n)
    return n


@njit(cache=True, nogil=True)
def _apply(rows, rights, counts, used, threshold, merges, payload, dropped, before, after, left, right):
    """One round. With the neighbours L and R of a new token: C[x, a] -= L[x], C[x, new] += L[x]; C[b, y] -= R[y], C[new, y] += R[y];
    C[new, new] += L[new], C[b, a] -= L[new]; C[a, b] -= occurrences. A dropped token b with the follower y: C[b, y] -= 1.
    """
    _add_pairs(rows, rights, counts, before, -1)
    at = 0
    for index in range(merges.shape[0]):
        a, b, new = merges[index, 0], merges[index, 1], merges[index, 2]
        made, at = add_merge(payload, at, left, right)
        # A pair that stands at a junction is stored however rare it is inside the strips.
        for junction in range(after.shape[0]):
            if after[junction, 1] == new:
                left[after[junction, 0]] |= _FACING
            if after[junction, 0] == new:
                right[after[junction, 1]] |= _FACING
        _add(rows, rights, counts, a, b, -made)
        for x in range(new):
            if left[x] != 0:
                count = left[x] & ~_FACING
                _add(rows, rights, counts, x, a, -count)
                if left[x] >= threshold:
                    _append(rows, rights, counts, used, x, new, count)
                left[x] = 0
        for y in range(new):
            if right[y] != 0:
                count = right[y] & ~_FACING
                _add(rows, rights, counts, b, y, -count)
                if right[y] >= threshold:
                    _append(rows, rights, counts, used, new, y, count)
                right[y] = 0
        count = left[new] & ~_FACING
        _add(rows, rights, counts, b, a, -count)
        if left[new] >= threshold:
            _append(rows, rights, counts, used, new, new, count)
        left[new] = right[new] = 0
        for row in range(dropped.shape[0]):
            if dropped[row, 0] == index:
                follower = dropped[row, 1]
                _add(rows, rights, counts, b, a if follower == new else follower, -1)
    _add_pairs(rows, rights, counts, after, 1)
