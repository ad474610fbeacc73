"""Rank correlations, the same given the other properties, and the control of false discoveries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Correlations:
    """rho, partial, p: float64 [columns, properties]; n: rows that they rest on. NaN where a column or property is constant."""

    properties: tuple[str, ...]
    rho: np.ndarray
    partial: np.ndarray
    p: np.ndarray
    n: int


def spearman(values: np.ndarray, properties: Mapping[str, np.ndarray]) -> Correlations:
    """Spearman's correlation of each column of `values` [n, columns] with each property [n], and the partial one.

    The partial correlation asks what a property adds to the others: it is the correlation of the ranks that are left over when the
    ranks of the other properties are taken out by least squares. p is two-sided, from Student's t.
    """
    n = len(values)
    ranks = np.column_stack([stats.rankdata(column) for column in values.T])
    known = np.column_stack([stats.rankdata(value) for value in properties.values()])
    rho = _pearson(ranks, known)
    partial = np.empty_like(rho)
    for index in range(known.shape[1]):
        others = np.column_stack([np.ones(n), np.delete(known, index, axis=1)])
        partial[:, index] = _pearson(_residual(ranks, others), _residual(known[:, [index]], others))[:, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        t = rho * np.sqrt(max(n - 2, 0) / (1.0 - rho**2))
    return Correlations(tuple(properties), rho, partial, 2 * stats.t.sf(np.abs(t), max(n - 2, 1)), n)


def differ(rho: float, null: float, n: int) -> bool:
    """True where |rho| is above |null| by more than chance (5 %), by Fisher's z with the variance 1.06 / (n - 3) of Spearman's rho.

    Both are taken as independent, which is on the safe side where they rest on the same rows.
    """
    if n < 10 or not np.isfinite([rho, null]).all():
        return False
    gap = np.arctanh(min(abs(rho), 0.999_999)) - np.arctanh(min(abs(null), 0.999_999))
    return bool(gap / np.sqrt(2 * 1.06 / (n - 3)) > stats.norm.ppf(0.975))


def false_discovery_rate(p: np.ndarray) -> np.ndarray:
    """q values (Benjamini and Hochberg 1995), in the order of `p`; NaN stays NaN and does not count."""
    p = np.asarray(p, dtype=np.float64)
    q = np.full(p.shape, np.nan)
    tested = np.isfinite(p)
    if tested.any():
        q[tested] = stats.false_discovery_control(p[tested])
    return q


def _pearson(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    norms = np.outer(np.linalg.norm(a, axis=0), np.linalg.norm(b, axis=0))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(norms > 1e-9 * len(a), a.T @ b / norms, np.nan)


def _residual(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    return values - others @ np.linalg.lstsq(others, values, rcond=None)[0]
