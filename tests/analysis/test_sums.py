"""Sums of parts are the sums of the whole, here and on Ray, and they are what the analysis reports."""

from __future__ import annotations

import numpy as np
import pytest

from grover_dist.analysis import embeddings
from grover_dist.analysis.sums import ModelSums, model_sums
from grover_dist.corpus.corpus import Corpus
from grover_dist.errors import UserError


def assert_same(a: ModelSums, b: ModelSums) -> None:
    assert a.windows == b.windows
    for part in ("contextual", "context", "masked"):
        one, other = getattr(a, part), getattr(b, part)
        for name in one.__dataclass_fields__:
            np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def whole(small_run) -> ModelSums:
    return model_sums(*arguments(small_run))


def arguments(small_run):
    model = next(a for a in small_run.pretrain if a.counts["cycles"] == small_run.chosen)
    return small_run.config, Corpus.open(small_run.learn), model, small_run.chosen


@pytest.mark.parametrize("parts", [2, 7])
def test_parts_add_up(small_run, whole, parts: int) -> None:
    assert_same(model_sums(*arguments(small_run), parts=parts), whole)


def test_the_analysis_reports_these_sums(small_run, whole) -> None:
    tokens = embeddings.read_table(small_run.analysis, "tokens.arrow").to_pydict()
    assert tokens["sampled"] == whole.contextual.count[5:].tolist() and tokens["masked_tests"] == whole.masked.tests[5:].tolist()
    context = embeddings.read_table(small_run.analysis, "context.arrow").to_pylist()
    profile = whole.context.profile()
    for row in context[:: len(context) // 20]:
        if row["model"] == "trained":
            assert row["adjusted"] == pytest.approx(profile.adjusted[row["layer"], tokens["token"].index(row["token"]) + 5], abs=1e-5)


@pytest.mark.ray
def test_two_tasks_on_ray_give_the_same(small_run, whole) -> None:
    from grover_dist.cluster.passes import add_on_ray
    from grover_dist.cluster.session import ray_session
    from grover_dist.config import ResourceSettings

    with ray_session(ResourceSettings()):
        assert_same(model_sums(*arguments(small_run), parts=2, map_parts=add_on_ray), whole)
        with pytest.raises(UserError, match="was not learned"):
            config, corpus, model, _ = arguments(small_run)
            model_sums(config, corpus, model, 50_000, parts=2, map_parts=add_on_ray)
