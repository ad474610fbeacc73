"""Where each candidate of a run stands, read from the run's folder alone: what `grover-dist status` shows of the ladder."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import yaml

from grover_dist.config import config_from
from grover_dist.run_dir import RunDir
from grover_dist.selection.ladder import Rung, plan_rungs

LADDER, FAILURES = "ladder.json", "failures"
SILENT_SECONDS = 600.0  # without a word from a candidate at work: worth a look


@dataclass(frozen=True)
class Standing:
    """state: waiting, pretraining, scoring, scored, dropped, chosen, failed or silent. rung: of `rungs`, from 1. None: not known yet."""

    cycles: int
    state: str
    rung: int
    rungs: int
    step: int | None = None
    steps: int | None = None
    bases: int | None = None
    bits_per_base: float | None = None
    bases_per_second: float | None = None
    seconds_left: float | None = None
    note: str = ""


def note_rung(run: RunDir, rung: Rung, alive: Sequence[int]) -> None:
    """The driver's word on who goes up to a rung, for those who ask while it works."""
    run.write_note(LADDER, json.dumps({"rung": rung.index, "alive": list(alive)}).encode())


def note_failure(run: RunDir, name: str, error: BaseException | None) -> None:
    """Leave a failed job's last words for `status`, or with None take them away when it starts again."""
    note = f"{FAILURES}/{name}.txt"
    if error is None:
        run.drop_note(note)
    else:
        run.write_note(note, f"{type(error).__name__}: {error}".encode())


def standings(run: RunDir) -> list[Standing]:
    """One for each candidate of the run's settings, smallest first; none before a run has settings."""
    settings = run.read_settings()
    if settings is None:
        return []
    config = config_from(yaml.safe_load(settings), source=f"{run.address}/config.yaml")
    rungs = plan_rungs(config.selection.ladder, config.pretrain.budget_bases)
    ladder = _parsed(run.read_note(LADDER))
    complete: dict[int, list[Mapping[str, Any]]] = {}
    for name in run.names("pretrain"):
        manifest = run.read_manifest(name)
        complete.setdefault(manifest["counts"]["cycles"], []).append(manifest)
    found = [_standing(run, cycles, complete.get(cycles, ()), rungs, ladder) for cycles in sorted(config.pretrain.candidates)]
    decisions = run.names("selection")
    chosen = run.read_manifest(decisions[0])["counts"]["chosen"] if decisions else None
    return [replace(one, state="chosen") if one.cycles == chosen and one.state == "scored" else one for one in found]


def _standing(
    run: RunDir, cycles: int, manifests: Sequence[Mapping[str, Any]], rungs: Sequence[Rung], ladder: Mapping[str, Any]
) -> Standing:
    name, n = f"c{cycles}", len(rungs)
    index_of = {rung.budget_bases: rung.index for rung in rungs}
    counts_of = {index_of.get(manifest["settings"]["budget_bases"]): manifest["counts"] for manifest in manifests}
    complete = {index: counts for index, counts in counts_of.items() if index is not None}
    progress, age = _progress(run, f"pretrain-{name}.jsonl")
    heads, heads_age = _progress(run, f"kmer-{name}.jsonl")
    failure = run.read_note(f"{FAILURES}/{name}.txt")
    known = {"bits_per_base": progress.get("held_out_bits_per_base"), "bases_per_second": progress.get("bases_per_second")}
    if list((run.path / "pretrain").glob(f".{name}-????????.partial")):
        steps, step = progress.get("steps"), progress.get("step")
        left = (steps - step) * progress["seconds_per_step"] if steps and step and "seconds_per_step" in progress else None
        rung = index_of.get(progress.get("budget_bases"), int(ladder.get("rung", 0)))
        state = "silent" if age is not None and age > SILENT_SECONDS else "pretraining"
        one = Standing(cycles, state, rung + 1, n, step, steps, progress.get("bases"), seconds_left=left, note=_ago(age), **known)
    elif complete:
        rung = max(complete)
        counts = complete[rung]
        at = {"step": counts["steps"], "steps": counts["steps"], "bases": counts["bases"]}
        known["bits_per_base"] = counts.get("bits_per_base")
        if list((run.path / "kmer").glob(f".{name}-????????.partial")):
            state = "silent" if heads_age is not None and heads_age > SILENT_SECONDS else "scoring"
            note = f"head {heads['done']} of {heads['of']}, {_ago(heads_age)}" if "done" in heads else ""
        elif ladder and cycles not in ladder["alive"]:
            state, note = "dropped", ""
        elif ladder and rung < ladder["rung"]:
            state, note, rung = "waiting", f"rung {rung + 1} done", int(ladder["rung"])
        else:
            state, note = "scored", ""
        one = Standing(cycles, state, rung + 1, n, note=note, **at, **known)
    else:
        one = Standing(cycles, "waiting", 1, n)
    if failure is not None and one.state not in ("scored", "dropped"):
        return replace(one, state="failed", note=" ".join(failure.decode("utf-8", "replace").split())[:160])
    return one


def describe_candidates(run: RunDir) -> Iterator[str]:
    """A table with one line a candidate; nothing before the settings are there."""
    found = standings(run)
    if not found:
        return
    yield f"  {'cycles':>7} {'state':12} {'rung':>6} {'step':>17} {'bases':>15} {'bits/base':>9} {'bases/s':>11} {'left':>9}"
    for one in found:
        step = "" if one.step is None else f"{one.step:,} of {one.steps:,}" if one.steps else f"{one.step:,}"
        cells = [
            f"{one.cycles:>7,} {one.state:12} {f'{one.rung}/{one.rungs}':>6} {step:>17}",
            f"{'' if one.bases is None else format(one.bases, ',')!s:>15}",
            f"{'' if one.bits_per_base is None else format(one.bits_per_base, '.4f')!s:>9}",
            f"{'' if one.bases_per_second is None else format(one.bases_per_second, ',.0f')!s:>11}",
            f"{_duration(one.seconds_left):>9}",
        ]
        yield f"  {' '.join(cells)}  {one.note}".rstrip()


def _progress(run: RunDir, note: str) -> tuple[dict[str, Any], float | None]:
    """The newest value of every key of a file of progress, and its age in seconds where the file is on this machine's disk."""
    newest: dict[str, Any] = {}
    for line in (run.read_note(note) or b"").splitlines():
        newest |= _parsed(line)
    path = run.path / "logs" / note
    return newest, time.time() - path.stat().st_mtime if path.is_file() else None


def _parsed(text: bytes | None) -> dict[str, Any]:
    """Nothing where there is nothing, and of a line that is just being written."""
    try:
        return json.loads(text or b"{}")
    except ValueError:
        return {}


def _ago(seconds: float | None) -> str:
    return "" if seconds is None else f"{_duration(seconds)} ago"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6_000 else f"{seconds / 3_600:,.1f} h"
