from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grover_dist.corpus.order import sample_at


@given(n=st.integers(1, 3_000), seed=st.integers(0, 2**56 - 1), epoch=st.integers(0, 2**40))
def test_an_epoch_is_a_permutation(n, seed, epoch):
    order = sample_at(np.arange(n), n=n, seed=seed, epoch=epoch)
    assert sorted(order.tolist()) == list(range(n))


@given(n=st.integers(1, 10**12), data=st.data())
def test_any_piece_is_the_same_as_in_the_whole(n, data):
    indices = np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=20)))
    together = sample_at(indices, n=n, seed=1, epoch=2)
    assert together.tolist() == [int(sample_at(int(index), n=n, seed=1, epoch=2)) for index in indices]
    assert together.min() >= 0
    assert together.max() < n
    assert len(np.unique(together)) == len(np.unique(indices))


def test_seeds_and_epochs_give_unrelated_orders():
    n = 20_000
    orders = [sample_at(np.arange(n), n=n, seed=seed, epoch=epoch) for seed in (1, 2) for epoch in (0, 1)]
    for i, one in enumerate(orders):
        assert abs(np.corrcoef(np.arange(n), one)[0, 1]) < 0.04  # five standard errors
        for other in orders[:i]:
            assert abs(np.corrcoef(one, other)[0, 1]) < 0.04
            assert (one == other).sum() < 15


def test_every_place_is_reached_evenly():
    """Where the first sample of an epoch comes from, over many epochs."""
    first = np.array([sample_at(0, n=10, seed=7, epoch=epoch) for epoch in range(4_000)])
    counts = np.bincount(first, minlength=10)
    assert ((counts - 400) ** 2 / 400).sum() < 33.7  # chi-squared, 9 degrees of freedom, p = 1e-4


def test_positions_outside():
    with pytest.raises(IndexError):
        sample_at(np.array([5]), n=5, seed=1, epoch=0)
    with pytest.raises(ValueError, match="no sample"):
        sample_at(np.array([], np.int64), n=0, seed=1, epoch=0)
