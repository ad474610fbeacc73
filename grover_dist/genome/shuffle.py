"""A shuffled genome that keeps every dinucleotide count: the null of what the order of bases holds beyond its pairs.

Altschul and Erickson 1985 (https://doi.org/10.1093/oxfordjournals.molbev.a040370): a sequence is a walk over the letters, and any other
walk over the same edges from the same first to the same last letter has the same counts. A walk is fair where the last edges out of the
letters form a tree towards the last letter; such trees are drawn by rejection.
"""

from __future__ import annotations

import numpy as np
from numba import njit


def shuffle_dinucleotides(codes: np.ndarray, seed: int, block_bp: int | None = None) -> np.ndarray:
    """Base codes uint8[n] (0 to 3) in another order with the same dinucleotide counts, first and last base.

    block_bp: shuffle pieces of this many bases, which share their border base, so that composition along the genome stays too.
    """
    codes = np.ascontiguousarray(codes, np.uint8)
    if len(codes) < 4:
        return codes.copy()
    return _shuffle_blocks(codes, len(codes) if block_bp is None else max(4, block_bp), seed & 0xFFFFFFFF)


@njit(cache=True, nogil=True)
def _shuffle_blocks(codes, block, seed):
    np.random.seed(seed)
    out = codes.copy()
    start = 0
    while start < len(codes) - 1:
        stop = min(len(codes), start + block + 1)
        _shuffle(codes[start:stop], out[start:stop])
        start = stop - 1
    return out


@njit(cache=True, nogil=True)
def _shuffle(codes, out):
    n = len(codes)
    begin = np.zeros(5, np.int64)
    for i in range(n - 1):
        begin[codes[i] + 1] += 1
    for letter in range(4):
        begin[letter + 1] += begin[letter]
    edges, at = np.empty(n - 1, np.uint8), begin[:4].copy()
    for i in range(n - 1):
        edges[at[codes[i]]] = codes[i + 1]
        at[codes[i]] += 1
    root = codes[n - 1]
    last = np.zeros(4, np.int64)
    while True:
        for letter in range(4):
            if begin[letter + 1] > begin[letter]:
                last[letter] = begin[letter] + np.random.randint(begin[letter + 1] - begin[letter])
        if _reaches(begin, edges, last, root):
            break
    for letter in range(4):
        low, high = begin[letter], begin[letter + 1]
        if letter != root and high > low:  # the chosen edge goes to the end and stays there
            edges[last[letter]], edges[high - 1] = edges[high - 1], edges[last[letter]]
            high -= 1
        for i in range(high - 1, low, -1):
            j = low + np.random.randint(i - low + 1)
            edges[i], edges[j] = edges[j], edges[i]
    at[:] = begin[:4]
    letter = codes[0]
    out[0] = letter
    for i in range(1, n):
        following = edges[at[letter]]
        at[letter] += 1
        out[i] = following
        letter = following


@njit(cache=True, nogil=True)
def _reaches(begin, edges, last, root):
    """Whether the last edge of every letter that has one leads to the root."""
    for letter in range(4):
        if begin[letter + 1] == begin[letter]:
            continue
        here, steps = letter, 0
        while here != root and steps < 5:
            here = edges[last[here]]
            steps += 1
        if here != root:
            return False
    return True
