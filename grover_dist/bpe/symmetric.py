"""Both strands alike: a pair and its reverse complement are counted together, and merged one right after the other.

The rule. The value of a class {(a, b), (b', a')} is the sum of both counts (x' is the token of x's reverse complement), or the one count of
a pair that is its own reverse complement. The best class is taken, ties to the smallest (left id, right id) of its members; that member is
merged first, the other one in the next cycle, even if nothing is left of it. Both are ordinary merges with ordinary ids, so levels,
tokenizers and nested vocabularies are what they always are. The vocabulary is closed under reverse complement after every cycle that does
not part a class. Where members overlap (a b a', b its own reverse complement) the first one wins, so boundaries are not symmetric.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from grover_dist.bpe.counts import PairCounts, find_pair

_ROW_BEGIN, _ROW_SIZE = 0, 1


class SymmetricCounts(PairCounts):
    """Pair counts that choose by class. Every pair is stored: a rare one may have a frequent partner."""

    def __init__(self, base_counts: np.ndarray, n_tokens: int, junctions: np.ndarray) -> None:
        self._complement = np.full(n_tokens + 1, n_tokens, np.int64)  # of tokens; the last, empty row stands for one not made yet
        self._complement[:4] = [3, 2, 1, 0]
        self._top = np.zeros(n_tokens + 1, np.int64)  # no class with a member in this row is worth more
        self._partner: tuple[int, int] | None = None
        super().__init__(base_counts, n_tokens, junctions, store_all=True)
        self._raise(0)

    def choose(self, limit: int) -> tuple[np.ndarray, np.ndarray]:
        """The next class, or the part of it that can be merged in one round: int64[k, 2], counts int64[k], k at most 2."""
        if self._partner is not None:
            pairs, self._partner = [self._partner], None
            self._complement[self.n_tokens], self._complement[self.n_tokens - 1] = self.n_tokens - 1, self.n_tokens
        else:
            a, b, value = _best_class(self._rows, self._right, self._count, self._complement, self._top, self.n_tokens)
            if value < 2:
                return np.empty((0, 2), np.int64), np.empty(0, np.int64)
            partner = int(self._complement[b]), int(self._complement[a])
            pairs = [(a, b)]
            if partner == (a, b):
                self._complement[self.n_tokens] = self.n_tokens
            elif limit > 1:
                if partner[0] == b or partner[1] == a:  # they may overlap: one after the other
                    self._partner = partner
                else:
                    pairs.append(partner)
                    self._complement[self.n_tokens], self._complement[self.n_tokens + 1] = self.n_tokens + 1, self.n_tokens
        found = np.array(pairs, np.int64)
        return found, np.array([find_pair(self._rows, self._right, self._count, a, b) for a, b in pairs], np.int64)

    def apply(self, merges: np.ndarray, payloads: list[np.ndarray], dropped: np.ndarray, before: np.ndarray, after: np.ndarray) -> None:
        first = self.n_tokens
        super().apply(merges, payloads, dropped, before, after)
        self._raise(first)

    def _raise(self, first: int) -> None:
        _raise_tops(self._rows, self._right, self._count, self._complement, self._top, self.n_tokens, first)


@njit(cache=True, nogil=True)
def _value(rows, rights, counts, complement, left, right, count):
    """Of the class of a pair with this count."""
    partner_left, partner_right = complement[right], complement[left]
    if partner_left == left and partner_right == right:
        return count
    if partner_left >= rows.shape[0] // 2:
        return count
    return count + find_pair(rows, rights, counts, partner_left, partner_right)


@njit(cache=True, nogil=True)
def _raise_tops(rows, rights, counts, complement, top, n_tokens, first):
    """Account for the pairs that hold a token from `first` on."""
    for left in range(n_tokens):
        begin = rows[left, _ROW_BEGIN]
        at = begin + rows[left, _ROW_SIZE] - 1
        while at >= begin and (left >= first or rights[at] >= first):
            value = _value(rows, rights, counts, complement, left, np.int64(rights[at]), counts[at])
            top[left] = max(top[left], value)
            partner = complement[rights[at]]
            top[partner] = max(top[partner], value)
            at -= 1


@njit(cache=True, nogil=True)
def _best_class(rows, rights, counts, complement, top, n_tokens):
    """Its smallest member and its value. A row's bound is trusted only after looking through the row, and equals are compared by members,
    also by those that no longer occur.
    """
    best_left, best_right, found = np.int64(-1), np.int64(-1), np.int64(1)
    while True:
        row = -1
        for left in range(n_tokens):
            if top[left] > found and (row < 0 or top[left] > top[row]):
                row = left
        if row < 0:
            break
        value, _, _ = _best_of_row(rows, rights, counts, complement, row)
        if value == top[row]:
            found = value
        top[row] = value
    if found < 2:
        return best_left, best_right, np.int64(0)
    for row in range(n_tokens):
        if top[row] == found:
            top[row], left, right = _best_of_row(rows, rights, counts, complement, row)
            if top[row] == found and (best_left < 0 or left < best_left or (left == best_left and right < best_right)):
                best_left, best_right = left, right
    return best_left, best_right, found


@njit(cache=True, nogil=True)
def _best_of_row(rows, rights, counts, complement, row):
    """Best value of the classes with a stored member in this row, and the smallest member of any class of that value."""
    best, best_left, best_right = np.int64(0), np.int64(0), np.int64(0)
    begin = rows[row, _ROW_BEGIN]
    for at in range(begin, begin + rows[row, _ROW_SIZE]):
        right = np.int64(rights[at])
        value = _value(rows, rights, counts, complement, row, right, counts[at])
        if value < best or value == 0:
            continue
        left = np.int64(row)
        partner_left, partner_right = complement[right], complement[row]
        if partner_left < left or (partner_left == left and partner_right < right):
            left, right = partner_left, partner_right
        if value > best or left < best_left or (left == best_left and right < best_right):
            best, best_left, best_right = value, left, right
    return best, best_left, best_right
