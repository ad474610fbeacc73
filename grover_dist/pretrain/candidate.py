"""Stage "pretrain": one candidate vocabulary, one language model, one budget of bases."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from grover_dist.config import Config, settings_hash
from grover_dist.corpus.batches import MaskedBatches
from grover_dist.corpus.corpus import Corpus
from grover_dist.corpus.order import Draws
from grover_dist.corpus.windows import Windows, make_windows
from grover_dist.errors import UserError, nearest
from grover_dist.genome.contigs import ContigTable
from grover_dist.genome.split import split_blocks
from grover_dist.model.bert import MaskedPredictor, bert_config, masked_lm, save_masked_lm
from grover_dist.model.size import flops_per_token, parameters
from grover_dist.pretrain.objective import MaskedLanguageModelling
from grover_dist.pretrain.warm_start import start_warm
from grover_dist.run_dir import Artifact, RunDir, Work
from grover_dist.training.engine import resolve_zero_stage, split_batch
from grover_dist.training.fit import micro_batch_that_fits
from grover_dist.training.gang_stage import once_in_gang
from grover_dist.training.loop import Plan, Result, train
from grover_dist.training.metrics import MetricsWriter
from grover_dist.training.plan import rank_peak_flops
from grover_dist.training.ranks import Ranks
from grover_dist.training.trackers import check_trackers, make_trackers

CHECKPOINTS, STABLE = "checkpoints", "stable"


def pretrain_candidate(
    config: Config,
    run: RunDir,
    corpus: Artifact,
    cycles: int,
    *,
    budget_bases: int,
    ranks: Ranks,
    say: Callable[[str], None] = print,
    continue_from: Artifact | None = None,
    stage: str = "pretrain",
    warm_from: Artifact | None = None,
) -> Artifact:
    """Pretrain the vocabulary of `cycles` merges on `budget_bases` bases and publish it. Collective; resumable.

    continue_from: the artefact of the same candidate with a smaller budget. Its state before the learning rate's decay is taken up, so
    that the bases it has seen count towards this budget.
    stage: another name for models that are no candidates.
    warm_from: the artefact of a smaller vocabulary whose weights this one starts with (see warm_start.py); the bases that those have seen
    do not count. Not together with continue_from, whose state has taken them up already.

    The artefact `pretrain/c<cycles>` holds `model/` (plain BertForMaskedLM with tokenizer), `metrics.jsonl`, and, where the
    budget is below `pretrain.budget_bases`, `stable/` for a longer run to continue from. Counts: steps, bases, tokens,
    parameters, and the last held-out figures (see MaskedLanguageModelling.evaluate).
    """
    name = f"c{cycles}" if stage == "pretrain" else f"{stage}-c{cycles}"
    settings = hashed_settings(config, cycles, budget_bases)
    warm_from = None if continue_from else warm_from
    inputs = {"learn": corpus} | ({"continued": continue_from} if continue_from else {}) | ({"warm": warm_from} if warm_from else {})

    def write(work: Work) -> None:
        opened = Corpus.open(corpus)
        windows = make_windows(
            opened.store, split_blocks(opened.store.contigs, config.split, config.seed), config.windows, cycles, config.seed
        )
        objective, micro_batch = candidate_objective(config, opened, windows, cycles, ranks)
        if warm_from is not None:
            start_warm(objective.model.bert_for_masked_lm, warm_from.file("model"), opened.vocabulary, cycles)
        run_hash = settings_hash([settings, sorted(inputs[key].digest for key in inputs)])
        draws = weighted_draws(opened.store.contigs, windows, config.pretrain.genome_weights)
        plan = candidate_plan(config, windows, cycles, budget_bases, micro_batch=micro_batch, draws=draws, run_hash=run_hash)
        check_trackers(config.tracking)
        peak, source = ranks.on_main(lambda: rank_peak_flops(config.tracking.peak_flops))
        plan = replace(plan, peak_flops=peak)
        if continue_from is not None:
            plan = plan.continuing(continue_from.counts["warmup_steps"])
        if ranks.is_main:
            say(
                f"pretrain {name}: {parameters(config.model, cycles + 9):,} parameters, {len(windows.train):,} training windows, "
                f"{plan.total_steps:,} steps of {plan.batch} windows on {ranks.world} rank{'s' if ranks.world > 1 else ''}, "
                f"at most {micro_batch} in a forward pass; MFU of {peak / 1e12:.2f} TFLOP/s a rank ({source})"
            )
        result = train(
            objective,
            ranks,
            plan,
            checkpoints=work.path / CHECKPOINTS,
            remote=work.remote / CHECKPOINTS if work.remote else None,
            continue_from=continue_from.file(STABLE) if continue_from else None,
            metrics=_metrics(config, run, work, name, plan, budget_bases) if ranks.is_main else None,
            say=say,
        )
        ranks.on_main(lambda: _finish(config, work, opened, cycles, plan, result))
        if ranks.is_main:
            say(f"pretrain {name}: {result.bases:,} bases, {result.evaluation['bits_per_base']:.4f} bits a base, {result.seconds:.0f} s")

    return once_in_gang(run, ranks, stage, name, write, settings=settings, inputs=inputs, resumable=True, say=say)


def hashed_settings(config: Config, cycles: int, budget_bases: int) -> dict[str, Any]:
    """What changes the result. Ranks, micro-batches and ZeRO stage change only rounding and which units dropout drops."""
    pretrain = config.pretrain
    return {
        "seed": config.seed,
        "cycles": cycles,
        "budget_bases": budget_bases,
        "windows": config.windows,
        "split": config.split,
        "model": config.model,
        "precision": config.engine.precision,
        "batch_windows": pretrain.batch_windows,
        "mask": pretrain.mask,
        "evaluate_mask": pretrain.held_out_mask,
        "reverse_complement": pretrain.reverse_complement,
        "soft_mask_weight": pretrain.soft_mask_weight,
        "genome_weights": pretrain.genome_weights,
        "optimizer": pretrain.optimizer,
        "evaluate_windows": pretrain.evaluate_windows,
    }


def candidate_objective(config: Config, corpus: Corpus, windows: Windows, cycles: int, ranks: Ranks) -> tuple[MaskedLanguageModelling, int]:
    """What is trained, and its micro-batch: the setting, or for `auto` what a probe finds. Collective."""
    batches = masked_batches(config, corpus, windows, cycles, ranks.world)
    objective = MaskedLanguageModelling(
        f"pretrain c{cycles}",
        MaskedPredictor(masked_lm(bert_config(config.model, cycles + 9), seed=config.seed)),
        batches,
        evaluate_windows=config.pretrain.evaluate_windows,
    )
    if config.pretrain.micro_batch_windows != "auto":
        return objective, config.pretrain.micro_batch_windows
    stage = resolve_zero_stage(config.engine, ranks.world)
    micro_batch = micro_batch_that_fits(objective, ranks, config, cycles + 9, zero_stage=stage)
    objective.use(replace(batches, micro_batch_windows=micro_batch))
    return objective, micro_batch


def weighted_draws(contigs: ContigTable, windows: Windows, weights: Mapping[str, float]) -> Draws | None:
    """How often each genome's training windows are drawn; None where all are drawn alike. UserError for a genome that is not there."""
    unknown = sorted(set(weights) - set(contigs.assemblies))
    if unknown:
        raise UserError(
            f"the corpus holds no genome '{unknown[0]}'",
            where="pretrain.genome_weights",
            expected=", ".join(contigs.assemblies),
            hint=f"nearest: {nearest(unknown[0], contigs.assemblies)}; genome.assemblies names the genome of each file",
        )
    found = [weights.get(name, 1.0) for name in contigs.assemblies]
    if all(weight == 1.0 for weight in found):
        return None
    return Draws.weighted(contigs.assembly_of(windows.train.row_start), found)


def candidate_plan(
    config: Config,
    windows: Windows,
    cycles: int,
    budget_bases: int,
    *,
    micro_batch: int | None = None,
    draws: Draws | None = None,
    run_hash: str = "",
) -> Plan:
    """Steps that show the budget's bases, to the nearest whole step, at the mean length of the windows as they are drawn."""
    pretrain = config.pretrain
    train = windows.train
    bases_per_step = (draws or Draws.uniform(len(train))).mean(train.row_stop - train.row_start) * pretrain.batch_windows
    return Plan(
        seed=config.seed,
        total_steps=max(1, round(budget_bases / bases_per_step)),
        batch=pretrain.batch_windows,
        micro_batch=micro_batch or pretrain.micro_batch_at_most,
        optimizer=pretrain.optimizer,
        engine=config.engine,
        log_every_steps=config.tracking.log_every_steps,
        evaluations=pretrain.evaluations,
        checkpoint_every_steps=pretrain.checkpoint_every_steps,
        keep_checkpoints=pretrain.keep_checkpoints,
        keep_stable=budget_bases < pretrain.budget_bases,
        rank_timeout_seconds=config.resources.rank_timeout_seconds,
        flops_per_token=flops_per_token(
            config.model,
            cycles + 9,
            length_tokens=_attended_tokens(windows),
            masked_fraction=pretrain.mask.fraction,
        ),
        hash=run_hash,
    )


def masked_batches(config: Config, corpus: Corpus, windows: Windows, cycles: int, world: int) -> MaskedBatches:
    """The candidate's batches. UserError where the ranks cannot share one."""
    pretrain = config.pretrain
    split = split_batch(pretrain.batch_windows, world, pretrain.micro_batch_at_most)
    return MaskedBatches(
        corpus,
        windows,
        cycles,
        config.seed,
        pretrain.batch_windows,
        split.micro_batch,
        pretrain.mask,
        reverse_complement=pretrain.reverse_complement,
        soft_mask_weight=pretrain.soft_mask_weight,
        packing=pretrain.packing,
        held_out_mask=pretrain.held_out_mask,
        draws=weighted_draws(corpus.store.contigs, windows, pretrain.genome_weights),
    )


def _metrics(config: Config, run: RunDir, work: Work, name: str, plan: Plan, budget_bases: int) -> MetricsWriter:
    key = work.path.name.strip(".").removesuffix(".partial")
    trackers = make_trackers(config.tracking, logs=run.logs, project=config.run.name, name=name, key=key)
    return MetricsWriter(
        work.file("metrics.jsonl"),
        run.logs / f"pretrain-{name}.jsonl",
        trackers=trackers,
        labels={"steps": plan.total_steps, "budget_bases": budget_bases},
    )


def _attended_tokens(windows: Windows) -> float:
    """How many tokens a token attends to, in the mean over tokens."""
    lengths = windows.train.n_tokens + 2.0
    return float((lengths**2).sum() / lengths.sum())


def _finish(config: Config, work: Work, corpus: Corpus, cycles: int, plan: Plan, result: Result) -> None:
    """Turn the folder of a run at work into what is published."""
    vocab_size = cycles + 9
    folder = work.path / "model"
    save_masked_lm(bert_config(config.model, vocab_size), MaskedPredictor.plain_weights(result.weights), folder)
    corpus.vocabulary.save_tokenizer(folder, cycles, max_length=config.model.positions)
    checkpoints: Path = work.path / CHECKPOINTS
    shutil.rmtree(work.path / STABLE, ignore_errors=True)
    for stable in checkpoints.glob("stable-????????"):
        stable.rename(work.path / STABLE)
    shutil.rmtree(checkpoints)
    work.counts |= {
        "cycles": cycles,
        "steps": result.steps,
        "warmup_steps": plan.schedule.warmup_steps,
        "bases": result.bases,
        "tokens": result.tokens,
        "parameters": parameters(config.model, vocab_size),
        "flops_per_token": plan.flops_per_token,
        **result.evaluation,
    }


def corpus_of(run: RunDir) -> Artifact:
    """The run's learned corpus. UserError where there is none."""
    corpus = run.latest("learn")
    if corpus is None:
        raise UserError("the run has no vocabulary yet", where=f"{run.address}/learn", hint="run `grover-dist learn CONFIG` first")
    return corpus
