"""Which candidates go on, and with what budget: pure decisions over scores.

`full` gives every candidate the whole budget at once. `halving` gives all a small budget, keeps the best third, those that cannot
be told from it, and the controls, and multiplies the budget. A candidate continues from its checkpoint, so that its cost is the
budget of the last rung that it reached.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from grover_dist.config import LadderSettings
from grover_dist.errors import UserError
from grover_dist.selection.statistics import Comparison


@dataclass(frozen=True)
class Rung:
    index: int
    budget_bases: int  # in all, not on top of the rung before
    last: bool


@dataclass(frozen=True)
class Verdict:
    """Who goes on from a rung, and why. `reasons` names every candidate that entered the rung."""

    rung: int
    kept: tuple[int, ...]
    dropped: tuple[int, ...]
    reasons: Mapping[int, str]

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "reasons": {str(name): reason for name, reason in self.reasons.items()}}


def plan_rungs(settings: LadderSettings, budget_bases: int, *, bases_per_step: int = 1) -> tuple[Rung, ...]:
    """Budgets of the rungs, the last one the whole budget. Raises UserError where the first rung is less than one step."""
    budgets = [budget_bases]
    if settings.kind == "halving":
        budgets, fraction = [], settings.first_fraction
        # A rung close under the whole budget would cost an evaluation and save next to nothing.
        while fraction * math.sqrt(settings.growth) < 1.0:
            budgets.append(round(budget_bases * fraction))
            fraction *= settings.growth
        budgets.append(budget_bases)
    if budgets[0] < bases_per_step:
        raise UserError(
            "the first rung of the ladder is shorter than one optimizer step",
            where="pretrain.budget_bases and selection.ladder.first_fraction",
            got=f"{budgets[0]:,} bases",
            expected=f"at least {bases_per_step:,} bases",
            hint="raise the budget or first_fraction, or lower pretrain.batch_windows",
        )
    return tuple(Rung(index, budget, index == len(budgets) - 1) for index, budget in enumerate(budgets))


def controls(settings: LadderSettings, candidates: Sequence[int]) -> tuple[int, ...]:
    """Candidates that stay to the end whatever their score: both ends of the grid and the named ones."""
    kept = {min(candidates), max(candidates), *(cycles for cycles in settings.controls if cycles in candidates)}
    return tuple(sorted(kept))


def go_on(comparison: Comparison, rung: Rung, settings: LadderSettings, all_candidates: Sequence[int]) -> Verdict:
    """Decide who goes on after a rung. `comparison.names` are the cycles that were trained on this rung."""
    order = [comparison.names[i] for i in comparison.order]
    if settings.kind == "full" or rung.last:
        return Verdict(rung.index, tuple(sorted(order)), (), {name: "trained to the whole budget" for name in order})
    index_of = {name: i for i, name in enumerate(comparison.names)}
    third = order[: math.ceil(len(order) / 3)]
    weakest = index_of[third[-1]]
    room = max(len(third), math.ceil(len(order) * settings.keep_at_most))
    kept_controls = controls(settings, all_candidates)
    reasons: dict[int, str] = {}
    kept: list[int] = []
    for place, name in enumerate(order):
        if place < len(third):
            reasons[name] = "in the best third"
        elif comparison.separable(weakest, index_of[name]):
            reasons[name] = "worse than the best third"
        elif place < room:
            reasons[name] = "not separable from the best third"
        else:
            reasons[name] = f"not separable from the best third, but no room: at most {room} of {len(order)} go on"
        if place < room and not reasons[name].startswith("worse"):
            kept.append(name)
        elif name in kept_controls:
            kept.append(name)
            reasons[name] = f"kept as a control ({reasons[name]})"
    return Verdict(rung.index, tuple(sorted(kept)), tuple(sorted(set(order) - set(kept))), reasons)


@dataclass
class Climb:
    """Where every candidate got to. Artefacts are whatever the trainer returns for a candidate on the last rung that it reached."""

    found: dict[int, Any]
    reached: dict[int, int]
    verdicts: list[Verdict]


def climb(
    settings: LadderSettings,
    budget_bases: int,
    candidates: Sequence[int],
    *,
    train: Callable[[Rung, Sequence[int], Mapping[int, Any]], Mapping[int, Any]],
    compare: Callable[[Mapping[int, Any]], Comparison],
    bases_per_step: int = 1,
    say: Callable[[str], None] = print,
) -> Climb:
    """Take the candidates up the rungs. `train(rung, alive, before)` trains and scores those that are alive, `before` holding what it
    returned for them on the rung below; `compare` scores its results against each other. Raises UserError, before anything is trained,
    where the first rung is shorter than a step of `bases_per_step`.
    """
    rungs = plan_rungs(settings, budget_bases, bases_per_step=bases_per_step)
    state, alive = Climb({}, {}, []), sorted(candidates)
    for rung in rungs:
        results = train(rung, alive, {name: state.found[name] for name in alive if name in state.found})
        for name in alive:
            state.found[name], state.reached[name] = results[name], rung.index
        verdict = go_on(compare({name: results[name] for name in alive}), rung, settings, candidates)
        state.verdicts.append(verdict)
        if verdict.dropped:
            say(f"ladder: rung {rung.index + 1} of {len(rungs)} drops {', '.join(f'{name} cycles' for name in verdict.dropped)}")
        alive = list(verdict.kept)
    return state


def cost(
    rungs: Sequence[Rung], reached: Mapping[int, int], *, cost_per_base: Mapping[int, float] | None = None, decay_fraction: float = 0.0
) -> dict[str, float]:
    """Spent and exhaustive cost. `reached`: candidate -> index of the last rung it was trained on.

    In bases, or in the unit of `cost_per_base` (seconds or FLOPs per base of each candidate). `decay_fraction` of every rung's budget is
    shown with a falling rate, and shown again when the candidate continues from the state before the decay.
    """
    unit = cost_per_base or {}
    shown = [rung.budget_bases + decay_fraction * sum(below.budget_bases for below in rungs[: rung.index]) for rung in rungs]
    spent = sum(shown[last] * unit.get(name, 1.0) for name, last in reached.items())
    exhaustive = sum(rungs[-1].budget_bases * unit.get(name, 1.0) for name in reached)
    return {"spent": spent, "exhaustive": exhaustive, "share": spent / exhaustive if exhaustive else 1.0}
