"""Stage "selection": which vocabulary, on what evidence, at what cost, and what would change the choice.

The rule: the candidate with the best score on the criterion, every candidate that the simultaneous intervals cannot separate from it, and
of these the smallest vocabulary (`selection.tie: best` takes the best score). A candidate that the ladder dropped cannot be chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from grover_dist.config import Config
from grover_dist.run_dir import Artifact, RunDir, Work
from grover_dist.selection import ladder, statistics
from grover_dist.selection.scores import LOSSES, BaselineScores, KmerScores, compare_evaluations, compare_scores
from grover_dist.selection.statistics import Comparison
from grover_dist.selection.words import sentences

RULES = {
    "smallest": "the best score; candidates that the simultaneous intervals cannot separate from it; of these the smallest vocabulary",
    "best": "the best score, whether or not the simultaneous intervals separate it from others",
}


def decide(
    config: Config,
    run: RunDir,
    evaluations: Mapping[int, Artifact],
    pretrained: Mapping[int, Artifact],
    baselines: Artifact,
    *,
    reached: Mapping[int, int] | None = None,
    verdicts: Sequence[ladder.Verdict] = (),
    say: Callable[[str], None] = print,
) -> Artifact:
    """Stage "selection": `decision.json` and `table.arrow` (one row for each candidate and k).

    evaluations, pretrained: cycles -> the candidate's latest "kmer" and "pretrain" artefacts. reached: cycles -> index of the last rung
    it was trained on; None means all reached the last one. verdicts: what the ladder decided after each rung.
    """
    rungs = ladder.plan_rungs(config.selection.ladder, config.pretrain.budget_bases)
    reached = dict(reached) if reached is not None else dict.fromkeys(evaluations, len(rungs) - 1)
    settings = {
        "seed": config.seed,
        "criterion": config.selection.criterion,
        "tie": config.selection.tie,
        "confidence": config.selection.confidence,
        "bootstrap_samples": config.selection.bootstrap_samples,
        "ladder": config.selection.ladder,
        "budget_bases": config.pretrain.budget_bases,
        "reached": reached,
        "verdicts": [verdict.to_json() for verdict in verdicts],
    }
    inputs = {f"kmer-c{cycles}": artifact for cycles, artifact in evaluations.items()}
    inputs |= {f"pretrain-c{cycles}": artifact for cycles, artifact in pretrained.items()}

    def write(work: Work) -> None:
        decision, table = make_decision(config, evaluations, pretrained, baselines, reached, verdicts)
        work.write_json("decision.json", decision)
        with pa.OSFile(str(work.file("table.arrow")), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        work.counts |= {key: decision[key] for key in ("chosen", "best", "tied", "criterion", "sentence", "cost")}
        say(f"selection: {decision['sentence']}")

    return run.once("selection", "decision", write, settings=settings, inputs={**inputs, "baselines": baselines}, say=say)


def make_decision(
    config: Config,
    evaluations: Mapping[int, Artifact],
    pretrained: Mapping[int, Artifact],
    baselines: Artifact,
    reached: Mapping[int, int],
    verdicts: Sequence[ladder.Verdict],
) -> tuple[dict[str, Any], pa.Table]:
    """The decision record and the table, a function of the artefacts' content alone."""
    scores = {cycles: KmerScores.open(evaluations[cycles]) for cycles in sorted(evaluations)}
    others = BaselineScores.open(baselines)
    rungs = ladder.plan_rungs(config.selection.ladder, config.pretrain.budget_bases)
    finalists = [cycles for cycles in scores if reached[cycles] == len(rungs) - 1]
    comparison = compare_evaluations(
        config, {cycles: evaluations[cycles] for cycles in finalists}, {cycles: pretrained[cycles] for cycles in finalists}
    )
    chosen, best, tied = choose(comparison, config.selection.tie)
    decision: dict[str, Any] = {
        "chosen": chosen,
        "best": best,
        "tied": tied,
        "criterion": config.selection.criterion,
        "tie": config.selection.tie,
        "rule": RULES[config.selection.tie],
        "confidence": config.selection.confidence,
        "ks": list(scores[chosen].ks),
        "candidates": _candidates(config, comparison, scores, pretrained, evaluations, reached),
        "paired_differences": _pairs(comparison),
        "runner_up": _runner_up(comparison, chosen),
        "other_criteria": _other_criteria(config, {cycles: scores[cycles] for cycles in finalists}, pretrained),
        "pretraining": {str(cycles): _difference(config, found.correct, found.twin, found) for cycles, found in scores.items()},
        "baselines": {
            name: _difference(config, scores[chosen].correct, correct[None], scores[chosen]) | {"accuracy": float(correct.mean())}
            for name, correct in others.correct.items()
        },
        "chance": float(np.mean([4.0**-k for k in scores[chosen].ks])),
        "cost": ladder.cost(rungs, reached, decay_fraction=config.pretrain.optimizer.decay_fraction) | {"unit": "bases of pretraining"},
        "ladder": {
            "kind": config.selection.ladder.kind,
            "rungs": [
                {"budget_bases": rung.budget_bases, "candidates": sum(at >= rung.index for at in reached.values())} for rung in rungs
            ],
            "verdicts": [verdict.to_json() for verdict in verdicts],
        },
        "bootstrap": {
            "samples": config.selection.bootstrap_samples,
            "blocks": len(np.unique(scores[chosen].block)),
            "positions": len(scores[chosen].block),
            "head_seeds": len(scores[chosen].correct),
        },
    }
    decision |= sentences(decision)
    return decision, _table(config, scores, others, pretrained, evaluations, baselines, reached)


def choose(comparison: Comparison, tie: str = "smallest") -> tuple[int, int, list[int]]:
    """(chosen, best, tied) from a comparison whose names are cycles. `tied` holds the best and is sorted by size."""
    best = comparison.order[0]
    tied = sorted(comparison.names[i] for i in comparison.tied_with(best))
    return comparison.names[best] if tie == "best" else tied[0], comparison.names[best], tied


def _candidates(config, comparison, scores, pretrained, evaluations, reached) -> list[dict[str, Any]]:
    index_of = {name: i for i, name in enumerate(comparison.names)}
    points = {cycles: _merits(scores[cycles], pretrained[cycles], evaluations[cycles]) for cycles in index_of}
    front = pareto_front(points)
    rows = []
    for cycles, found in scores.items():
        index = index_of.get(cycles)
        mean = statistics.paired_difference(found.correct, np.zeros((1, 1, 1)), found.block, **_bootstrap(config))
        rows.append(
            {
                "cycles": cycles,
                "finalist": index is not None,
                "rung": reached[cycles],
                "score": None if index is None else float(comparison.score[index]),
                "low": None if index is None else _number(comparison.low[index]),
                "high": None if index is None else _number(comparison.high[index]),
                "mean_accuracy": mean["difference"],
                "mean_accuracy_low": mean["low"],
                "mean_accuracy_high": mean["high"],
                **{loss: pretrained[cycles].counts.get(loss) for loss in LOSSES},
                "tokens_per_input": evaluations[cycles].counts["tokens_per_input"],
                "training_flops": _training_flops(pretrained[cycles]),
                "frozen_trunk": bool(evaluations[cycles].manifest["settings"].get("head", {}).get("freeze_trunk", False)),
                "on_pareto_front": cycles in front,
            }
        )
    return rows


def pareto_front(points: Mapping[int, tuple[float, ...]]) -> set[int]:
    """Names that no other equals or beats in every merit and beats in one. A higher merit is better."""
    return {
        name
        for name, merits in points.items()
        if not any(other != merits and all(a >= b for a, b in zip(other, merits, strict=True)) for other in points.values())
    }


def _merits(found: KmerScores, pretrained: Artifact, evaluation: Artifact) -> tuple[float, float, float]:
    """Accuracy, little compute of pretraining, short sequences."""
    return float(found.correct.mean()), -(_training_flops(pretrained) or 0.0), -float(evaluation.counts["tokens_per_input"])


def _training_flops(pretrained: Artifact) -> float | None:
    counts = pretrained.counts
    return counts["tokens"] * counts["flops_per_token"] if "flops_per_token" in counts else None


def _pairs(comparison: Comparison) -> list[dict[str, Any]]:
    order = comparison.order
    return [
        {
            "first": comparison.names[i],
            "second": comparison.names[j],
            "difference": float(comparison.difference[i, j]),
            "low": _number(comparison.difference_low[i, j]),
            "high": _number(comparison.difference_high[i, j]),
            "separable": comparison.separable(i, j),
        }
        for place, i in enumerate(order)
        for j in order[place + 1 :]
    ]


def _runner_up(comparison: Comparison, chosen: int) -> dict[str, Any] | None:
    """The best-scoring candidate that was not chosen, against the chosen one."""
    others = [i for i in comparison.order if comparison.names[i] != chosen]
    if not others:
        return None
    i, j = others[0], comparison.names.index(chosen)
    return {
        "cycles": comparison.names[i],
        "difference": float(comparison.difference[i, j]),
        "low": _number(comparison.difference_low[i, j]),
        "high": _number(comparison.difference_high[i, j]),
    }


def _other_criteria(config: Config, scores: Mapping[int, KmerScores], pretrained: Mapping[int, Artifact]) -> dict[str, dict[str, Any]]:
    """What each criterion would have chosen among the finalists."""
    found = {}
    for criterion in ("mean_accuracy", "mean_rank"):
        chosen, best, tied = choose(compare_scores(config, scores, criterion=criterion), config.selection.tie)
        found[criterion] = {"chosen": chosen, "best": best, "tied": tied}
    for loss in LOSSES:
        values = {cycles: pretrained[cycles].counts.get(loss) for cycles in scores}
        if all(value is not None for value in values.values()):
            best = min(values, key=lambda cycles: (values[cycles], cycles))
            found[loss] = {"chosen": best, "best": best, "tied": [best]}
    return found


def _bootstrap(config: Config) -> dict[str, Any]:
    return {"samples": config.selection.bootstrap_samples, "confidence": config.selection.confidence, "seed": config.seed}


def _difference(config: Config, first: np.ndarray, second: np.ndarray, found: KmerScores) -> dict[str, Any]:
    """Mean over k with its interval, and each k with its own."""
    whole = statistics.paired_difference(first, second, found.block, **_bootstrap(config))
    by_k = {}
    for index, k in enumerate(found.ks):
        by_k[str(k)] = statistics.paired_difference(first[:, [index]], second[:, [index]], found.block, **_bootstrap(config))
    verdict = "better" if whole["low"] > 0 else "worse" if whole["high"] < 0 else "not separable"
    return whole | {"verdict": verdict, "by_k": by_k}


def _table(config, scores, others, pretrained, evaluations, baselines, reached) -> pa.Table:
    rows = []
    nothing = np.zeros((1, 1, 1))
    orders = baselines.counts["markov_order"]
    for cycles, found in scores.items():
        for index, k in enumerate(found.ks):
            own = statistics.paired_difference(found.correct[:, [index]], nothing, found.block, **_bootstrap(config))
            twin = statistics.paired_difference(found.twin[:, [index]], nothing, found.block, **_bootstrap(config))
            rows.append(
                {
                    "cycles": cycles,
                    "k": k,
                    "accuracy": own["difference"],
                    "low": own["low"],
                    "high": own["high"],
                    "nats": float(found.nats[index]),
                    "twin": twin["difference"],
                    "twin_low": twin["low"],
                    "twin_high": twin["high"],
                    **{name: float(correct[index].mean()) for name, correct in others.correct.items()},
                    "markov_order": int(orders[str(k)]),
                    "chance": 4.0**-k,
                    **{loss: pretrained[cycles].counts.get(loss) for loss in LOSSES},
                    "tokens_per_input": evaluations[cycles].counts["tokens_per_input"],
                    "head_seeds": len(found.correct),
                    "rung": reached[cycles],
                }
            )
    return pa.Table.from_pylist(rows)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
