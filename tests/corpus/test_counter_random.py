from __future__ import annotations

import numpy as np
import pytest
from numba import njit

from grover_dist.corpus.counter_random import below, philox, stream_key


@njit
def _philox(key, c0, c1, c2, c3):
    return philox(key, c0, c1, c2, c3)


@njit
def _below(number, bound):
    return below(number, bound)


@pytest.mark.parametrize(
    ("key", "counter", "expected"),
    [  # known answers of the authors' Random123 library (kat_vectors, philox4x32 10)
        (0, (0, 0, 0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (2**64 - 1, (2**32 - 1,) * 4, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (0x299F31D0A4093822, (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
    ],
)
def test_known_answers(key, counter, expected):
    assert _philox(np.uint64(key), *counter) == expected


def test_purposes_and_seeds_have_their_own_streams():
    keys = {int(stream_key(seed, purpose)) for seed in range(50) for purpose in range(1, 5)}
    assert len(keys) == 200


def test_below_is_even_and_in_range():
    numbers = [_below(number, 5) for number in range(0, 2**32, 2**20 + 7)]
    assert np.bincount(numbers, minlength=5).tolist() == pytest.approx([len(numbers) / 5] * 5, rel=0.01)
    assert _below(2**32 - 1, 7) == 6
