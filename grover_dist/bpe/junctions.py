"""Junctions: where strips meet inside a contig. They belong to the coordinator; strips never speak to each other."""

from __future__ import annotations

import numpy as np
from numba import njit

from grover_dist.bpe import kernels


def find_junctions(edges: np.ndarray, soft_left: np.ndarray, single: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tokens that face each other across soft borders: strips int64[j, 2] and tokens int64[j, 2]. Empty strips are looked through."""
    strips, pairs = np.empty((2, len(edges), 2), np.int64)
    found = _find_junctions(edges, soft_left, single, strips, pairs)
    return strips[:found], pairs[:found]


@njit(cache=True, nogil=True)
def _find_junctions(edges, soft_left, single, strips, pairs):
    found = 0
    waiting = np.int64(-1)
    for strip in range(edges.shape[0]):
        if not soft_left[strip]:
            waiting = -1
        if edges[strip, kernels.E_HEAD]:
            if waiting >= 0:
                # Number by number: assigning a row takes two seconds more to compile.
                strips[found, 0], strips[found, 1] = waiting, strip
                pairs[found, 0], pairs[found, 1] = edges[waiting, kernels.E_LAST], edges[strip, kernels.E_FIRST]
                found += 1
            waiting = strip
        elif not single[strip]:
            waiting = strip
    return found


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
