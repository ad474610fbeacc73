"""The decision in plain words, made from the decision record alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_NAMES = {"majority": "the majority class", "markov": "the best Markov chain", "forest": "the TF-IDF forest"}


def sentences(decision: Mapping[str, Any]) -> dict[str, Any]:
    """`sentence` (what was chosen and why), `pretraining_sentence`, `baselines_sentence` and `would_change` (list)."""
    return {
        "sentence": _choice(decision),
        "pretraining_sentence": _pretraining(decision),
        "baselines_sentence": _baselines(decision),
        "would_change": _would_change(decision),
    }


def percent(value: float) -> str:
    return f"{100 * value:.2f} %"


def _points(found: Mapping[str, float]) -> str:
    return f"{100 * found['difference']:+.2f} points ({100 * found['low']:+.2f} to {100 * found['high']:+.2f})"


def _score(decision: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    if decision["criterion"] == "mean_accuracy":
        return f"a mean accuracy of {percent(row['score'])} ({percent(row['low'])} to {percent(row['high'])})"
    if decision["criterion"] == "mean_rank":
        return f"a mean rank of {-row['score']:.2f}"
    if decision["criterion"] == "unigram_normalized_loss":
        return f"{row['score']:.4f} nats per token below token frequencies alone"
    return f"{-row['score']:.4f} bits per base"


def _choice(decision: Mapping[str, Any]) -> str:
    chosen, best, tied = decision["chosen"], decision["best"], decision["tied"]
    row = next(row for row in decision["candidates"] if row["cycles"] == best)
    text = f"{best:,} cycles scored best with {_score(decision, row)}"
    finalists = sum(row["finalist"] for row in decision["candidates"])
    if finalists == 1:
        return f"{text}; it was the only candidate, and is chosen."
    if len(tied) == 1:
        return f"{text} and beats every other candidate, so {chosen:,} cycles is chosen."
    level = f"{100 * decision['confidence']:.0f} %"
    others = [cycles for cycles in tied if cycles != best]
    verb = "is" if len(others) == 1 else "are"
    if decision.get("tie") == "best":
        return f"{text}; {_list(others)} {verb} not separable from it at the {level} level; the best score is chosen all the same."
    text += f"; {_list(others)} {verb} not separable from it at the {level} level"
    if chosen == best:
        return f"{text}, and {chosen:,} is the smallest vocabulary of the tie, so it is chosen."
    return f"{text}, so the smallest vocabulary of the tie is chosen: {chosen:,} cycles."


def _pretraining(decision: Mapping[str, Any]) -> str:
    found = decision["pretraining"][str(decision["chosen"])]
    meaning = {
        "better": "Pretraining helps: against its random-initialised twin the chosen model gains",
        "worse": "Pretraining hurts: against its random-initialised twin the chosen model changes by",
        "not separable": "Pretraining cannot be shown to help: against its random-initialised twin the chosen model changes by",
    }[found["verdict"]]
    return f"{meaning} {_points(found)} of mean accuracy."


def _baselines(decision: Mapping[str, Any]) -> str:
    by_verdict: dict[str, list[str]] = {"better": [], "not separable": [], "worse": []}
    for name, found in decision["baselines"].items():
        by_verdict[found["verdict"]].append(f"{_NAMES[name]} ({_points(found)})")
    verbs = {"better": "beats", "not separable": "is not separable from", "worse": "is worse than"}
    parts = [f"{verbs[verdict]} {_list(names)}" for verdict, names in by_verdict.items() if names]
    return f"The chosen model {'; it '.join(parts)}."


def _would_change(decision: Mapping[str, Any]) -> list[str]:
    found, runner_up, chosen = [], decision["runner_up"], decision["chosen"]
    if runner_up and runner_up["low"] is not None:
        unit, name = (100, "points") if decision["criterion"] == "mean_accuracy" else (1, "ranks")
        half, lead = unit * (runner_up["high"] - runner_up["low"]) / 2, unit * runner_up["difference"]
        text = f"The runner-up, {runner_up['cycles']:,} cycles, "
        if lead > 0:
            text += f"leads by {lead:.2f} {name}; it would be chosen if that lead held beyond {half:.2f}, "
            text += f"which would need about {(half / lead) ** 2:.1f} times as many independent blocks."
        else:
            text += f"is {-lead:.2f} {name} behind; it would have to lead by more than about {half:.2f}."
        found.append(text)
    different = [f"{name} ({row['chosen']:,})" for name, row in decision["other_criteria"].items() if row["chosen"] != chosen]
    if different:
        found.append(f"Another criterion would choose differently: {_list(different)}.")
    elif len(decision["other_criteria"]) > 1:
        found.append("The other criteria choose the same vocabulary.")
    if decision["bootstrap"]["head_seeds"] < 3:
        found.append("With fewer than three head seeds the spread between trainings is not, or hardly, part of the intervals.")
    return found


def _list(items: Sequence[Any]) -> str:
    texts = [f"{item:,}" if isinstance(item, int) else str(item) for item in items]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"
