"""What the training loop costs on a CPU, beside a bare torch step and Hugging Face's Trainer, on the same windows, masks and model.

    python benchmarks/train.py [--layers 4 --hidden 256 --dropout 0.1 --steps 16] [--ranks]

Contenders take turns step by step, each on the same batches, so that load which comes and goes falls on all; a speed is the median over
the steps' own ratios. One thread; CPU seconds of the process, and wall time beside them.

A shared machine moves such ratios by several percent from step to step, more than a loop may cost. What a step costs around the work that
no training can do without is therefore measured inside the step: all CPU seconds of the process (the loader's thread too) over those in the
model's forward pass, the loss, autograd, the gradient's norm and clipping, and AdamW; a bare torch step is measured in the same way, and
the bars compare the two.

`--ranks` adds two ranks of one thread against one rank of two, which only wall time on an idle machine can tell. Trainer needs
`accelerate`, which the product does not; without it its line is left out. Ends with code 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from turns import INSIDE, Spent, Stopwatch, clocks, in_turns  # beside this script

from grover_dist.config import Config, EngineSettings, OptimizerSettings, config_from
from grover_dist.corpus.batches import MaskedBatches
from grover_dist.corpus.build import build_corpus
from grover_dist.corpus.corpus import Corpus
from grover_dist.corpus.windows import make_windows
from grover_dist.genome.split import split_blocks
from grover_dist.genome.stage import build_genome
from grover_dist.model.bert import MaskedPredictor, bert_config, masked_lm
from grover_dist.pretrain.candidate import masked_batches
from grover_dist.pretrain.objective import MaskedLanguageModelling
from grover_dist.run_dir import RunDir
from grover_dist.training.engine import Engine, adamw, split_batch
from grover_dist.training.loop import Plan, train
from grover_dist.training.ranks import Ranks

CYCLES, WARM_STEPS = 300, 2
RESULT = "result: "
BARE, ENGINE, LOOP = "bare torch step", "DeepSpeed engine, ZeRO 0", "the loop, ZeRO auto (0)"
PADDED, TRAINER = "the loop, padded", "Hugging Face Trainer"
OPTIMIZER = OptimizerSettings()


def settings(given: argparse.Namespace, folder: Path) -> Config:
    model = {"layers": given.layers, "heads": 4, "hidden": given.hidden, "feed_forward": 4 * given.hidden, "dropout": given.dropout}
    return config_from(
        {
            "run": {"dir": str(folder)},
            "genome": {"synthetic": {"length_bp": 1_000_000, "promoters": 50, "ctcf_sites": 50}},
            "bpe": {"cycles": CYCLES},
            "split": {"block_bp": 50_000},
            "model": model,
            "pretrain": {"candidates": [CYCLES], "batch_windows": given.batch, "micro_batch_windows": given.micro_batch},
        }
    )


def watch_what_is_needed() -> None:
    for owner, name in (
        (MaskedPredictor, "forward"),
        (torch.nn.functional, "cross_entropy"),
        (torch.Tensor, "backward"),
        (torch.nn.utils, "get_total_norm"),
        (torch.nn.utils, "clip_grads_with_norm_"),
        (torch.optim.AdamW, "step"),
    ):
        INSIDE.watch(owner, name)


class Timed(MaskedLanguageModelling):
    """Tells a stopwatch when a step begins. Nothing is evaluated."""

    def __init__(self, config: Config, batches: MaskedBatches, watch: Stopwatch, world: int = 1) -> None:
        model = MaskedPredictor(masked_lm(bert_config(config.model, CYCLES + 9), seed=1))
        super().__init__("benchmark", model, batches, evaluate_windows=1)
        pretrain = config.pretrain
        self._passes = split_batch(pretrain.batch_windows, world, pretrain.micro_batch_at_most).accumulation
        self._watch, self._passed = watch, 0

    def loss(self, model, batch, device):
        if self._passed % self._passes == 0:
            self._watch.step_begins()
        self._passed += 1
        return super().loss(model, batch, device)

    def evaluate(self, model, ranks):
        return {}


def the_loop(config: Config, batches: MaskedBatches, ranks: Ranks, steps: int, watch: Stopwatch, stage: int | str = "auto") -> None:
    plan = Plan(
        seed=1, total_steps=steps, batch=config.pretrain.batch_windows, micro_batch=config.pretrain.micro_batch_windows,
        optimizer=OPTIMIZER, engine=EngineSettings(zero_stage=stage),
    )  # fmt: skip
    train(Timed(config, batches, watch, ranks.world), ranks, plan, say=lambda line: None)


def the_engine(config: Config, batches: MaskedBatches, ranks: Ranks, steps: int, watch: Stopwatch) -> None:
    """DeepSpeed at stage 0 without the loop, on batches that are ready."""
    ready = [batches.step(step) for step in range(steps)]
    objective = Timed(config, batches, watch)
    split = split_batch(config.pretrain.batch_windows, 1, config.pretrain.micro_batch_windows)
    engine = Engine(objective.model, ranks, settings=EngineSettings(), optimizer=OPTIMIZER, split=split, zero_stage=0, seed=1)
    for micro_batches in ready:
        targets = sum(len(batch.labels) for batch in micro_batches)
        for index, batch in enumerate(micro_batches):
            engine.backward(objective.loss(engine, batch, ranks.device), targets)
            if index + 1 < len(micro_batches):
                engine.accumulate()
        engine.step(OPTIMIZER.learning_rate)
    engine.close()


def bare_torch(config: Config, batches: MaskedBatches, steps: int, watch: Stopwatch) -> None:
    """The least that can be written: forward, backward, clip, step, on batches that are ready."""
    ready = [batches.step(step) for step in range(steps)]
    objective = Timed(config, batches, watch)
    optimizer = adamw(objective.model, OPTIMIZER)
    for micro_batches in ready:
        targets = sum(len(batch.labels) for batch in micro_batches)
        for batch in micro_batches:
            (objective.loss(objective.model, batch, torch.device("cpu")) / targets).backward()
        parameters = list(objective.model.parameters())
        norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in parameters])
        torch.nn.utils.clip_grads_with_norm_(parameters, OPTIMIZER.clip_norm, norm)
        optimizer.step()
        optimizer.zero_grad()


def hugging_face_trainer(config: Config, batches: MaskedBatches, steps: int) -> None:
    """Trainer as its users write it: one sample a window, in random order, padded batch by batch, logits everywhere, labels -100 where
    nothing is masked. A step holds the windows of ours. Each step waits for a line of the standard input and is answered with its cost.
    """
    from transformers import Trainer, TrainerCallback, TrainingArguments

    class OnDemand(TrainerCallback):
        began = None

        def on_step_begin(self, *_, **__):
            if self.began is not None:
                print(RESULT + json.dumps([now - then for now, then in zip(clocks(), self.began, strict=True)]), flush=True)
            if not sys.stdin.readline():
                os._exit(0)
            self.began = clocks()

    windows, shuffle = [], np.random.default_rng(1)
    for step in range(steps):
        of_step = []
        for batch in replace(batches, packing=False).step(step):
            labels = torch.full(batch.input_ids.shape, -100).flatten()
            labels[torch.from_numpy(batch.masked_index)] = torch.from_numpy(batch.labels)
            for ids, mask, row in zip(batch.input_ids, batch.attention_mask, labels.view(batch.input_ids.shape), strict=True):
                length = int(mask.sum())
                of_step.append({"input_ids": torch.from_numpy(ids[:length]), "labels": row[:length]})
        windows += [of_step[place] for place in shuffle.permutation(len(of_step))]

    class InOrder(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(windows)

    def collate(samples):
        width = max(len(sample["input_ids"]) for sample in samples)
        padded = {"input_ids": torch.zeros(len(samples), width, dtype=torch.long), "labels": torch.full((len(samples), width), -100)}
        for line, sample in enumerate(samples):
            for name, value in sample.items():
                padded[name][line, : len(value)] = value
        return {**padded, "attention_mask": (padded["input_ids"] != 0).long()}

    arguments = TrainingArguments(
        output_dir=tempfile.mkdtemp(), max_steps=steps, per_device_train_batch_size=config.pretrain.micro_batch_windows,
        gradient_accumulation_steps=config.pretrain.batch_windows // config.pretrain.micro_batch_windows, report_to=[],
        save_strategy="no", logging_strategy="no", disable_tqdm=True, use_cpu=True, learning_rate=OPTIMIZER.learning_rate,
    )  # fmt: skip
    model = masked_lm(bert_config(config.model, CYCLES + 9), seed=1)
    Trainer(model=model, args=arguments, train_dataset=InOrder(), data_collator=collate, callbacks=[OnDemand()]).train()


def prepare(given: argparse.Namespace, folder: Path) -> Config:
    config = settings(given, folder)
    run = RunDir.open(config)
    build_corpus(config, run, build_genome(config, run, say=lambda line: None), say=lambda line: None)
    return config


def batches_of(config: Config, world: int) -> MaskedBatches:
    artifact = RunDir.existing(config.run.dir).latest("learn")
    corpus = Corpus.open(artifact)
    split = split_blocks(corpus.store.contigs, config.split, config.seed)
    return masked_batches(config, corpus, make_windows(corpus.store, split, config.windows, CYCLES, config.seed), CYCLES, world)


def in_own_process(folder: Path, steps: int, watch: Stopwatch) -> None:
    """Trainer in a process without our process group, around which it would wrap the model."""
    environment = {**{name: value for name, value in os.environ.items() if name != "LOCAL_RANK"}, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, *sys.argv[1:], "--worker", str(folder), "trainer"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=environment, text=True, **pipes) as process:
        for _ in range(steps - 1):
            watch.wait_for_turn()
            print("go", file=process.stdin, flush=True)
            answer = next((line for line in process.stdout if line.startswith(RESULT)), None)
            if answer is None:
                raise RuntimeError("the process of Trainer has ended")
            watch.steps.append(Spent(*json.loads(answer.removeprefix(RESULT))))
        process.stdin.close()


def in_ranks(folder: Path, world: int, threads: int) -> float:
    """Wall seconds a step of `world` ranks of `threads` threads."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={world}", __file__, *sys.argv[1:]]
    done = subprocess.run([*command, "--worker", str(folder), str(threads)], capture_output=True, text=True, check=True)
    return json.loads(next(line for line in done.stdout.splitlines() if line.startswith(RESULT)).removeprefix(RESULT))


def worker(given: argparse.Namespace) -> None:
    folder, threads = given.worker
    config = settings(given, Path(folder))
    if threads == "trainer":
        torch.set_num_threads(1)
        hugging_face_trainer(config, batches_of(config, 1), given.steps)
        return
    ranks, watch = Ranks.join(threads=int(threads)), Stopwatch()
    the_loop(config, batches_of(config, ranks.world), ranks, given.steps, watch)
    if ranks.is_main:
        print(RESULT + json.dumps(statistics.median(step.wall for step in watch.steps[WARM_STEPS:])), flush=True)
    Ranks.end_process()


def around(steps: list[Spent]) -> float:
    """All CPU seconds over those of what is needed, the median over steps."""
    return statistics.median(step.cpu / step.inside for step in steps)


def quartiles(steps: dict[str, list[Spent]], of: str, over: str) -> list[float]:
    """Of CPU time of `of` over that of `over`, step by step."""
    return statistics.quantiles([one.cpu / other.cpu for one, other in zip(steps[of], steps[over], strict=True)], n=4)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("layers", 4), ("hidden", 256), ("batch", 8), ("micro-batch", 4), ("steps", 16)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--ranks", action="store_true", help="measure two ranks against two threads as well")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        worker(given)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        config = prepare(given, run)
        ranks, batches, count = Ranks.join(), batches_of(config, 1), given.steps
        contenders = {
            BARE: lambda watch: bare_torch(config, batches, count, watch),
            ENGINE: lambda watch: the_engine(config, batches, ranks, count, watch),
            LOOP: lambda watch: the_loop(config, batches, ranks, count, watch),
            PADDED: lambda watch: the_loop(config, replace(batches, packing=False), ranks, count, watch),
            "the loop, ZeRO 1": lambda watch: the_loop(config, batches, ranks, count, watch, stage=1),
        }
        if find_spec("accelerate"):
            contenders[TRAINER] = lambda watch: in_own_process(run, count, watch)
        watch_what_is_needed()
        steps = in_turns(contenders, skip=WARM_STEPS)
        tokens = statistics.mean(sum(batch.n_tokens for batch in batches.step(step)) for step in range(WARM_STEPS, count - 1))
        print(
            f"BERT {given.layers} x {given.hidden}, dropout {given.dropout}, {given.batch} windows a step, one thread, {count} steps each"
        )
        print(f"{'contender':28}{'tokens/CPU second':>20}{'tokens/second':>16}{'speed over bare torch (quartiles)':>38}{'around':>10}")
        for name, found in steps.items():
            cpu, wall, _ = (statistics.mean(column) for column in zip(*found, strict=True))
            more = f"{around(found) - 1:10.2%}" if all(step.inside for step in found) else ""
            low, middle, high = quartiles(steps, BARE, name)
            print(f"{name:28}{tokens / cpu:20,.0f}{tokens / wall:16,.0f}{middle:20.3f} ({low:.3f} to {high:.3f}){more}")
        bars = [("ZeRO 0 engine over a bare torch step", around(steps[ENGINE]) / around(steps[BARE]), "<=", 1.08)]
        bars += [("the loop over a bare torch step", around(steps[LOOP]) / around(steps[BARE]), "<=", 1.03)]
        if TRAINER in steps:
            bars += [("the loop's speed over Trainer's", quartiles(steps, TRAINER, LOOP)[1], ">=", 1.2)]
        if given.ranks:
            alternate = [(in_ranks(run, 1, 2), in_ranks(run, 2, 1)) for _ in range(2)]
            bars += [("2 ranks of 1 thread over 1 of 2, wall", statistics.median(one / two for one, two in alternate), ">=", 0.9)]
        missed = 0
        for words, value, sign, bar in bars:
            met = value <= bar if sign == "<=" else value >= bar
            missed += not met
            print(f"{words:44}{value:8.3f}   {sign} {bar}: {'met' if met else 'MISSED'}")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
