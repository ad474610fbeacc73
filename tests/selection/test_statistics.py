"""Calibration and oracles of the block bootstrap and of the comparison of many candidates."""

from __future__ import annotations

import numpy as np
import pytest

from grover_dist.errors import UserError
from grover_dist.selection import statistics


def simulated_sums(generator, *, candidates, seeds=1, ks=1, blocks=30, positions=200, rates=None, seed_spread=0.0):
    """Correct predictions per block. Blocks differ in difficulty and share it among the candidates, as genome blocks do."""
    rates = np.full(candidates, 0.2) if rates is None else np.asarray(rates)
    difficulty = generator.normal(0.0, 0.05, size=blocks)
    own = generator.normal(0.0, 0.02, size=(candidates, 1, ks, blocks))
    heads = generator.normal(0.0, seed_spread, size=(candidates, seeds, ks, 1))
    probability = np.clip(rates[:, None, None, None] + difficulty + own + heads, 0.01, 0.99)
    return generator.binomial(positions, probability).astype(float), np.full(blocks, float(positions))


def test_block_sums_equal_a_loop():
    generator = np.random.default_rng(0)
    values, blocks = generator.random((2, 3, 50)), generator.choice([7, 3, 90], size=50)
    sums, sizes = statistics.block_sums(values, blocks)
    for column, block in enumerate((3, 7, 90)):
        assert sizes[column] == (blocks == block).sum()
        np.testing.assert_allclose(sums[..., column], values[..., blocks == block].sum(axis=-1))


def test_a_replicate_is_the_mean_over_the_drawn_blocks_spread_for_few_blocks():
    values, blocks = np.array([1.0, 0.0, 1.0, 1.0, 0.0, 0.0]), np.array([0, 0, 1, 1, 1, 2])
    sums, sizes = statistics.block_sums(values, blocks)
    weights = np.array([[2.0, 0.0, 1.0], [1.0, 1.0, 1.0]])
    drawn = np.concatenate([values[blocks == 0], values[blocks == 0], values[blocks == 2]])
    np.testing.assert_allclose(statistics.bootstrap_means(sums, sizes, weights), [0.5 + (drawn.mean() - 0.5) * np.sqrt(3 / 2), 0.5])


def test_weights_are_a_function_of_the_seed():
    first, again, other = (statistics.resampling_weights(9, 50, seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert (first.sum(axis=1) == 9).all()


@pytest.mark.parametrize("blocks", [6, 40])
def test_intervals_cover_the_truth(blocks):
    """95 % intervals hold the true rate in about 95 % of simulated genomes, also with six blocks."""
    generator = np.random.default_rng(5)
    held = 0
    for trial in range(400):
        sums, sizes = simulated_sums(generator, candidates=1, blocks=blocks)
        found = statistics.compare(["a"], sums, sizes, samples=400, confidence=0.95, seed=trial)
        held += found.low[0] <= 0.2 <= found.high[0]
    assert 0.90 <= held / 400 <= 0.985


@pytest.mark.parametrize(("criterion", "seeds", "spread"), [("mean_accuracy", 1, 0.0), ("mean_accuracy", 3, 0.02), ("mean_rank", 1, 0.0)])
def test_identical_candidates_are_rarely_called_different(criterion, seeds, spread):
    """Family-wise: any of the 15 pairs of six identical candidates separates in at most about 5 % of the simulations."""
    generator = np.random.default_rng(11)
    trials, wrong = 300, 0
    for trial in range(trials):
        sums, sizes = simulated_sums(generator, candidates=6, seeds=seeds, ks=3, seed_spread=spread)
        found = statistics.compare(range(6), sums, sizes, criterion=criterion, samples=400, confidence=0.95, seed=trial)
        wrong += any(found.separable(i, j) for i in range(6) for j in range(6))
    print(criterion, seeds, wrong / trials)
    assert wrong / trials <= 0.08
    if criterion == "mean_accuracy":
        assert wrong / trials >= 0.015  # a test that never fires has no power


def test_uncorrected_pairs_would_fire_too_often():
    """The correction is needed: single 95 % intervals over all pairs are wrong in far more than 5 % of the simulations."""
    generator = np.random.default_rng(12)
    wrong = 0
    for trial in range(150):
        sums, sizes = simulated_sums(generator, candidates=6)
        weights = statistics.resampling_weights(len(sizes), 300, trial)
        replicates = statistics.bootstrap_means(sums[:, 0, 0], sizes, weights)
        low, _ = statistics.interval(replicates[:, None] - replicates[None, :], 0.95, len(sizes) - 1)
        wrong += bool((low > 0).any())
    assert wrong / 150 > 0.15


def test_a_better_candidate_is_found_and_the_others_are_not_tied_with_it():
    sums, sizes = simulated_sums(np.random.default_rng(3), candidates=4, ks=2, rates=[0.2, 0.2, 0.3, 0.2])
    for criterion in ("mean_accuracy", "mean_rank"):
        found = statistics.compare([100, 200, 300, 400], sums, sizes, criterion=criterion, samples=500, confidence=0.95, seed=1)
        assert found.names[found.order[0]] == 300
        assert found.tied_with(2) == (2,)
        assert found.difference_low[2, 0] == pytest.approx(-found.difference_high[0, 2])


def test_equal_candidates_have_a_zero_difference_without_width():
    sums, sizes = simulated_sums(np.random.default_rng(4), candidates=1)
    found = statistics.compare([1, 2], np.concatenate([sums, sums]), sizes, samples=200, confidence=0.95, seed=1)
    assert found.difference_low[0, 1] == found.difference_high[0, 1] == 0.0
    assert found.order == (0, 1) and found.tied_with(0) == (0, 1)


def test_spread_between_seeds_widens_the_interval():
    generator = np.random.default_rng(6)
    calm, sizes = simulated_sums(generator, candidates=2, seeds=3)
    wild = calm * np.array([0.5, 1.0, 1.5])[None, :, None, None]
    widths = []
    for sums in (calm, wild):
        found = statistics.compare([1, 2], sums, sizes, samples=500, confidence=0.95, seed=1)
        widths.append(found.high[0] - found.low[0])
    assert widths[1] > 2 * widths[0]


def test_one_block_is_not_enough():
    with pytest.raises(UserError, match="two genome blocks"):
        statistics.compare([1], np.ones((1, 1, 1, 1)), np.ones(1), samples=100, confidence=0.95, seed=1)


def test_paired_difference_is_narrower_than_two_single_intervals():
    generator = np.random.default_rng(8)
    blocks = np.repeat(np.arange(40), 50)
    shared = generator.random(2000) < np.repeat(generator.random(40), 50)
    better = shared | (generator.random(2000) < 0.1)
    found = statistics.paired_difference(better[None, None], shared[None, None], blocks, samples=500, confidence=0.95, seed=1)
    sums, sizes = statistics.block_sums(better, blocks)
    low, high = statistics.interval(statistics.bootstrap_means(sums, sizes, statistics.resampling_weights(40, 500, 1)), 0.95, 39)
    assert 0 < found["low"] < found["difference"] < found["high"]
    assert found["high"] - found["low"] < 0.5 * (high - low)
