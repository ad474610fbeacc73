"""Counts of all adjacent pairs, kept exact by the coordinator, and the choice of the next merges.

One row a left token: its right tokens in ascending order with their counts. Tokens get ascending ids, so a row only grows at its end. A pair
that occurs once can never be chosen and never gains an occurrence, so it is not stored: what is not in a row occurs at most once. Each row
keeps an upper bound of its best count; counts only fall, so a bound that is out of date still bounds, and only rows that reach the top are
looked through again.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from grover_dist.bpe.messages import add_merge

MAX_MERGES_A_ROUND = 64


class PairCounts:
    """The coordinator's counts. Tokens are small ids (bases 0 to 3, merges from 4)."""

    def __init__(self, base_counts: np.ndarray, n_tokens: int) -> None:
        """base_counts: int64[16] inside strips. n_tokens: tokens there will ever be."""
        # begin, size and capacity of each row in the entry arrays; bound, best right token and whether they are up to date.
        self._rows = np.zeros((n_tokens, 6), np.int64)
        self._used = np.zeros(1, np.int64)
        self._right, self._count = np.empty(0, np.uint16), np.empty(0, np.int64)
        self._reserve(64)
        self._sum_left, self._sum_right = np.zeros(n_tokens, np.int64), np.zeros(n_tokens, np.int64)
        self.n_tokens = 4
        for pair, count in enumerate(base_counts.tolist()):
            _append(self._rows, self._right, self._count, self._used, pair // 4, pair % 4, count)

    def add_junctions(self, pairs: np.ndarray, sign: int) -> None:
        """pairs int64[j, 2]: tokens on both sides of the cuts between strips."""
        _add_pairs(self._rows, self._right, self._count, pairs, sign)

    def choose(self, limit: int) -> tuple[np.ndarray, np.ndarray]:
        """The next merges that can be made together, in the order of the rule: int64[k, 2] and their counts int64[k]; k = 0 at the end."""
        chosen = np.empty((min(limit, MAX_MERGES_A_ROUND), 2), np.int64)
        counts = np.empty(len(chosen), np.int64)
        k = _choose(self._rows, self._right, self._count, self.n_tokens, chosen, counts)
        return chosen[:k], counts[:k]

    def apply(self, merges: np.ndarray, payloads: list[np.ndarray], dropped: np.ndarray, before: np.ndarray, after: np.ndarray) -> None:
        """Bring the counts up to date after a round.

        merges int64[k, 3] (left, right, new). payloads: what the workers answered. dropped int64[d, 2]: merge index and the token after a
        token that was dropped. before, after: the junctions' pairs, int64[j, 2], as they were and as they are.
        """
        self._reserve(sum(len(payload) for payload in payloads) + len(after) * len(merges))
        begins = np.cumsum([0, *(len(payload) for payload in payloads[:-1])])
        buffer = payloads[0] if len(payloads) == 1 else np.concatenate(payloads)
        _add_pairs(self._rows, self._right, self._count, before, -1)
        _apply(
            self._rows, self._right, self._count, self._used, merges, buffer, begins, dropped, after, self._sum_left, self._sum_right
        )
        _add_pairs(self._rows, self._right, self._count, after, 1)
        self.n_tokens += len(merges)

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
def _add(rows, rights, counts, left, right, delta):
    """Change a stored pair's count; a pair that is not stored occurs once at the most and stays out."""
    low, size = rows[left, _BEGIN], rows[left, _SIZE]
    if size == 0:
        return
    while size > 1:
        half = size >> 1
        low += half if rights[low + half] <= right else 0
        size -= half
    if rights[low] != right:
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
def _choose(rows, rights, counts, n_tokens, chosen, chosen_counts):
    """Ranked pairs (count down, ids up) until one shares a token crosswise with a chosen one.

    Chosen pairs then never overlap in the text, do not change each other's counts, and rank above every pair that they make: (x, new) has at
    most the count of (x, left), which ends with a chosen left token. Only (new, new) of a self pair can rank higher, with up to half of its
    pair's count; so below that the round ends.
    """
    n = 0
    floor = np.int64(2)
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
def _apply(rows, rights, counts, used, merges, buffer, begins, dropped, after, left, right):
    cursor = begins.copy()
    for index in range(merges.shape[0]):
        a, b, new = merges[index, 0], merges[index, 1], merges[index, 2]
        made = np.int64(0)
        for source in range(cursor.size):
            count, cursor[source] = add_merge(buffer, cursor[source], left, right)
            made += count
        # A pair that stands at a junction is stored even if it occurs once inside the strips.
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
                if left[x] > 1:
                    _append(rows, rights, counts, used, x, new, count)
                left[x] = 0
        for y in range(new):
            if right[y] != 0:
                count = right[y] & ~_FACING
                _add(rows, rights, counts, b, y, -count)
                if right[y] > 1:
                    _append(rows, rights, counts, used, new, y, count)
                right[y] = 0
        count = left[new] & ~_FACING
        _add(rows, rights, counts, b, a, -count)
        if left[new] > 1:
            _append(rows, rights, counts, used, new, new, count)
        left[new] = right[new] = 0
        for row in range(dropped.shape[0]):
            if dropped[row, 0] == index:
                follower = dropped[row, 1]
                _add(rows, rights, counts, b, a if follower == new else follower, -1)
