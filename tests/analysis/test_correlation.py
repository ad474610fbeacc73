"""Rank correlations against SciPy and against constructions whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from grover_dist.analysis.correlation import differ, false_discovery_rate, spearman


def test_spearman_equals_scipy() -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=(40, 3))
    values[:, 1] = np.round(values[:, 1])  # ties
    properties = {"a": random.integers(0, 5, 40).astype(float), "b": values[:, 0] ** 3 + 0.1 * random.normal(size=40)}
    found = spearman(values, properties)
    for column in range(3):
        for index, value in enumerate(properties.values()):
            expected = stats.spearmanr(values[:, column], value)
            assert found.rho[column, index] == pytest.approx(expected.statistic)
            assert found.p[column, index] == pytest.approx(expected.pvalue, rel=1e-6)


def test_partial_correlation_sees_through_a_common_cause() -> None:
    random = np.random.default_rng(1)
    cause = random.normal(size=400)
    effect = cause + 0.3 * random.normal(size=400)
    other = cause + 0.3 * random.normal(size=400)
    found = spearman(effect[:, None], {"other": other, "cause": cause})
    assert found.rho[0, 0] > 0.8
    assert abs(found.partial[0, 0]) < 0.2 < found.partial[0, 1]


def test_a_constant_has_no_correlation() -> None:
    found = spearman(np.ones((20, 1)), {"x": np.arange(20.0)})
    assert np.isnan(found.rho).all()
    assert not differ(float("nan"), 0.1, 20)


def test_differ_wants_more_than_chance() -> None:
    assert differ(-0.9, 0.5, 100)
    assert not differ(0.55, 0.5, 100)
    assert not differ(0.5, -0.9, 100)


def test_false_discovery_rate() -> None:
    q = false_discovery_rate(np.array([0.01, 0.04, np.nan, 0.03]))
    assert np.isnan(q[2])
    assert q[[0, 3, 1]] == pytest.approx([0.03, 0.04, 0.04])  # by hand: p * 3 / rank, made monotone from the end
