"""`grover-dist plan`: what a run will need, by formula, before anything starts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from grover_dist.bpe.cost import learn_seconds, partition_bytes
from grover_dist.config import Config
from grover_dist.genome.fasta import check_exists
from grover_dist.model.size import flops_per_token
from grover_dist.selection.ladder import plan_rungs
from grover_dist.training.engine import resolve_zero_stage
from grover_dist.training.plan import CandidatePlan, guess_bases_per_token, mean_window_tokens, plan_candidate

_GENOME_BYTES_A_BASE, _STORE_BYTES_A_BASE = 1.125, 3.125  # uint8 base and one bit of mask; the store adds a uint16 level
_ANALYSIS_PASSES = 4  # means, context, masked words, regions
_BASES_A_GZIP_BYTE = 3.6  # of soft-masked DNA


def describe_plan(config: Config, *, flops_per_second: float, hardware: str, cores: int) -> Iterator[str]:
    """Lines: the learner, then each candidate on the ladder's last rung, then the sweep. `flops_per_second`: what one rank achieves."""
    bases = genome_bases(config)
    fast, lean = partition_bytes(bases, "fast"), partition_bytes(bases, "lean")
    disk = bases * (_GENOME_BYTES_A_BASE + _STORE_BYTES_A_BASE)
    yield f"genome    about {bases:,} bases; {size(disk)} of disk for genome and store"
    yield (
        f"learn     {config.bpe.cycles:,} cycles: {size(fast)} of memory over all actors ({size(lean)} in lean mode), "
        f"about {learn_seconds(bases, config.bpe.cycles, cores):,.1f} s on {cores} cores"
    )
    ranks = config.resources.ranks_per_candidate
    stage = resolve_zero_stage(config.engine, ranks)
    yield f"pretrain  on {hardware}, {ranks} rank{'s' if ranks > 1 else ''} a candidate, ZeRO stage {stage}"
    yield f"  {'cycles':>7} {'parameters':>12} {'steps':>9} {'tokens':>16} {'MFLOP/token':>12} {'memory/rank':>12} {'disk':>9} {'hours':>9}"
    hours = 0.0
    for found in plan_candidates(config, flops_per_second=flops_per_second):
        hours += found.hours
        disk += found.disk_bytes
        yield (
            f"  {found.cycles:>7,} {found.parameters:>12,} {found.steps:>9,} {found.tokens:>16,.0f} {found.flops_per_token / 1e6:>12,.2f} "
            f"{size(found.memory[stage].total):>12} {size(found.disk_bytes):>9} {found.hours:>9,.2f}"
        )
    rungs = plan_rungs(config.selection.ladder, config.pretrain.budget_bases)
    budgets = ", ".join(f"{rung.budget_bases:,}" for rung in rungs)
    yield f"sweep     {hours:,.2f} gang hours of pretraining to the whole budget, {size(disk)} of disk"
    yield f"ladder    {config.selection.ladder.kind}, {len(rungs)} rung{'s' if len(rungs) > 1 else ''}: {budgets} bases"
    yield f"analyze   {_analysis_words(config, bases, flops_per_second)}"


def analysis_hours(config: Config, cycles: int, windows: float, *, flops_per_second: float) -> float:
    """Hours of one rank for the passes of the chosen model and its nulls over so many windows; ranks share them evenly, in parts. Only
    the models' arithmetic: a forward pass is a third of what training a token takes, here with every token masked.
    """
    models = 2 + (config.analysis.shuffled_fraction > 0)  # the twin, and the model of the shuffled genome
    tokens = windows * mean_window_tokens(config.windows)
    forward = flops_per_token(config.model, cycles + 9, length_tokens=config.windows.max_tokens, masked_fraction=1.0) / 3
    return models * _ANALYSIS_PASSES * tokens * forward / flops_per_second / 3_600


def _analysis_words(config: Config, bases: int, flops_per_second: float) -> str:
    cycles = max(config.pretrain.candidates)
    window_bases = mean_window_tokens(config.windows) * guess_bases_per_token(cycles)
    every = bases * config.split.held_out_fraction / window_bases
    asked = min(config.analysis.windows, every)
    here, whole = (analysis_hours(config, cycles, windows, flops_per_second=flops_per_second) for windows in (asked, every))
    return (
        f"models' arithmetic: {asked:,.0f} held-out windows {here:,.3f} rank hours; "
        f"all {every:,.0f} of them {whole:,.2f}, which is {whole / 8:,.3f} h on 8 ranks"
    )


def plan_candidates(config: Config, *, flops_per_second: float) -> list[CandidatePlan]:
    """Every candidate to its whole budget, smallest vocabulary first. `flops_per_second`: what one rank achieves."""
    ranks, budget = config.resources.ranks_per_candidate, config.pretrain.budget_bases
    return [
        plan_candidate(config, cycles, budget_bases=budget, world=ranks, flops_per_second=flops_per_second * ranks)
        for cycles in sorted(config.pretrain.candidates)
    ]


def genome_bases(config: Config) -> int:
    """Bases by the size of the files, an upper bound: N and line ends count too. For gzip by the usual ratio."""
    if config.genome.synthetic is not None:
        return config.genome.synthetic.length_bp
    total = 0.0
    for path in config.genome.fasta:
        check_exists(path)
        total += path.stat().st_size * _ratio(path)
    return round(total)


def _ratio(path: Path) -> float:
    if path.suffix in (".gz", ".bgz"):
        return _BASES_A_GZIP_BYTE
    return 4.0 if path.suffix == ".2bit" else 1.0


def size(count: float) -> str:
    """Bytes in words, 1 kB = 1,000 bytes."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1_000 or unit == "TB":
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1_000
    raise AssertionError
