"""The shuffle keeps what it promises to keep, loses the rest, and draws every arrangement equally often."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grover_dist.genome.shuffle import shuffle_dinucleotides


def pairs(codes: np.ndarray) -> list[int]:
    return np.bincount(codes[:-1].astype(int) * 4 + codes[1:], minlength=16).tolist()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=200), st.integers(0, 1000), st.one_of(st.none(), st.integers(4, 50)))
def test_pairs_and_ends_stay(letters: list[int], seed: int, block_bp: int | None) -> None:
    codes = np.array(letters, np.uint8)
    shuffled = shuffle_dinucleotides(codes, seed, block_bp)
    assert pairs(shuffled) == pairs(codes) if len(codes) > 1 else np.array_equal(shuffled, codes)
    assert np.array_equal(shuffled[:1], codes[:1]) and np.array_equal(shuffled[-1:], codes[-1:])


def test_blocks_keep_composition_along_the_genome_and_lose_words() -> None:
    random = np.random.default_rng(0)
    codes = np.concatenate([random.choice(4, 5_000, p=p) for p in ([0.4, 0.1, 0.1, 0.4], [0.1, 0.4, 0.4, 0.1])]).astype(np.uint8)
    for at in range(0, 10_000, 50):
        codes[at : at + 12] = [0, 1, 2, 3, 3, 2, 1, 0, 0, 2, 1, 3]
    shuffled = shuffle_dinucleotides(codes, 1, 1_000)
    assert np.isin(shuffled[:5_000], (1, 2)).mean() == pytest.approx(np.isin(codes[:5_000], (1, 2)).mean(), abs=0.001)
    word = bytes([0, 1, 2, 3, 3, 2, 1, 0, 0, 2, 1, 3])
    assert codes.tobytes().count(word) >= 200 > 5 > shuffled.tobytes().count(word)


def test_every_arrangement_is_equally_likely() -> None:
    codes = np.array([0, 1, 0, 2, 1, 2, 0], np.uint8)
    wanted = pairs(codes)
    possible = {p for p in permutations(codes.tolist()) if p[0] == 0 and p[-1] == 0 and pairs(np.array(p, np.uint8)) == wanted}
    seen = Counter(tuple(shuffle_dinucleotides(codes, seed).tolist()) for seed in range(4_000))
    assert set(seen) == possible and len(possible) > 1
    expected = 4_000 / len(possible)
    assert sum((count - expected) ** 2 / expected for count in seen.values()) < 3 * len(possible) + 12


def test_the_seed_decides() -> None:
    codes = np.random.default_rng(3).integers(0, 4, 500).astype(np.uint8)
    assert np.array_equal(shuffle_dinucleotides(codes, 5), shuffle_dinucleotides(codes, 5))
    assert not np.array_equal(shuffle_dinucleotides(codes, 5), shuffle_dinucleotides(codes, 6))
