"""Philox4x32-10: random numbers as a pure function of a key and a counter, so that no order of work can change them.

Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011, https://doi.org/10.1145/2063384.2063405.
"""

from __future__ import annotations

import numpy as np
from numba import njit, uint32, uint64

# What a stream of numbers is for; kept in the key, so that no two uses share numbers.
WINDOW_LENGTHS, SAMPLE_ORDER, MASKS, STRANDS, GENOME_ORDER = 1, 2, 3, 4, 5
_HIGH = np.uint64(32)


def stream_key(seed: int, purpose: int) -> np.uint64:
    """The 64-bit Philox key of a seed (its low 56 bits) and a purpose."""
    return np.uint64((purpose << 56) | (seed & ((1 << 56) - 1)))


@njit(cache=True, nogil=True, inline="always")
def philox(key, c0, c1, c2, c3):
    """Four uint32 from a uint64 key and four uint32 counters."""
    k0, k1 = uint32(key), uint32(key >> _HIGH)
    x0, x1, x2, x3 = uint32(c0), uint32(c1), uint32(c2), uint32(c3)
    for _ in range(10):
        p0 = uint64(0xD2511F53) * uint64(x0)
        p1 = uint64(0xCD9E8D57) * uint64(x2)
        x0, x2 = uint32(uint32(p1 >> _HIGH) ^ x1 ^ k0), uint32(uint32(p0 >> _HIGH) ^ x3 ^ k1)
        x1, x3 = uint32(p1), uint32(p0)
        k0, k1 = uint32(k0 + uint32(0x9E3779B9)), uint32(k1 + uint32(0xBB67AE85))
    return x0, x1, x2, x3


@njit(cache=True, nogil=True, inline="always")
def below(number, bound):
    """A uint32 scaled to 0..bound - 1 (Lemire's multiply-shift; the bias is bound / 2**32)."""
    return (uint64(number) * uint64(bound)) >> _HIGH


@njit(cache=True, nogil=True)
def coins(key, epochs, samples):
    """A fair coin for each (epoch, sample): bool[n]."""
    out = np.empty(len(samples), np.bool_)
    for i in range(len(samples)):
        number, _, _, _ = philox(key, 0, 0, epochs[i], samples[i])
        out[i] = number >> 31 != 0
    return out
