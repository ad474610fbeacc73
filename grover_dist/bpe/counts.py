"""Counts of all adjacent pairs, kept exact by the coordinator, and the choice of the next merges.

Counts stand in blocks of 64 right tokens that are made when first needed, so 5,000 cycles of a large genome cost what a dense matrix would, and
65,000 cycles of a small one do not. Each left token has an upper bound of its best count; counts of existing pairs only fall, so a bound that is not exact is still a bound,
and only rows that reach the top are scanned again.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from grover_dist.bpe import kernels
from grover_dist.bpe.messages import add_merge

_BLOCK = 64
MAX_MERGES_A_ROUND = 64


class PairCounts:
    """The coordinator's counts. Tokens are small ids (bases 0 to 3, merges from 4)."""

    def __init__(self, base_counts: np.ndarray, n_tokens: int) -> None:
        """base_counts: int64[16] inside strips. n_tokens: tokens there will ever be."""
        self._blocks_a_row = -(-n_tokens // _BLOCK)
        self._table = np.zeros((n_tokens, self._blocks_a_row), np.int32)
        self._pool = np.zeros((256, _BLOCK), np.int64)
        self._used = np.array([1], np.int64)  # block 0 stays zero: what is not there
        self._bound = np.zeros(n_tokens, np.int64)
        self._best = np.zeros(n_tokens, np.int64)
        self._exact = np.zeros(n_tokens, np.bool_)
        self._left, self._right = np.zeros(n_tokens, np.int64), np.zeros(n_tokens, np.int64)
        self.n_tokens = 4
        for pair, count in enumerate(base_counts.tolist()):
            self.add(pair // 4, pair % 4, count)

    @property
    def _arrays(self):
        return self._table, self._pool, self._used, self._bound, self._best, self._exact

    def add(self, left: int, right: int, count: int) -> None:
        self._reserve(1)
        _add(*self._arrays, left, right, count)

    def add_junctions(self, pairs: np.ndarray, sign: int) -> None:
        """pairs int64[j, 2]: tokens on both sides of the cuts between strips."""
        self._reserve(len(pairs))
        _add_pairs(*self._arrays, pairs, sign)

    def choose(self, limit: int) -> tuple[np.ndarray, np.ndarray]:
        """The next merges that can be made together, in the order of the rule: int64[k, 2] and their counts int64[k]; k = 0 at the end."""
        chosen = np.empty((min(limit, MAX_MERGES_A_ROUND), 2), np.int64)
        counts = np.empty(len(chosen), np.int64)
        k = _choose(*self._arrays, self.n_tokens, chosen, counts)
        return chosen[:k], counts[:k]

    def apply(self, merges: np.ndarray, payloads: list[np.ndarray], dropped: np.ndarray) -> None:
        """Bring the counts up to date after a round. dropped int64[d, 2]: merge index and the token after a token that was dropped."""
        k = len(merges)
        self._reserve(k * (2 * self.n_tokens + 2 * self._blocks_a_row + 8) + len(dropped), pessimistic=False)
        begins = np.cumsum([0, *(len(payload) for payload in payloads[:-1])])
        buffer = payloads[0] if len(payloads) == 1 else np.concatenate(payloads)
        cursor = begins.astype(np.int64)
        for index in range(k):
            # The worst case of one merge is one block a row in the new column and a whole new row.
            self._reserve(self.n_tokens + self._blocks_a_row + 4 * k)
            _apply_merge(*self._arrays, merges, index, buffer, cursor, dropped, self._left, self._right)
            self.n_tokens += 1

    def _reserve(self, blocks: int, pessimistic: bool = True) -> None:
        if pessimistic and self._used[0] + blocks > len(self._pool):
            grown = np.zeros((max(2 * len(self._pool), int(self._used[0]) + blocks), _BLOCK), np.int64)
            grown[: self._used[0]] = self._pool[: self._used[0]]
            self._pool = grown


@njit(cache=True, nogil=True)
def _get(table, pool, left, right):
    return pool[table[left, right // _BLOCK], right % _BLOCK]


@njit(cache=True, nogil=True)
def _add(table, pool, used, bound, best, exact, left, right, delta):
    if delta == 0:
        return
    block = table[left, right // _BLOCK]
    if block == 0:
        block = used[0]
        table[left, right // _BLOCK] = block
        used[0] += 1
    count = pool[block, right % _BLOCK] + delta
    pool[block, right % _BLOCK] = count
    if delta < 0:
        if best[left] == right:
            exact[left] = False
    elif count > bound[left]:
        bound[left], best[left], exact[left] = count, right, True
    elif count == bound[left] and right < best[left]:
        best[left] = right


@njit(cache=True, nogil=True)
def _add_pairs(table, pool, used, bound, best, exact, pairs, sign):
    for index in range(pairs.shape[0]):
        _add(table, pool, used, bound, best, exact, pairs[index, 0], pairs[index, 1], sign)


@njit(cache=True, nogil=True)
def _scan_row(table, pool, bound, best, exact, left, n_tokens, chosen, n_chosen):
    """The exact best of a row, without the pairs already chosen; the smallest right token among equals."""
    top, place = np.int64(0), np.int64(0)
    for block in range((n_tokens + _BLOCK - 1) // _BLOCK):
        stored = table[left, block]
        if stored == 0:
            continue
        for lane in range(_BLOCK):
            if pool[stored, lane] > top:
                right = block * _BLOCK + lane
                free = True
                for index in range(n_chosen):
                    if chosen[index, 0] == left and chosen[index, 1] == right:
                        free = False
                if free:
                    top, place = pool[stored, lane], right
    bound[left], best[left], exact[left] = top, place, True


@njit(cache=True, nogil=True)
def _choose(table, pool, used, bound, best, exact, n_tokens, chosen, counts):
    """Ranked pairs (count down, ids up) until one shares a token crosswise with a chosen one.

    Chosen pairs then never overlap in the text, do not change each other's counts, and rank above every pair that they make:
    (x, new) has at most the count of (x, left), which ends with a chosen left token. Only (new, new) of a self pair can rank higher, with up
    to half its count; so below that the round ends.
    """
    n = 0
    floor = np.int64(2)
    while n < chosen.shape[0]:
        top, row = np.int64(0), np.int64(-1)
        for left in range(n_tokens):
            if bound[left] > top:
                top, row = bound[left], left
        if top < floor:
            break
        if not exact[row]:
            _scan_row(table, pool, bound, best, exact, row, n_tokens, chosen, n)
            continue
        a, b = row, best[row]
        crossed = False
        for index in range(n):
            if a == chosen[index, 1] or b == chosen[index, 0]:
                crossed = True
        if crossed:
            break
        chosen[n, 0], chosen[n, 1], counts[n] = a, b, top
        n += 1
        if a == b:
            floor = max(floor, (top + 1) // 2)
        _scan_row(table, pool, bound, best, exact, row, n_tokens, chosen, n)
    # The rows of chosen pairs lost them from sight only: their counts fall in the round itself.
    return n


@njit(cache=True, nogil=True)
def _apply_merge(table, pool, used, bound, best, exact, merges, index, buffer, cursor, dropped, left, right):
    a, b, new = merges[index, 0], merges[index, 1], merges[index, 2]
    made = np.int64(0)
    for source in range(cursor.size):
        count, cursor[source] = add_merge(buffer, cursor[source], left, right)
        made += count
    _add(table, pool, used, bound, best, exact, a, b, -made)
    for x in range(new):
        if left[x] != 0:
            _add(table, pool, used, bound, best, exact, x, a, -left[x])
            _add(table, pool, used, bound, best, exact, x, new, left[x])
            left[x] = 0
        if right[x] != 0:
            _add(table, pool, used, bound, best, exact, b, x, -right[x])
            _add(table, pool, used, bound, best, exact, new, x, right[x])
            right[x] = 0
    if left[new] != 0:
        _add(table, pool, used, bound, best, exact, new, new, left[new])
        _add(table, pool, used, bound, best, exact, b, a, -left[new])
        left[new] = 0
    for row in range(dropped.shape[0]):
        if dropped[row, 0] == index:
            after = dropped[row, 1]
            _add(table, pool, used, bound, best, exact, b, a if after == new else after, np.int64(-1))


@njit(cache=True, nogil=True)
def find_junctions(edges, soft_left, single):
    """Tokens that face each other across soft borders: strips int64[j, 2] and tokens int64[j, 2]. Empty strips are looked through."""
    n = edges.shape[0]
    strips = np.empty((n, 2), np.int64)
    pairs = np.empty((n, 2), np.int64)
    found = 0
    waiting = np.int64(-1)
    for strip in range(n):
        if not soft_left[strip]:
            waiting = -1
        if edges[strip, kernels.E_HEAD]:
            if waiting >= 0:
                strips[found] = waiting, strip
                pairs[found] = edges[waiting, kernels.E_LAST], edges[strip, kernels.E_FIRST]
                found += 1
            waiting = strip
        elif not single[strip]:
            waiting = strip
    return strips[:found], pairs[:found]


@njit(cache=True, nogil=True)
def plan_straddles(edges, strips, pairs, merges, drop, take):
    """Which strips lend and take tokens in this round, into drop and take int64[strips] (-1: none)."""
    drop[:] = -1
    take[:] = -1
    for junction in range(strips.shape[0]):
        giver, receiver = strips[junction, 1], strips[junction, 0]
        for index in range(merges.shape[0]):
            if pairs[junction, 0] != merges[index, 0] or pairs[junction, 1] != merges[index, 1]:
                continue
            if merges[index, 0] == merges[index, 1]:
                run = edges[receiver, kernels.E_RUN]
                if edges[receiver, kernels.E_WHOLE] and drop[receiver] == index:
                    run -= 1
                if run % 2 == 0:
                    continue
            take[receiver] = index
            drop[giver] = index
