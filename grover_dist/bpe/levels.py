"""From the tokens that a strip ended with to the boundary level of every base. See kernels.py for the layout."""

from __future__ import annotations

import numpy as np
from numba import njit

from grover_dist.bpe.kernels import EDGE, END, FIRST, NEVER


@njit(cache=True, nogil=True)
def tokens_to_levels(slots, state, lengths, left, right, drops):
    """Overwrite the slots with boundary levels; EDGE slots keep the value NEVER, which equals EDGE.

    left, right: the parts of each token (unused below 4); the cycle of token t is t - 3. drops int64[d, 3]: start, token and cycle of each
    token that the left neighbour took.
    """
    end = state[END]
    stack_at = np.empty(lengths.size + 1, np.int64)
    stack_token = np.empty(lengths.size + 1, np.int64)
    for index in range(drops.shape[0]):
        _write_levels(slots, end, drops[index, 0], drops[index, 1], drops[index, 2], lengths, left, right, stack_at, stack_token)
    p = state[FIRST]
    while p < end:
        token = np.int64(slots[p])
        if token == EDGE:
            p += 1
            continue
        length = np.int64(lengths[token])
        _write_levels(slots, end, p, token, np.int64(NEVER), lengths, left, right, stack_at, stack_token)
        p += length


@njit(cache=True, nogil=True)
def _write_levels(slots, end, start, token, level, lengths, left, right, stack_at, stack_token):
    slots[start] = level
    stack_at[0], stack_token[0] = start, token
    depth = 1
    while depth > 0:
        depth -= 1
        at, part = stack_at[depth], stack_token[depth]
        while part >= 4:
            middle = at + np.int64(lengths[left[part]])
            if middle < end:
                slots[middle] = part - 3
                stack_at[depth], stack_token[depth] = middle, right[part]
                depth += 1
            part = left[part]
