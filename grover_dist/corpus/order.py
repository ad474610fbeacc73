"""The order of samples: a keyed permutation, a pure function of (seed, epoch, index). Resume state is one integer."""

from __future__ import annotations

import numpy as np
from numba import njit, uint32, uint64

from grover_dist.corpus.counter_random import SAMPLE_ORDER, philox, stream_key

_ROUNDS = 6


def sample_at(indices: np.ndarray | int, *, n: int, seed: int, epoch: int) -> np.ndarray:
    """Which of `n` samples stands at each position `indices` (0..n - 1) of an epoch; int64 of the same shape.

    A Feistel network on the next even power of two, with cycle walking back into 0..n - 1 (Black and Rogaway, CT-RSA 2002).
    """
    indices = np.asarray(indices, np.int64)
    if n < 1:
        raise ValueError(f"there is no sample to order (n = {n})")
    if indices.size and (indices.min() < 0 or indices.max() >= n):
        raise IndexError(f"sample positions run from 0 to {n - 1}")
    half_bits = max(1, -(-max(1, (n - 1).bit_length()) // 2))
    flat = _permute(np.ascontiguousarray(indices.ravel()), n, half_bits, stream_key(seed, SAMPLE_ORDER), epoch)
    return flat.reshape(indices.shape)


@njit(cache=True, nogil=True)
def _permute(indices, n, half_bits, key, epoch):
    out = np.empty_like(indices)
    mask = uint32((1 << half_bits) - 1)
    for i in range(len(indices)):
        value = indices[i]
        while True:
            left, right = uint32(value >> half_bits), uint32(value) & mask
            for step in range(_ROUNDS):
                mixed, _, _, _ = philox(key, right, step, uint32(epoch), uint32(uint64(epoch) >> uint64(32)))
                left, right = right, uint32((left ^ mixed) & mask)
            value = (np.int64(left) << half_bits) | np.int64(right)
            if value < n:
                break
        out[i] = value
    return out
