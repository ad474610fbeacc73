"""`strand: symmetric` against its own oracle, and what it promises: a dictionary closed under reverse complement."""

from __future__ import annotations

import random
from itertools import chain

import numpy as np
import pytest

from grover_dist.bpe.health import reverse_complement_closure
from grover_dist.bpe.reference import learn_symmetric_reference
from grover_dist.errors import UserError
from tests.bpe.hostile_cases import hostile_case, hostile_options, learn_levels, merges_of


def check_random(seeds: range) -> None:
    for seed in seeds:
        rng = random.Random(seed)
        contigs, cuts = hostile_case(rng)
        merges, levels = learn_symmetric_reference(contigs, 40)
        if not merges:
            continue
        options = hostile_options(rng)
        vocabulary, found = learn_levels(contigs, cuts, len(merges), strand="symmetric", **options)
        assert merges_of(vocabulary) == merges, (contigs, cuts, options)
        assert found.tolist() == list(chain.from_iterable(levels)), (contigs, cuts, options)


def test_hostile_cases():
    check_random(range(100))


@pytest.mark.slow
def test_many_hostile_cases():
    check_random(range(1_000, 6_000))


def test_a_pair_and_its_reverse_complement_are_merged_one_after_the_other():
    # AAAA has 3 times (A, A); (T, T) never occurs and is merged all the same. TA occurs twice and is its own reverse complement.
    vocabulary, _ = learn_levels([[0, 0, 0, 0], [3, 0, 1, 3, 0]], [], 3, strand="symmetric")
    assert merges_of(vocabulary) == [(0, 0, 3), (3, 3, 0), (3, 0, 2)]


def test_the_dictionary_is_closed_and_the_forward_one_is_not():
    contig = np.random.default_rng(2).choice(4, 30_000, p=[0.35, 0.15, 0.2, 0.3])
    symmetric, _ = learn_levels([contig], [10_000], 200, strand="symmetric")
    forward, _ = learn_levels([contig], [10_000], 200)
    # The last cycle may part a class.
    assert max(reverse_complement_closure(symmetric.at(c)) for c in (199, 200)) == 1.0
    assert reverse_complement_closure(forward) < 0.5


def test_too_many_cycles_are_refused():
    with pytest.raises(UserError, match="larger than the genome supports"):
        learn_levels([[0, 1, 2, 3]], [], 9, strand="symmetric")
