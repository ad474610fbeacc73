"""What a run has reached, read from its folder alone: any node that sees the folder can ask."""

from __future__ import annotations

import time
from collections.abc import Iterator

from grover_dist.cluster.candidates import describe_candidates
from grover_dist.cluster.console import describe_progress
from grover_dist.run_dir import RunDir

STAGES = (
    "genome",
    "learn",
    "health",
    "kmer-task",
    "kmer-baselines",
    "pretrain",
    "kmer",
    "selection",
    "finetune",
    "shuffled",
    "shuffled-model",
    "analysis",
    "grammar",
    "export",
    "report",
)


def describe_run(run: RunDir) -> Iterator[str]:
    """One line per artefact, complete or in progress, then a table of the candidates and the last word of other work."""
    yield f"run {run.address}"
    for stage in STAGES:
        folder = run.path / stage
        for name in sorted(run.names(stage)):
            yield f"  {stage:15} {name.rpartition('/')[2]:28} complete, {run.read_manifest(name)['wall_seconds']:,.0f} s"
        for path in sorted(folder.glob(".*.partial")) if folder.is_dir() else []:
            yield f"  {stage:15} {path.name[1:-8]:28} begun, not complete"
    yield from describe_candidates(run)
    for path in sorted(run.logs.glob("*.jsonl")):
        lines = [] if path.stem.startswith(("pretrain-c", "kmer-c")) else path.read_text().splitlines()
        if lines:
            age_seconds = time.time() - path.stat().st_mtime
            yield f"  {path.stem}: {describe_progress(lines[-1])} ({age_seconds:,.0f} s ago)"
