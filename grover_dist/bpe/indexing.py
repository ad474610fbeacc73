"""The first lists of a strip: every adjacent pair of its tokens, filed in one go. See kernels.py for the layout."""

from __future__ import annotations

import numpy as np
from numba import njit

from grover_dist.bpe.kernels import EDGE, END, FIRST, INDEXED, POOL_USED, REST, TABLE_USED


@njit(cache=True, nogil=True)
def count_base_pairs(slots, end, counts):
    """Adjacent base pairs of a fresh strip into counts int64[16] (index 4 * left + right)."""
    left = slots[0]
    for position in range(1, end):
        right = slots[position]
        if left != EDGE and right != EDGE:
            counts[4 * left + right] += 1
        left = right


@njit(cache=True, nogil=True)
def index_base_pairs(slots, state, counts, pool, tables):
    """File every base pair of a fresh strip: the right tables of tokens 0 to 3."""
    table_key, table_begin, table_first = tables
    offsets = np.zeros(17, np.int64)
    used = np.int64(0)
    entry = np.int64(0)
    for left in range(4):
        table_first[2 * left + 1] = entry
        for right in range(4):
            table_key[entry] = right
            table_begin[entry] = used
            offsets[4 * left + right] = used
            used += counts[4 * left + right]
            entry += 1
        for _ in range(2):  # the empty shared list and the end of the last list
            table_key[entry] = REST
            table_begin[entry] = used
            entry += 1
        table_first[2 * left + 2] = entry
    previous = slots[0]
    for position in range(1, state[END]):
        current = slots[position]
        if previous != EDGE and current != EDGE:
            key = 4 * np.int64(previous) + np.int64(current)
            pool[offsets[key]] = position - 1
            offsets[key] += 1
        previous = current
    state[POOL_USED] = used
    state[TABLE_USED] = entry
    state[INDEXED] = 1


@njit(cache=True, nogil=True)
def index_tokens(slots, state, lengths, counts, pool, tables):
    """File every pair of tokens of a strip that was scanned so far. counts: zeros int64[tokens, tokens]."""
    table_key, table_begin, table_first = tables
    n_tokens = counts.shape[0]
    for filing in range(2):
        previous, start = np.int64(EDGE), np.int64(0)
        p = state[FIRST]
        while p < state[END]:
            token = np.int64(slots[p])
            if token != EDGE and previous != EDGE:
                if filing:
                    pool[counts[previous, token]] = start
                counts[previous, token] += 1
            previous, start = token, p
            p += max(np.int64(1), np.int64(lengths[token]))
        if filing:
            break
        used, entry = np.int64(0), np.int64(0)
        for token in range(n_tokens):
            for side in range(2):
                table_first[2 * token + side] = entry
                stop = 4 if token < 4 else token + 1 - side
                for key in range(0 if side == 1 or token >= 4 else stop, stop):
                    left, right = (key, token) if side == 0 else (token, key)
                    count = counts[left, right]
                    counts[left, right] = used
                    table_key[entry], table_begin[entry] = key, used
                    used += count
                    entry += 1
                for _ in range(2):  # the empty shared list and the end of the last list
                    table_key[entry], table_begin[entry] = REST, used
                    entry += 1
        state[POOL_USED], state[TABLE_USED], state[INDEXED] = used, entry, 1
