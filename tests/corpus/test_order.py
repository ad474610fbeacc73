from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grover_dist.corpus.order import Draws, sample_at


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


def weighted(sizes, weights):
    genome = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    return genome, Draws.weighted(genome, weights)


@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=3),
    weights=st.lists(st.sampled_from([0.01, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0]), min_size=3, max_size=3),
    seed=st.integers(0, 2**56 - 1),
)
def test_weights_set_how_often_a_window_is_drawn(sizes, weights, seed):
    genome, draws = weighted(sizes, weights[: len(sizes)])
    epochs = 4
    passes, windows = draws.at(np.arange(epochs * draws.per_epoch), seed=seed)
    counts = np.bincount(windows, minlength=len(genome))
    for index, (size, weight) in enumerate(zip(sizes, weights, strict=False)):
        quota = max(1, round(weight * size))
        mine = counts[genome == index]
        assert mine.sum() == epochs * quota
        assert mine.max() - mine.min() <= 1  # passes are whole, but for the last
    keys = set(zip(passes.tolist(), windows.tolist(), strict=True))
    assert len(keys) == len(windows)  # no draw shares its masks with another


@given(sizes=st.lists(st.integers(1, 50), min_size=1, max_size=3), seed=st.integers(0, 2**40))
def test_whole_weights_are_exact_in_every_epoch(sizes, seed):
    weights = [2.0, 1.0, 3.0][: len(sizes)]
    genome, draws = weighted(sizes, weights)
    for epoch in range(3):
        _, windows = draws.at(epoch * draws.per_epoch + np.arange(draws.per_epoch), seed=seed)
        assert np.bincount(windows, minlength=len(genome)).tolist() == [int(weights[index]) for index in genome]


@given(data=st.data())
def test_draws_are_a_pure_function_of_seed_and_place(data):
    _, draws = weighted([30, 11], [0.7, 2.4])
    places = np.array(data.draw(st.lists(st.integers(0, 10**7), min_size=1, max_size=20)), np.int64)
    together = draws.at(places, seed=3)
    for index, place in enumerate(places):
        alone = draws.at(np.array([place]), seed=3)
        assert (int(alone[0][0]), int(alone[1][0])) == (int(together[0][index]), int(together[1][index]))


def test_without_weights_the_order_is_that_of_one_permutation():
    draws, n = Draws.uniform(1_000), 1_000
    passes, windows = draws.at(np.arange(2_500), seed=5)
    assert windows.tolist() == [int(sample_at(i % n, n=n, seed=5, epoch=i // n)) for i in range(2_500)]
    assert passes.tolist() == [i // n for i in range(2_500)]
    _, same = Draws.weighted(np.repeat([0, 1], 500), [1.0, 1.0]).at(np.arange(2_500), seed=5)
    assert same.tolist() == windows.tolist()


def test_halves_of_a_genome_are_mixed_along_it():
    """With weight 0.5 an epoch shows half of the windows: not the same half each time, and not one end of the genome."""
    draws = Draws.weighted(np.zeros(10_000, int), [0.5])
    _, first = draws.at(np.arange(5_000), seed=1)
    _, second = draws.at(5_000 + np.arange(5_000), seed=1)
    assert sorted([*first.tolist(), *second.tolist()]) == list(range(10_000))
    assert abs(first.mean() - 5_000) < 150


def test_the_mean_over_the_draws():
    assert Draws.weighted(np.array([0, 0, 1]), [1.0, 2.0]).mean(np.array([1.0, 3.0, 8.0])) == (2 * 2 + 2 * 8) / 4
