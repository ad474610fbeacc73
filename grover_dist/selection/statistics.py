"""Bootstrap over genome blocks, and comparison of many candidates on the same positions.

Neighbouring positions are alike, so the unit that is resampled is the genome block, never the position. All candidates see
the same resampled blocks, which makes every difference a paired one. Sums per block are taken once; a bootstrap replicate is
then one row of a matrix product.

Percentile intervals are too narrow when blocks are few. They are widened as by Hesterberg (2015, "What teachers should know
about the bootstrap"): replicates are spread by sqrt(n / (n - 1)), and the tail is moved from the normal to Student's t. The
critical value of the simultaneous intervals is moved in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from grover_dist.errors import UserError


def block_sums(values: np.ndarray, blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums of `values` [..., positions] over each block, and the number of positions of each block.

    `blocks` [positions] holds any block ids. Returns ([..., distinct blocks] float64, [distinct blocks] float64), blocks in
    ascending order of id.
    """
    _, inverse, sizes = np.unique(blocks, return_inverse=True, return_counts=True)
    order = np.argsort(inverse, kind="stable")
    starts = np.concatenate(([0], np.cumsum(sizes)[:-1]))
    sums = np.add.reduceat(np.asarray(values)[..., order], starts, axis=-1, dtype=np.float64)
    return sums, sizes.astype(np.float64)


def resampling_weights(n_blocks: int, samples: int, seed: int) -> np.ndarray:
    """How often each block is drawn in each replicate: [samples, n_blocks] float64, rows sum to `n_blocks`."""
    generator = np.random.Generator(np.random.Philox(key=[seed, 0xB007]))
    return generator.multinomial(n_blocks, np.full(n_blocks, 1.0 / n_blocks), size=samples).astype(np.float64)


def bootstrap_means(sums: np.ndarray, sizes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean over positions in every replicate. sums [..., blocks], sizes [blocks], weights [samples, blocks] -> [..., samples].

    Spread about the observed mean by sqrt(n / (n - 1)), since a bootstrap over n blocks takes their mean for the true one.
    """
    n_blocks = len(sizes)
    mean = (np.asarray(sums).sum(axis=-1) / sizes.sum())[..., None]
    drawn = (sums @ weights.T) / (weights @ sizes)
    return mean + (drawn - mean) * np.sqrt(n_blocks / max(n_blocks - 1, 1))


def interval(replicates: np.ndarray, confidence: float, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """Percentile interval over the last axis, its tails those of Student's t. `degrees` of freedom: blocks - 1 as a rule.

    Returns (low, high) of the leading shape.
    """
    tail = float(stats.norm.sf(stats.t.isf((1.0 - confidence) / 2.0, degrees)))
    low, high = np.quantile(replicates, [tail, 1.0 - tail], axis=-1)
    return low, high


@dataclass(frozen=True)
class Comparison:
    """Candidates on one criterion; a higher score is better. `low` and `high` are NaN where a criterion has no replicates.

    difference[i, j] = score[i] - score[j], its simultaneous interval [difference_low, difference_high] over all pairs at once.
    """

    names: tuple[Any, ...]
    score: np.ndarray
    low: np.ndarray
    high: np.ndarray
    difference: np.ndarray
    difference_low: np.ndarray
    difference_high: np.ndarray
    critical: float
    confidence: float
    n_blocks: int

    @property
    def order(self) -> tuple[int, ...]:
        """Indices from the best to the worst; equal scores in the order of names."""
        return tuple(sorted(range(len(self.names)), key=lambda i: (-self.score[i], self.names[i])))

    def separable(self, better: int, worse: int) -> bool:
        """Whether `better` beats `worse` beyond the simultaneous interval."""
        if np.isnan(self.difference_low[better, worse]):
            return bool(self.difference[better, worse] > 0)
        return bool(self.difference_low[better, worse] > 0)

    def tied_with(self, index: int) -> tuple[int, ...]:
        """Indices that `index` does not beat beyond the interval, itself among them, from the best to the worst."""
        return tuple(i for i in self.order if not self.separable(index, i))


def simultaneous_differences(
    score: np.ndarray, replicates: np.ndarray, confidence: float, degrees: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """All paired differences with intervals that hold together (max-T over all pairs, Westfall and Young).

    score [candidates], replicates [candidates, samples]. Returns difference, low, high [candidates, candidates] and the
    critical value. Which candidate is the best is read from the same data, so the correction is over all pairs and not only
    over the pairs with the best.
    """
    n = len(score)
    difference = score[:, None] - score[None, :]
    if n < 2:
        return difference, difference.copy(), difference.copy(), 0.0
    first, second = np.triu_indices(n, 1)
    deviation = (replicates[first] - replicates[second]) - difference[first, second][:, None]
    spread = np.sqrt(np.mean(deviation**2, axis=1))
    standardized = np.abs(deviation) / np.where(spread > 0, spread, 1.0)[:, None]
    critical = float(np.quantile(standardized.max(axis=0), confidence))
    critical = float(stats.t.isf(stats.norm.sf(critical), degrees))
    half = np.zeros((n, n))
    half[first, second] = half[second, first] = np.where(spread > 0, critical * np.where(spread > 0, spread, 1.0), 0.0)
    return difference, difference - half, difference + half, critical


def compare(
    names: Sequence[Any],
    sums: np.ndarray,
    sizes: np.ndarray,
    *,
    criterion: str = "mean_accuracy",
    samples: int,
    confidence: float,
    seed: int,
) -> Comparison:
    """Compare candidates on the same positions.

    sums [candidates, head seeds, ks, blocks]: correct predictions per block; sizes [blocks]: positions per block. Criterion
    `mean_accuracy` = mean over k of accuracy; `mean_rank` = minus the mean over k of the rank among the candidates.
    With two or more head seeds the spread between seeds of one candidate is part of the intervals; with one it cannot be.
    """
    sums = np.asarray(sums, dtype=np.float64)
    n_blocks = len(sizes)
    if n_blocks < 2:
        raise UserError(
            "an interval needs at least two genome blocks with evaluation positions",
            got=n_blocks,
            hint="make split.block_bp smaller or selection.evaluate_positions larger",
        )
    weights = resampling_weights(n_blocks, samples, seed)
    by_seed = sums.sum(axis=-1) / sizes.sum()  # [candidates, seeds, ks]
    accuracy = by_seed.mean(axis=1)
    over_blocks = bootstrap_means(sums.mean(axis=1), sizes, weights)  # [candidates, ks, samples]
    over_seeds, seed_degrees = _seed_noise(by_seed, samples, seed)
    degrees = _joint_degrees(over_blocks.mean(axis=1), n_blocks - 1, over_seeds.mean(axis=1), seed_degrees)
    replicates = over_blocks + over_seeds
    if criterion == "mean_rank":
        score = -_ranks(accuracy[..., None])[..., 0].mean(axis=1)
        replicates = -_ranks(replicates).mean(axis=1)
    else:
        score, replicates = accuracy.mean(axis=1), replicates.mean(axis=1)
    low, high = interval(replicates, confidence, degrees)
    difference, difference_low, difference_high, critical = simultaneous_differences(score, replicates, confidence, degrees)
    return Comparison(tuple(names), score, low, high, difference, difference_low, difference_high, critical, confidence, n_blocks)


def compare_plain(names: Sequence[Any], score: Sequence[float], confidence: float) -> Comparison:
    """Candidates on a criterion that is one number each, without replicates: every difference separates."""
    score = np.asarray(score, dtype=np.float64)
    unknown, pairs = np.full(len(score), np.nan), np.full((len(score), len(score)), np.nan)
    return Comparison(tuple(names), score, unknown, unknown, score[:, None] - score[None, :], pairs, pairs, np.nan, confidence, 0)


def paired_difference(
    first: np.ndarray, second: np.ndarray, blocks: np.ndarray, *, samples: int, confidence: float, seed: int
) -> dict[str, float]:
    """Mean of `first - second` with its interval over blocks and head seeds. Both broadcast to [seeds, ks, positions]."""
    values = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    sums, sizes = block_sums(values, blocks)  # [seeds, ks, blocks]
    n_blocks, total = len(sizes), sizes.sum()
    over_blocks = bootstrap_means(sums.mean(axis=(0, 1)), sizes, resampling_weights(n_blocks, samples, seed))
    over_seeds, seed_degrees = _seed_noise(sums.sum(axis=-1)[None] / total, samples, seed)
    over_seeds = over_seeds[0].mean(axis=0)
    degrees = _joint_degrees(over_blocks[None], max(n_blocks - 1, 1), over_seeds[None], seed_degrees)
    low, high = interval(over_blocks + over_seeds, confidence, degrees)
    return {"difference": float(values.mean()), "low": float(low), "high": float(high)}


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks over the first axis, 1 = highest value, equal values share the mean rank."""
    return stats.rankdata(-values, axis=0)


def _seed_noise(by_seed: np.ndarray, samples: int, seed: int) -> tuple[np.ndarray, float]:
    """What other head seeds would have changed: normal noise with the spread between seeds, pooled over candidates.

    by_seed [candidates, seeds, ks] -> [candidates, ks, samples], and the degrees of freedom of its mean over ks. Seeds share
    their positions, so their spread is that of training alone and adds to the spread of the blocks.
    """
    candidates, seeds, ks = by_seed.shape
    if seeds < 2:
        return np.zeros((candidates, ks, 1)), np.inf
    freedom = candidates * (seeds - 1)
    variance = ((by_seed - by_seed.mean(axis=1, keepdims=True)) ** 2).sum(axis=(0, 1)) / freedom
    generator = np.random.Generator(np.random.Philox(key=[seed, 0x5EED]))
    noise = generator.standard_normal((candidates, ks, samples)) * np.sqrt(variance / seeds)[None, :, None]
    parts = variance.sum() ** 2 / max((variance**2).sum(), np.finfo(float).tiny)  # how many ks carry the spread
    return noise, freedom * max(parts, 1.0)


def _joint_degrees(first: np.ndarray, first_degrees: float, second: np.ndarray, second_degrees: float) -> float:
    """Degrees of freedom of a sum of two estimated variances (Welch and Satterthwaite), the variances taken from replicates.

    Positions that all candidates find hard move all scores together and cancel in every difference, so what counts is the
    spread about the mean of the candidates, where there are several.
    """
    variances = []
    for part in (first, second):
        about = part - part.mean(axis=0, keepdims=True) if len(part) > 1 else part
        variances.append(float(about.var(axis=-1).mean()))
    total = sum(variances)
    if total == 0.0:
        return float(first_degrees)
    return total**2 / (variances[0] ** 2 / first_degrees + variances[1] ** 2 / second_degrees)
