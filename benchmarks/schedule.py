"""How tightly a sweep of candidates of unequal cost is packed, and what orchestration costs in a real one.

    python benchmarks/schedule.py [--config configs/human-hg19.yaml] [--from RUN] [--hardware h200 --mfu 0.4] [--efficiency 0.95 ...]
    python benchmarks/schedule.py --measure [--dir runs/bench-schedule] [KEY.SUB=VALUE ...]     # an idle machine; some minutes

The first simulates the settings' candidates on 1 to 64 GPUs with the scheduler's own rule. A candidate's work comes from `plan`'s formula,
or with --from from the measured steps of a run (CPU seconds a base, interpolated over log cycles). Makespans are divided by two
bounds that no schedule beats: `free`, work/GPUs or the longest candidate at its best width, which takes a doubling of a candidate's GPUs
to cost nothing, and the one that knows what it costs. Widths are those that share a batch evenly.

The second runs six candidates on a local Ray and takes their wall time apart: start-up of the gang's processes, optimizer steps, the
rest of the stages (opening the corpus, held-out figures, writing), scoring, and orchestration, which is what remains: between stages,
from the last stage's end to the gang's end, and from a gang's end to the next one's start.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from grover_dist.cluster.schedule import doubling_speed, makespan_bound, pack, rank_numbers
from grover_dist.config import Config, load_config
from grover_dist.run_dir import RunDir, read_artifact
from grover_dist.training.plan import GPU_PEAK_FLOPS, plan_candidate

GPUS = (1, 2, 3, 4, 6, 8, 12, 16, 20, 24, 32, 40, 48, 64)
REPOSITORY = Path(__file__).resolve().parent.parent
MEASURED = [
    "pretrain.candidates=[25,50,100,200,400,600]",
    "bpe.cycles=600",
    "genome.synthetic.length_bp=1000000",
    "pretrain.budget_bases=2500000",
    "pretrain.evaluations=2",
    "selection.ks=[2,3]",
    "selection.train_positions=2000",
    "selection.evaluate_positions=1000",
    "resources.candidates_at_once=auto",
]


def work_of(config: Config, given: argparse.Namespace) -> list[float]:
    """Hours of every candidate on one GPU, largest first."""
    flops = given.mfu * GPU_PEAK_FLOPS[given.hardware]
    budget = config.pretrain.budget_bases
    candidates = config.pretrain.candidates
    planned = [plan_candidate(config, cycles, budget_bases=budget, world=1, flops_per_second=flops).hours for cycles in candidates]
    if given.source is None:
        return planned
    seconds: dict[int, float] = {}
    for path in sorted((given.source / "pretrain").glob("c*-*/manifest.json")):
        artifact = read_artifact(path.parent)
        counts = artifact.counts
        if not any(name.startswith("stable/") for name in artifact.manifest["files"]):
            seconds[counts["cycles"]] = artifact.manifest["cpu_seconds"] / counts["bases"]
    known = sorted(seconds)
    found = np.interp(np.log(candidates), np.log(known), [seconds[cycles] for cycles in known])
    return [float(value) for value in found / found.mean() * np.mean(planned)]  # the run's ratios at the plan's scale


def simulate(config: Config, given: argparse.Namespace) -> Iterable[str]:
    work, widths = work_of(config, given), rank_numbers(config.pretrain.batch_windows)
    yield f"{len(work)} candidates, {min(work):,.2f} to {max(work):,.2f} h on one GPU, {sum(work):,.1f} h in all; widths {widths}\n"
    yield (
        "| GPUs | "
        + " | ".join(f"{efficiency:.0%} a doubling: h, x bound, x free" for efficiency in given.efficiency)
        + " | one GPU each |"
    )
    yield "|---|" + "---|" * (len(given.efficiency) + 1)
    for gpus in GPUS:
        cells = []
        for efficiency in given.efficiency:
            speed = doubling_speed(efficiency)
            packed = pack(work, gpus, widths, speed)
            best = max(min(job / speed(width) for width in widths if width <= gpus) for job in work)
            free = max(sum(work) / gpus, best)
            bound = makespan_bound(work, gpus, widths, speed)
            cells.append(f"{packed.makespan:,.2f}, {packed.makespan / bound:.3f}, {packed.makespan / free:.3f}")
        lone = pack(work, gpus, (1,), doubling_speed(1.0)).makespan
        yield f"| {gpus} | " + " | ".join(cells) + f" | {lone:,.2f} |"


def measure(given: argparse.Namespace) -> Iterable[str]:
    from grover_dist.cluster import pipeline as pipelines

    config = load_config(REPOSITORY / "configs/demo.yaml", [*MEASURED, f"run.dir={given.dir}", *given.overrides])
    run = RunDir.open(config)
    gangs: list[tuple[str, float, float]] = []
    run_gang = pipelines.run_gang

    def timed(call, resources):
        began = time.time()
        found = run_gang(call, resources)
        gangs.append((call.name, began, time.time()))
        return found

    pipelines.run_gang = timed
    with pipelines.pipeline_session(config, run, say=print) as pipeline:
        pipeline.corpus(), pipeline.task()
        gangs.clear()
        pipeline.candidates()
    parts = {"start-up": 0.0, "steps": 0.0, "rest of the stages": 0.0, "scoring": 0.0, "orchestration": 0.0}
    for name, began, ended in gangs:
        pretrain, kmer = run.latest("pretrain", name), run.latest("kmer", name)
        spans = [_span(artifact.path, artifact.manifest["wall_seconds"]) for artifact in (pretrain, kmer)]
        steps = _seconds_in_steps(pretrain.file("metrics.jsonl"))
        parts["start-up"] += spans[0][0] - began
        parts["steps"] += steps
        parts["rest of the stages"] += spans[0][1] - spans[0][0] - steps
        parts["scoring"] += spans[1][1] - spans[1][0]
        parts["orchestration"] += (spans[1][0] - spans[0][1]) + (ended - spans[1][1])
    waits = _waits([(began, ended) for _, began, ended in gangs])
    parts["orchestration"] += sum(waits)
    whole = sum(parts.values())
    yield f"\n{len(gangs)} gangs, {whole:,.0f} s of gangs in all; longest wait for freed room {max(waits, default=0.0):.3f} s\n"
    yield "| part | seconds | share | share without start-up |"
    yield "|---|---|---|---|"
    for part, seconds in parts.items():
        apart = "" if part == "start-up" else f"{seconds / (whole - parts['start-up']):.2%}"
        yield f"| {part} | {seconds:,.1f} | {seconds / whole:.2%} | {apart} |"


def _span(folder: Path, wall_seconds: float) -> tuple[float, float]:
    """When a stage began and ended: its manifest is the last thing that it writes."""
    end = (folder / "manifest.json").stat().st_mtime
    return end - wall_seconds, end


def _seconds_in_steps(path: Path) -> float:
    total, before = 0.0, 0
    for line in path.read_text().splitlines():
        found = json.loads(line)
        if "seconds_per_step" in found:
            total += found["seconds_per_step"] * (found["step"] - before)
            before = found["step"]
    return total


def _waits(spans: Sequence[tuple[float, float]]) -> list[float]:
    """From each end to the start that it made room for."""
    starts, ends = sorted(start for start, _ in spans), sorted(end for _, end in spans)
    at_once = sum(start < ends[0] for start in starts)
    return [max(0.0, start - end) for start, end in zip(starts[at_once:], ends, strict=False)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=REPOSITORY / "configs/human-hg19.yaml")
    parser.add_argument("--from", dest="source", type=Path, help="a run whose measured steps give the candidates' ratios")
    parser.add_argument("--hardware", choices=GPU_PEAK_FLOPS, default="h200")
    parser.add_argument("--mfu", type=float, default=0.4)
    parser.add_argument("--efficiency", type=float, nargs="+", default=[1.0, 0.95, 0.9])
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--dir", type=Path, default=REPOSITORY / "runs/bench-schedule")
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_intermixed_args()
    lines = measure(given) if given.measure else simulate(load_config(given.config, given.overrides), given)
    for line in lines:
        print(line)


if __name__ == "__main__":
    main()
