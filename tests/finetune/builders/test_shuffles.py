"""What each shuffle keeps, and that the dinucleotide shuffle draws evenly."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from grover_dist.bpe.encode import encode_codes
from grover_dist.bpe.vocabulary import Vocabulary
from grover_dist.finetune.builders.shuffles import base_shuffled, dinucleotide_shuffled, token_shuffled

SEQUENCES = st.lists(st.integers(0, 4), min_size=1, max_size=80).map(lambda codes: np.array(codes, np.uint8))


def pairs(codes):
    return Counter(zip(codes[:-1].tolist(), codes[1:].tolist(), strict=True))


@given(SEQUENCES, st.integers(0, 2**32))
@settings(max_examples=200, deadline=None)
def test_dinucleotide_counts_and_both_ends_stay(codes, seed):
    found = dinucleotide_shuffled(codes, np.random.default_rng(seed))
    assert pairs(found) == pairs(codes) and len(found) == len(codes)
    assert found[0] == codes[0] and found[-1] == codes[-1]


def test_every_sequence_with_the_same_dinucleotides_is_equally_likely():
    codes = np.array([0, 1, 0, 2, 1, 0, 0, 2], np.uint8)
    possible = {
        order for order in permutations(codes.tolist()) if order[0] == 0 and order[-1] == 2 and pairs(np.array(order)) == pairs(codes)
    }
    generator, n = np.random.default_rng(1), 4_000
    drawn = Counter(tuple(dinucleotide_shuffled(codes, generator).tolist()) for _ in range(n))
    assert set(drawn) == possible and len(possible) > 3
    expected = n / len(possible)
    assert sum((count - expected) ** 2 / expected for count in drawn.values()) < 3 * len(possible)


@given(SEQUENCES, st.integers(0, 2**32))
@settings(max_examples=50, deadline=None)
def test_base_counts_stay(codes, seed):
    assert np.array_equal(np.sort(base_shuffled(codes, np.random.default_rng(seed))), np.sort(codes))


def test_long_sequences_change():
    codes = np.random.default_rng(0).integers(0, 4, 300).astype(np.uint8)
    for shuffle in (base_shuffled, dinucleotide_shuffled):
        assert (shuffle(codes, np.random.default_rng(1)) == codes).mean() < 0.5


def test_tokens_stay_whole():
    vocabulary = Vocabulary(np.array([5, 9, 7]), np.array([8, 6, 7]), np.array([9, 8, 7]))  # AT, ATC, GG
    codes = np.array([0, 3, 1, 2, 2, 4, 0, 3, 1, 3], np.uint8)  # ATC GG [UNK] ATC T
    seen = set()
    for seed in range(40):
        found = token_shuffled(codes, vocabulary, 3, np.random.default_rng(seed))
        assert np.array_equal(np.sort(found), np.sort(codes))
        text = "".join("ACGTN"[code] for code in found)
        assert text.count("ATC") == 2 and "GG" in text
        seen.add(text)
    assert len(seen) > 5 and len(encode_codes(codes, vocabulary, 3)) == 5
