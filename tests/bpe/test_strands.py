"""The comparison of both strand rules, on a genome in which each word stands as often forward as reversed."""

from __future__ import annotations

import numpy as np
import pytest

from grover_dist.bpe.strands import compare_strands


@pytest.fixture(scope="module")
def figures():
    rng = np.random.default_rng(6)
    forward = rng.choice(4, 20_000, p=[0.4, 0.1, 0.2, 0.3]).astype(np.uint8)
    bases = np.concatenate([forward, 3 - forward[::-1], forward[:1]])
    return compare_strands(bases, np.array([0, 20_000, 40_000]), [2, 150], threads=2)


def test_counting_both_strands_closes_the_dictionary_and_brings_the_strands_together(figures):
    assert figures["symmetric"][2]["reverse_complement_closure"] == 1.0  # one class: AA and TT
    forward, symmetric = figures["forward"][150], figures["symmetric"][150]
    assert symmetric["reverse_complement_closure"] >= 149 / 150 > forward["reverse_complement_closure"]
    assert symmetric["boundary_agreement"] > forward["boundary_agreement"] > 0
    # The cost in compression is small: the same bases in about as many tokens.
    assert symmetric["bases_per_token"] == pytest.approx(forward["bases_per_token"], rel=0.05)
