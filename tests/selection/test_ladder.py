"""The ladder's decisions, as properties of a pure function."""

from __future__ import annotations

import numpy as np
import pytest

from grover_dist.config import LadderSettings
from grover_dist.errors import UserError
from grover_dist.selection import ladder, statistics

GRID = tuple(range(100, 1300, 100))
HALVING = LadderSettings(kind="halving", controls=(), first_fraction=0.1, growth=3.0, keep_at_most=0.5)


def comparison(scores, *, width):
    """A comparison with the same simultaneous half width for every pair."""
    score = np.asarray(scores, dtype=float)
    difference = score[:, None] - score[None, :]
    return statistics.Comparison(GRID[: len(score)], score, score, score, difference, difference - width, difference + width, 2.0, 0.95, 30)


def test_full_has_one_rung_and_drops_nobody():
    rungs = ladder.plan_rungs(LadderSettings(), 1_000)
    assert rungs == (ladder.Rung(0, 1_000, True),)
    verdict = ladder.go_on(comparison(range(12), width=0.0), rungs[0], LadderSettings(), GRID)
    assert verdict.kept == GRID and verdict.dropped == ()


def test_halving_budgets_grow_to_the_whole_budget():
    rungs = ladder.plan_rungs(HALVING, 1_000_000)
    assert [rung.budget_bases for rung in rungs] == [100_000, 300_000, 1_000_000]
    assert [rung.last for rung in rungs] == [False, False, True]
    for first_fraction in (0.01, 0.2, 0.55, 0.9, 1.0):
        for growth in (1.5, 2.0, 4.0):
            settings = LadderSettings(kind="halving", first_fraction=first_fraction, growth=growth)
            budgets = [rung.budget_bases for rung in ladder.plan_rungs(settings, 1_000_000)]
            assert budgets == sorted(set(budgets)) and budgets[-1] == 1_000_000


def test_a_first_rung_below_one_step_is_a_user_error():
    with pytest.raises(UserError, match="shorter than one optimizer step"):
        ladder.plan_rungs(HALVING, 1_000, bases_per_step=500)


def test_clear_scores_keep_the_best_third_and_both_ends():
    rung = ladder.plan_rungs(HALVING, 1_000)[0]
    verdict = ladder.go_on(comparison([0, 1, 2, 3, 4, 5, 11, 10, 9, 8, 7, 6], width=0.1), rung, HALVING, GRID)
    assert verdict.kept == (100, 700, 800, 900, 1000, 1200)
    assert set(verdict.dropped) == {200, 300, 400, 500, 600, 1100}
    assert "control" in verdict.reasons[100] and verdict.reasons[200] == "worse than the best third"


def test_candidates_that_cannot_be_told_apart_go_on_up_to_the_cap():
    rung = ladder.plan_rungs(HALVING, 1_000)[0]
    scores = [0, 1, 2, 3, 4, 5, 11, 10, 9, 8, 7, 6]
    two_more = ladder.go_on(comparison(scores, width=2.5), rung, HALVING, GRID)
    assert set(two_more.kept) == {100, 700, 800, 900, 1000, 1100, 1200}
    capped = ladder.go_on(comparison(scores, width=100.0), rung, HALVING, GRID)
    assert set(capped.kept) == {100, 700, 800, 900, 1000, 1100, 1200}
    assert "no room" in capped.reasons[600]
    open_house = ladder.go_on(comparison(scores, width=100.0), rung, HALVING.model_copy(update={"keep_at_most": 1.0}), GRID)
    assert open_house.kept == GRID


def test_a_named_control_stays_with_the_worst_score():
    settings = HALVING.model_copy(update={"controls": (600, 601)})
    assert ladder.controls(settings, GRID) == (100, 600, 1200)
    rung = ladder.plan_rungs(settings, 1_000)[0]
    assert 600 in ladder.go_on(comparison([5, 5, 5, 5, 5, 0, 9, 9, 9, 9, 9, 9], width=0.1), rung, settings, GRID).kept


def test_every_candidate_is_kept_or_dropped_once_and_has_a_reason():
    generator = np.random.default_rng(0)
    rung = ladder.plan_rungs(HALVING, 1_000)[0]
    for _ in range(50):
        n = int(generator.integers(1, 13))
        verdict = ladder.go_on(comparison(generator.random(n), width=generator.random()), rung, HALVING, GRID[:n])
        assert sorted(verdict.kept + verdict.dropped) == list(GRID[:n]) == sorted(verdict.reasons)
        assert len(verdict.kept) >= 1


def test_a_climb_trains_the_living_on_what_they_had_and_remembers_who_got_where():
    quality = {name: name if name != 1200 else 0 for name in GRID}  # the best is 1100, the upper end is the worst
    trained = []

    def train(rung, alive, before):
        assert before == ({} if rung.index == 0 else {name: (rung.index - 1, name) for name in alive})
        trained.append(tuple(alive))
        return {name: (rung.index, name) for name in alive}

    def compare(found):
        names = tuple(found)
        score = np.array([float(quality[name]) for name in names])
        difference = score[:, None] - score[None, :]
        return statistics.Comparison(names, score, score, score, difference, difference - 1, difference + 1, 2.0, 0.95, 30)

    said = []
    state = ladder.climb(HALVING, 1_000, GRID, train=train, compare=compare, say=said.append)
    assert trained[0] == GRID and 1100 in trained[-1] and {100, 1200} <= set(trained[-1])
    assert [len(alive) for alive in trained] == sorted((len(alive) for alive in trained), reverse=True) and len(trained[-1]) < len(GRID)
    assert all(state.found[name] == (state.reached[name], name) for name in GRID)
    assert {name for name, rung in state.reached.items() if rung == 2} == set(trained[-1])
    assert len(state.verdicts) == 3 and "drops" in said[0]


def test_a_climb_whose_first_rung_is_below_a_step_trains_nothing():
    with pytest.raises(UserError, match="shorter than one optimizer step"):
        ladder.climb(HALVING, 1_000, GRID, train=None, compare=None, bases_per_step=101)


def test_cost_counts_the_last_rung_that_each_candidate_reached():
    rungs = ladder.plan_rungs(HALVING, 1_000)
    reached = {100: 2, 200: 0, 300: 1, 400: 0}
    assert ladder.cost(rungs, reached) == {"spent": 1_500.0, "exhaustive": 4_000.0, "share": 0.375}
    again = ladder.cost(rungs, reached, decay_fraction=0.2)
    assert again["spent"] == 1_500.0 + 0.2 * (100 + 300) + 0.2 * 100 and again["exhaustive"] == 4_000.0
    doubled = ladder.cost(rungs, reached, cost_per_base={100: 2.0})
    assert doubled["spent"] == 2_500.0 and doubled["exhaustive"] == 5_000.0


@pytest.mark.parametrize("n", [12, 20])
@pytest.mark.parametrize(("settings", "most"), [(HALVING, 0.62), (LadderSettings(kind="halving", controls=()), 0.40)])
def test_cost_of_halving_where_nothing_separates(settings, most, n):
    """The dearest case: all that may go on does, and the controls on top. The decays that are made again are counted."""
    grid = tuple(range(100, 100 * n + 100, 100))

    def compare(found):
        names, score, pairs = tuple(found), np.zeros(len(found)), np.zeros((len(found), len(found)))
        return statistics.Comparison(names, score, score, score, pairs, pairs - 1, pairs + 1, 2.0, 0.95, 30)

    state = ladder.climb(settings, 1_000_000, grid, train=lambda rung, alive, before: dict.fromkeys(alive), compare=compare, say=len)
    assert ladder.cost(ladder.plan_rungs(settings, 1_000_000), state.reached, decay_fraction=0.2)["share"] <= most
