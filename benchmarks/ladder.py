"""`halving` against `full` on a real genome: the same choice, or one that cannot be told from it, for less. And warm start against cold.

    python benchmarks/ladder.py [--genome yeast|chr22] [--seeds 1 2] [--at-once 1] [--dir runs/bench-ladder] [KEY.SUB=VALUE ...]

Every seed deals genome blocks, positions, weights and heads anew. Both ladders and the A/B run in one process with one thread, a seed
in a process of its own; nothing of one ladder is reused by the other. Cost is counted three ways: bases shown (the decay that a
continued rung makes again included), floating-point operations of pretraining, and seconds of CPU time of pretraining and scoring together,
which other load on the machine hardly moves. The folder is a run's: a second start goes on where the first was stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
GENOMES = {"yeast": "configs/yeast.yaml", "chr22": "configs/human-chr22.yaml"}
CANDIDATES = (25, 50, 100, 150, 200, 300, 400, 500, 650, 800, 1000, 1300)
WARM_PARENT, WARM_CHILDREN, WARM_FRACTIONS = 100, (300, 800, 1300), (0.2, 1.0)
HEAD = "batch_sequences: 64, pooling: last"
SETTINGS = [
    f"pretrain.candidates={list(CANDIDATES)}",
    f"bpe.cycles={max(CANDIDATES)}",
    "split.block_bp=50000",
    "model.layers=1",
    "model.feed_forward=128",
    "windows.max_tokens=30",
    "pretrain.budget_bases=2000000",
    "pretrain.evaluate_windows=512",
    "pretrain.evaluations=1",
    "pretrain.checkpoint_every_steps=1000000",
    "selection.ks=[2,3]",
    "selection.train_positions=4000",
    "selection.evaluate_positions=3000",
    "selection.forest_positions=2000",
    "selection.forest_trees=30",
    f"selection.head={{{HEAD}, epochs: 1, seeds: 3, optimizer: {{learning_rate: 3.0e-3}}}}",
    f"selection.ladder.probe={{{HEAD}, epochs: 2, freeze_trunk: true, optimizer: {{learning_rate: 1.0e-2}}}}",
    "tracking.tensorboard=false",
]
HALVING = ["selection.ladder.kind=halving"]  # at its defaults; both ends of the grid are controls


def one_seed(given: argparse.Namespace, seed: int) -> None:
    """Both ladders and the A/B; leaves `result.json` in the seed's folder."""
    from grover_dist.config import load_config
    from grover_dist.corpus.build import build_corpus
    from grover_dist.genome.stage import build_genome
    from grover_dist.pretrain.candidate import pretrain_candidate
    from grover_dist.run_dir import RunDir
    from grover_dist.selection.baselines import build_baselines
    from grover_dist.selection.decide import decide
    from grover_dist.selection.ladder import climb
    from grover_dist.selection.scores import compare_evaluations
    from grover_dist.selection.task import build_task
    from grover_dist.selection.trial import run_trial
    from grover_dist.training.ranks import Ranks

    folder = given.dir / f"{given.genome}-{seed}"
    common = [*SETTINGS, f"seed={seed}", f"run.dir={folder}", *given.overrides]
    full = load_config(REPOSITORY / GENOMES[given.genome], common)
    halving = load_config(REPOSITORY / GENOMES[given.genome], [*common, *HALVING])
    run, ranks = RunDir.open(full), Ranks.join()
    genome = build_genome(full, run)
    task, corpus = build_task(full, run, genome), build_corpus(full, run, genome)
    baselines = build_baselines(full, run, genome, task)
    result: dict[str, Any] = {"seed": seed, "candidates": list(full.pretrain.candidates)}
    for kind, config in (("halving", halving), ("full", full)):
        made: list[dict[str, Any]] = []

        def train(rung, alive, before, config=config, made=made):
            found = {}
            for cycles in alive:
                continued = before[cycles]["pretrain"] if cycles in before else None
                found[cycles] = run_trial(
                    config, run, corpus=corpus, task=task, cycles=cycles, budget_bases=rung.budget_bases, ranks=ranks,
                    continue_from=continued, early=not rung.last,
                )  # fmt: skip
                made.append(_cost(found[cycles], continued))
            return found

        def compare(found, config=config):
            return compare_evaluations(
                config, {c: item["kmer"] for c, item in found.items()}, {c: item["pretrain"] for c, item in found.items()}
            )

        state = climb(config.selection.ladder, config.pretrain.budget_bases, config.pretrain.candidates, train=train, compare=compare)
        decided = decide(
            config,
            run,
            {c: item["kmer"] for c, item in state.found.items()},
            {c: item["pretrain"] for c, item in state.found.items()},
            baselines,
            reached=state.reached,
            verdicts=state.verdicts,
        )
        decision = json.loads(decided.file("decision.json").read_text())
        result[kind] = {"decision": decision, "cost": {key: sum(item[key] for item in made) for key in made[0]}, "path": str(decided.path)}
    result["warm"] = []
    for fraction in WARM_FRACTIONS:
        budget = round(full.pretrain.budget_bases * fraction)

        def pretrained(cycles: int, warm=None, budget=budget):
            return pretrain_candidate(full, run, corpus, cycles, budget_bases=budget, ranks=ranks, warm_from=warm)

        parent = pretrained(WARM_PARENT)
        for cycles in WARM_CHILDREN:
            cold, warm = pretrained(cycles), pretrained(cycles, parent)
            bits = [artifact.counts["bits_per_base"] for artifact in (cold, warm)]
            result["warm"].append({"cycles": cycles, "bases": budget, "cold": bits[0], "warm": bits[1]})
    (folder / "result.json").write_text(json.dumps(result))


def _cost(found: Mapping[str, Any], continued: Any) -> dict[str, float]:
    """What one candidate cost on one rung, beyond the state that it took up."""
    taken_up = {"bases": 0, "tokens": 0}
    if continued is not None:
        taken_up = json.loads(continued.file("stable/checkpoint.json").read_text())
    counts = found["pretrain"].counts
    tokens = counts["tokens"] - taken_up["tokens"]
    return {
        "bases": counts["bases"] - taken_up["bases"],
        "flops": tokens * counts["flops_per_token"],
        "pretrain_cpu": found["pretrain"].manifest["cpu_seconds"],
        "score_cpu": found["kmer"].manifest["cpu_seconds"],
    }


def tables(results: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    for result in results:
        yield from _selection_table(result)
    yield "\n### Ladder against full training\n"
    yield "| seed | full: chosen (tied with the best) | halving: chosen | its place in full's table | bases | FLOPs | CPU s | pretraining |"
    yield "|---|---|---|---|---|---|---|---|"
    for result in results:
        full, halving = result["full"], result["halving"]
        chosen = halving["decision"]["chosen"]
        spent, whole = halving["cost"], full["cost"]
        shares = [_share(spent[key], whole[key]) for key in ("bases", "flops")]
        shares.append(_share(spent["pretrain_cpu"] + spent["score_cpu"], whole["pretrain_cpu"] + whole["score_cpu"]))
        shares.append(_share(spent["pretrain_cpu"], whole["pretrain_cpu"]))
        tied = ", ".join(map(str, full["decision"]["tied"]))
        yield (
            f"| {result['seed']} | {full['decision']['chosen']} ({tied}) | {chosen} | {_relation(full['decision'], chosen)} | "
            + " | ".join(shares)
            + " |"
        )
    yield "\n### Warm start against cold, bits per base on the same held-out windows\n"
    yield "| seed | cycles | bases | cold | warm | warm - cold |"
    yield "|---|---|---|---|---|---|"
    for result in results:
        for row in result["warm"]:
            yield (
                f"| {result['seed']} | {row['cycles']} | {row['bases']:,} | {row['cold']:.4f} | {row['warm']:.4f} | "
                f"{row['warm'] - row['cold']:+.4f} |"
            )


def _selection_table(result: Mapping[str, Any]) -> Iterable[str]:
    full, halving = result["full"]["decision"], result["halving"]["decision"]
    small = {row["cycles"]: row for row in halving["candidates"]}
    yield f"\n### Seed {result['seed']}: mean accuracy over k = {', '.join(map(str, full['ks']))}, in percent (95 % interval)\n"
    yield "| cycles | full | bits per base | last rung of halving | halving, its last rung's score |"
    yield "|---|---|---|---|---|"
    for row in full["candidates"]:
        other = small[row["cycles"]]
        marks = [" **chosen**" * (row["cycles"] == decision["chosen"]) for decision in (full, halving)]
        probe = "" if other["finalist"] else " (probe)"
        rungs = len(halving["ladder"]["rungs"])
        yield (
            f"| {row['cycles']} | {_interval(row)}{marks[0]} | {row['bits_per_base']:.4f} | {other['rung'] + 1} of {rungs} | "
            f"{_interval(other)}{probe}{marks[1]} |"
        )
    found = full["baselines"]
    yield "\nOn the same positions: " + ", ".join(f"{name} {100 * item['accuracy']:.2f}" for name, item in found.items()) + " %. "
    yield f"{full['sentence']} {full['pretraining_sentence']} {full['baselines_sentence']}"
    yield f"\nHalving: {halving['sentence']}"


def _interval(row: Mapping[str, Any]) -> str:
    return f"{100 * row['mean_accuracy']:.2f} ({100 * row['mean_accuracy_low']:.2f} to {100 * row['mean_accuracy_high']:.2f})"


def _relation(full: Mapping[str, Any], chosen: int) -> str:
    if chosen == full["chosen"]:
        return "the same"
    for pair in full["paired_differences"]:
        if {pair["first"], pair["second"]} == {chosen, full["chosen"]}:
            sign = 1 if pair["first"] == chosen else -1
            low, high = sorted((sign * pair["low"], sign * pair["high"]))
            found = f"{100 * sign * pair['difference']:+.2f} points ({100 * low:+.2f} to {100 * high:+.2f})"
            return f"{'separable' if low > 0 or high < 0 else 'not separable'}: {found}"
    raise AssertionError


def _share(spent: float, whole: float) -> str:
    return f"{spent:,.3g} of {whole:,.3g} = {spent / whole:.1%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--genome", choices=GENOMES, default="yeast")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--at-once", type=int, default=1, help="seeds side by side")
    parser.add_argument("--dir", type=Path, default=REPOSITORY / "runs/bench-ladder")
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_intermixed_args()
    if given.only is not None:
        one_seed(given, given.only)
        return
    waiting, running = list(given.seeds), []
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    while waiting or running:
        while waiting and len(running) < given.at_once:
            command = [
                sys.executable,
                __file__,
                "--genome",
                given.genome,
                "--dir",
                str(given.dir.absolute()),
                "--only",
                str(waiting.pop(0)),
            ]
            running.append(subprocess.Popen([*command, *given.overrides], stdout=sys.stderr, env=environment, cwd=REPOSITORY))
        if running.pop(0).wait():
            sys.exit("a seed failed; see above")
    for line in tables([json.loads((given.dir / f"{given.genome}-{seed}" / "result.json").read_text()) for seed in given.seeds]):
        print(line)


if __name__ == "__main__":
    main()
