"""Counts of adjacent pairs, kept exact by the coordinator, and the choice of the next merges.

One row a left token: its right tokens in ascending order with their counts. Tokens get ascending ids, so a row only grows at its end, and a
pair keeps its place in its row. One column a right token: its left tokens, with the place of each pair in its row. Counts of existing pairs
only fall, and from that follows all the thrift here. A pair that is made with fewer occurrences than a threshold is not stored: it cannot
be chosen before the best count has fallen below the threshold; when that happens, the counts are built again from the workers' replies with
a lower one. So a row or column holds few pairs, and a merge walks through those of its tokens. And each row keeps an upper bound of its
best count, so that only rows that reach the top are looked through.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from grover_dist.bpe.messages import MAX_MERGES_A_ROUND, join_payloads, read_occurrences, read_side, sum_payloads

_SUMMED_FROM = 5  # payloads: so many are summed before they are kept, fewer are read side by side
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
        self._scratch = np.zeros((4, n_tokens), np.int64)  # histograms of left and right neighbours, and who they are
        self._marks = np.zeros((n_tokens + 63) >> 6, np.uint64)
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
        if len(payloads) >= _SUMMED_FROM:
            payloads = [sum_payloads(payloads, merges)]
        self._history.append((merges, *join_payloads(payloads), dropped, before, after))
        self._apply(*self._history[-1])
        self.n_tokens += len(merges)

    def _build(self, threshold: int) -> None:
        """Everything again from the replies so far, storing what had `threshold` occurrences when it was made."""
        self._threshold = threshold
        # Rows, then columns: begin, size and room in the entry arrays; of rows also bound, best right token and whether that is exact.
        # Row i also holds the highest bound among the rows 64 i to 64 i + 63.
        self._rows = np.zeros((2 * self._scratch.shape[1], 7), np.int64)
        self._used = np.zeros(1, np.int64)
        self._right, self._count = np.empty(0, np.uint16), np.empty(0, np.int64)
        self._reserve(64)
        for pair, count in enumerate(self._base_counts.tolist()):
            _append(self._rows, self._right, self._count, self._used, pair // 4, pair % 4, count)
        _add_pairs(self._rows, self._right, self._count, self._first_junctions, 1)
        for entry in self._history:
            self._apply(*entry)

    def _apply(self, merges, payload, begins, dropped, before, after) -> None:
        self._reserve(len(payload) + len(after) * len(merges))
        _apply(
            self._rows, self._right, self._count, self._used, self._threshold, merges, payload, begins, dropped, before, after,
            self._scratch, self._marks,
        )  # fmt: skip

    def _reserve(self, entries: int) -> None:
        """Room for `entries` more pairs. If every row and column moved to twice its room at once, three times the used part would do."""
        needed = 3 * int(self._used[0]) + 16 * entries + 8 * len(self._rows)
        if needed > len(self._right):
            right, count = np.empty(4 * needed, np.uint16), np.empty(4 * needed, np.int64)  # untouched pages cost nothing
            right[: self._used[0]] = self._right[: self._used[0]]
            count[: self._used[0]] = self._count[: self._used[0]]
            self._right, self._count = right, count


_BEGIN, _SIZE, _ROOM, _BOUND, _BEST, _EXACT, _TOP = range(7)
_BLOCK = 6  # log2 of the rows that share a top
_FACING = 1 << 60  # beside a neighbour's count: this pair stands at a junction
_SEARCH = 8  # a row so many times longer than the keys is searched for each of them


@njit(cache=True, nogil=True)
def _raise_bound(rows, left, right, count):
    if count > rows[left, _BOUND]:
        rows[left, _BOUND], rows[left, _BEST], rows[left, _EXACT] = count, right, 1
        rows[left >> _BLOCK, _TOP] = max(rows[left >> _BLOCK, _TOP], count)
    elif count == rows[left, _BOUND] and right < rows[left, _BEST]:
        rows[left, _BEST] = right


@njit(cache=True, nogil=True)
def _extend(rows, keys, values, used, row, key, value):
    """One more entry at the end of a row or column."""
    size = rows[row, _SIZE]
    if size == rows[row, _ROOM]:
        room = max(4, 2 * size)
        old, begin = rows[row, _BEGIN], used[0]
        for i in range(size):
            keys[begin + i] = keys[old + i]
            values[begin + i] = values[old + i]
        used[0] += room
        rows[row, _BEGIN], rows[row, _ROOM] = begin, room
    at = rows[row, _BEGIN] + size
    keys[at], values[at] = key, value
    rows[row, _SIZE] = size + 1


@njit(cache=True, nogil=True)
def _append(rows, rights, counts, used, left, right, count):
    _extend(rows, rights, counts, used, rows.shape[0] // 2 + right, left, rows[left, _SIZE])
    _extend(rows, rights, counts, used, left, right, count)
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
    first, highest = left >> _BLOCK << _BLOCK, np.int64(0)
    for row in range(first, min(first + (1 << _BLOCK), rows.shape[0] // 2)):
        highest = max(highest, rows[row, _BOUND])
    rows[left >> _BLOCK, _TOP] = highest


@njit(cache=True, nogil=True)
def _choose(rows, rights, counts, n_tokens, threshold, chosen, chosen_counts):
    """Ranked pairs (count down, ids up) until one shares a token crosswise with a chosen one.

    Chosen pairs then never overlap in the text, do not change each other's counts, and rank above every pair that they make: (x, new) has
    at most the count of (x, left), which ends with a chosen left token. Only (new, new) of a self pair can rank higher, with up to half of
    its pair's count; so below that the round ends.
    """
    n = np.int64(0)
    floor = np.int64(threshold)
    while n < chosen.shape[0]:
        top, block = np.int64(0), np.int64(0)
        for index in range(((n_tokens - 1) >> _BLOCK) + 1):
            if rows[index, _TOP] > top:
                top, block = rows[index, _TOP], index
        if top < floor:
            break
        row = block << _BLOCK
        while rows[row, _BOUND] != top:
            row += 1
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
def _subtract_from_column(rows, rights, counts, right, histogram, keys, n):
    """Counts of (x, right) fall by histogram[x]."""
    column = rows.shape[0] // 2 + right
    begin, size = rows[column, _BEGIN], rows[column, _SIZE]
    if size > _SEARCH * n:
        for index in range(n):
            _add(rows, rights, counts, keys[index], right, -histogram[keys[index]])
        return
    for at in range(begin, begin + size):
        left = np.int64(rights[at])
        if histogram[left] != 0:
            counts[rows[left, _BEGIN] + counts[at]] -= histogram[left]
            if rows[left, _BEST] == right:
                rows[left, _EXACT] = 0


@njit(cache=True, nogil=True)
def _subtract_from_row(rows, rights, counts, left, histogram, keys, n):
    """Counts of (left, y) fall by histogram[y]."""
    begin, size = rows[left, _BEGIN], rows[left, _SIZE]
    if size > _SEARCH * n:
        for index in range(n):
            _add(rows, rights, counts, left, keys[index], -histogram[keys[index]])
        return
    if size > 0 and histogram[rows[left, _BEST]] != 0:
        rows[left, _EXACT] = 0
    for at in range(begin, begin + size):
        counts[at] -= histogram[np.int64(rights[at])]


@njit(cache=True, nogil=True)
def _mark_facing(pairs, new, side, histogram, keys, n):
    """Tokens that face the new one across a junction, on this side of it, into histogram and keys (these stay ascending). Returns the
    new number of keys. A token that is made later in this round brings the pair itself.
    """
    for junction in range(pairs.shape[0]):
        key = pairs[junction, side]
        if pairs[junction, 1 - side] != new or key > new:
            continue
        if histogram[key] == 0:
            place = n
            while place > 0 and keys[place - 1] > key:
                keys[place] = keys[place - 1]
                place -= 1
            keys[place] = key
            n += 1
        histogram[key] |= _FACING
    return n


@njit(cache=True, nogil=True)
def _apply(rows, rights, counts, used, threshold, merges, payload, begins, dropped, before, after, scratch, marks):
    """One round. With the neighbours L and R of a new token: C[x, a] -= L[x], C[x, new] += L[x]; C[b, y] -= R[y], C[new, y] += R[y];
    C[new, new] += L[new], C[b, a] -= L[new]; C[a, b] -= occurrences. A dropped token b with the follower y: C[b, y] -= 1.
    """
    left, right, left_keys, right_keys = scratch[0], scratch[1], scratch[2], scratch[3]
    _add_pairs(rows, rights, counts, before, np.int64(-1))
    cursor = begins.copy()
    for index in range(merges.shape[0]):
        a, b, new = merges[index, 0], merges[index, 1], merges[index, 2]
        made = read_occurrences(payload, cursor)
        n_left = read_side(payload, cursor, left, marks, left_keys)
        n_right = read_side(payload, cursor, right, marks, right_keys)
        _add(rows, rights, counts, a, b, -made)
        _add(rows, rights, counts, b, a, -left[new])
        _subtract_from_column(rows, rights, counts, a, left, left_keys, n_left)
        _subtract_from_row(rows, rights, counts, b, right, right_keys, n_right)
        # A pair that stands at a junction is stored however rare it is inside the strips.
        n_left = _mark_facing(after, new, np.int64(0), left, left_keys, n_left)
        n_right = _mark_facing(after, new, np.int64(1), right, right_keys, n_right)
        both = left[new]
        right[new] = 0  # (new, new) is told by the left side
        for entry in range(n_left):
            x = left_keys[entry]
            if left[x] >= threshold and x != new:
                _append(rows, rights, counts, used, x, new, left[x] & ~_FACING)
            left[x] = 0
        for entry in range(n_right):
            y = right_keys[entry]
            if right[y] >= threshold:
                _append(rows, rights, counts, used, new, y, right[y] & ~_FACING)
            right[y] = 0
        if both >= threshold:
            _append(rows, rights, counts, used, new, new, both & ~_FACING)
        for row in range(dropped.shape[0]):
            if dropped[row, 0] == index:
                follower = dropped[row, 1]
                _add(rows, rights, counts, b, a if follower == new else follower, np.int64(-1))
    _add_pairs(rows, rights, counts, after, np.int64(1))
