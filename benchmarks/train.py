"""What the training loop costs on a CPU, beside a bare torch step and Hugging Face's Trainer, on the same windows, masks and model.

    python benchmarks/train.py [--layers 4 --hidden 256 --dropout 0.1 --steps 5 --rounds 5] [--ranks]

Contenders take turns, `--rounds` times; a ratio is the median of the rounds' own ratios, so that load which comes and goes falls on both
sides. One thread; CPU seconds of the process, and wall time beside them. `--ranks` adds two ranks of one thread against one rank of two,
which only wall time on an idle machine can tell. Trainer needs `accelerate`, which the product does not; without it its line is left out.
Ends with code 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

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

CYCLES, WARM_STEPS = 300, 1
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


class Timed(MaskedLanguageModelling):
    """Marks the clocks when a step begins. Nothing is evaluated."""

    def __init__(self, config: Config, batches: MaskedBatches) -> None:
        model = MaskedPredictor(masked_lm(bert_config(config.model, CYCLES + 9), seed=1))
        super().__init__("benchmark", model, batches, evaluate_windows=1)
        self.marks: list[tuple[int, float, float]] = []

    def loss(self, model, batch, device):
        self.marks.append((batch.n_tokens, time.process_time(), time.perf_counter()))
        return super().loss(model, batch, device)

    def evaluate(self, model, ranks):
        return {}


class Spent(NamedTuple):
    """Seconds a token."""

    cpu: float
    wall: float


def seconds_a_token(marks: list[tuple[int, float, float]], micro_batches: int) -> Spent:
    """From the first mark after the warm-up to the last; the tokens of the last mark are not yet paid for."""
    kept = marks[WARM_STEPS * micro_batches :]
    tokens = sum(mark[0] for mark in kept[:-1])
    return Spent(*((kept[-1][clock] - kept[0][clock]) / tokens for clock in (1, 2)))


def the_loop(config: Config, batches: MaskedBatches, ranks: Ranks, steps: int, stage: int | str = "auto") -> Spent:
    objective = Timed(config, batches)
    plan = Plan(
        seed=1, total_steps=steps, batch=config.pretrain.batch_windows, micro_batch=config.pretrain.micro_batch_windows,
        optimizer=OPTIMIZER, engine=EngineSettings(zero_stage=stage),
    )  # fmt: skip
    train(objective, ranks, plan, say=lambda line: None)
    return seconds_a_token(objective.marks, len(objective.marks) // steps)


def the_engine(config: Config, batches: MaskedBatches, ranks: Ranks, steps: int) -> Spent:
    """DeepSpeed at stage 0 without the loop, on batches that are ready."""
    ready = [batches.step(step) for step in range(steps)]
    objective = Timed(config, batches)
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
    return seconds_a_token(objective.marks, len(ready[0]))


def bare_torch(config: Config, batches: MaskedBatches, steps: int) -> Spent:
    """The least that can be written: forward, backward, clip, step, on batches that are ready."""
    ready = [batches.step(step) for step in range(steps)]
    objective = Timed(config, batches)
    optimizer = adamw(objective.model, OPTIMIZER)
    for micro_batches in ready:
        targets = sum(len(batch.labels) for batch in micro_batches)
        for batch in micro_batches:
            (objective.loss(objective.model, batch, torch.device("cpu")) / targets).backward()
        torch.nn.utils.clip_grad_norm_(objective.model.parameters(), OPTIMIZER.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
    return seconds_a_token(objective.marks, len(ready[0]))


def hugging_face_trainer(config: Config, batches: MaskedBatches, steps: int) -> Spent | None:
    """Trainer as its users write it: one sample a window, padded batch by batch, logits everywhere, labels -100 where nothing is masked."""
    try:
        from transformers import Trainer, TrainerCallback, TrainingArguments

        class Marks(TrainerCallback):
            def __init__(self) -> None:
                self.at: list[tuple[float, float]] = []

            def on_step_begin(self, *_, **__):
                self.at.append((time.process_time(), time.perf_counter()))

        arguments = TrainingArguments(
            output_dir=tempfile.mkdtemp(), max_steps=steps, per_device_train_batch_size=config.pretrain.micro_batch_windows,
            gradient_accumulation_steps=config.pretrain.batch_windows // config.pretrain.micro_batch_windows, report_to=[],
            save_strategy="no", logging_strategy="no", disable_tqdm=True, use_cpu=True, learning_rate=OPTIMIZER.learning_rate,
        )  # fmt: skip
    except ImportError:
        return None
    windows, tokens = [], []
    for step in range(steps):
        micro_batches = replace(batches, packing=False).step(step)
        tokens.append(sum(batch.n_tokens for batch in micro_batches))
        for batch in micro_batches:
            labels = torch.full(batch.input_ids.shape, -100).flatten()
            labels[torch.from_numpy(batch.masked_index)] = torch.from_numpy(batch.labels)
            for ids, mask, row in zip(batch.input_ids, batch.attention_mask, labels.view(batch.input_ids.shape), strict=True):
                length = int(mask.sum())
                windows.append({"input_ids": torch.from_numpy(ids[:length]), "labels": row[:length]})

    def collate(samples):
        width = max(len(sample["input_ids"]) for sample in samples)
        padded = {"input_ids": torch.zeros(len(samples), width, dtype=torch.long), "labels": torch.full((len(samples), width), -100)}
        for line, sample in enumerate(samples):
            for name, value in sample.items():
                padded[name][line, : len(value)] = value
        return {**padded, "attention_mask": (padded["input_ids"] != 0).long()}

    marks = Marks()
    model = masked_lm(bert_config(config.model, CYCLES + 9), seed=1)
    Trainer(model=model, args=arguments, train_dataset=windows, data_collator=collate, callbacks=[marks]).train()
    kept = marks.at[WARM_STEPS:]
    # Trainer shuffles, so its steps hold the mean number of tokens, not those of ours.
    shown = sum(tokens) / steps * (len(kept) - 1)
    return Spent(*((last - first) / shown for first, last in zip(kept[0], kept[-1], strict=True)))


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


class TrainerProcess:
    """Trainer in a process without our process group, around which it would wrap the model. One line in, one measurement out."""

    def __init__(self, folder: Path) -> None:
        environment = {**{name: value for name, value in os.environ.items() if name != "LOCAL_RANK"}, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, __file__, *sys.argv[1:], "--worker", str(folder), "trainer"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(command, env=environment, text=True, **pipes)

    def __call__(self) -> Spent | None:
        print("go", file=self._process.stdin, flush=True)
        for line in self._process.stdout:
            if line.startswith(RESULT):
                found = json.loads(line.removeprefix(RESULT))
                return found and Spent(*found)
        raise RuntimeError("the process of Trainer has ended")

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def in_ranks(folder: Path, world: int, threads: int) -> float:
    """Wall seconds a token of `world` ranks of `threads` threads."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={world}", __file__, *sys.argv[1:]]
    done = subprocess.run([*command, "--worker", str(folder), str(threads)], capture_output=True, text=True, check=True)
    return json.loads(next(line for line in done.stdout.splitlines() if line.startswith(RESULT)).removeprefix(RESULT))


def worker(given: argparse.Namespace) -> None:
    folder, threads = given.worker
    config = settings(given, Path(folder))
    if threads == "trainer":
        torch.set_num_threads(1)
        batches = batches_of(config, 1)
        for _ in sys.stdin:
            print(RESULT + json.dumps(hugging_face_trainer(config, batches, given.steps)), flush=True)
        return
    ranks = Ranks.join(threads=int(threads))
    batches = batches_of(config, ranks.world)
    best = min(the_loop(config, batches, ranks, given.steps).wall for _ in range(2))
    if ranks.is_main:
        print(RESULT + json.dumps(best / ranks.world), flush=True)  # a rank's marks count its own share of the tokens
    Ranks.end_process()


def median_ratio(rounds: dict[str, list[Spent]], of: str, over: str) -> float:
    """CPU time of `of` over that of `over`, round by round."""
    return statistics.median(one.cpu / other.cpu for one, other in zip(rounds[of], rounds[over], strict=True))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("layers", 4), ("hidden", 256), ("batch", 8), ("micro-batch", 4), ("steps", 5), ("rounds", 5)):
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
        ranks, batches, trainer = Ranks.join(), batches_of(config, 1), TrainerProcess(run)
        contenders = {
            BARE: lambda: bare_torch(config, batches, given.steps),
            ENGINE: lambda: the_engine(config, batches, ranks, given.steps),
            LOOP: lambda: the_loop(config, batches, ranks, given.steps),
            PADDED: lambda: the_loop(config, replace(batches, packing=False), ranks, given.steps),
            "the loop, ZeRO 1": lambda: the_loop(config, batches, ranks, given.steps, stage=1),
            TRAINER: trainer,
        }
        rounds: dict[str, list[Spent]] = {name: [] for name in contenders}
        for number in range(given.rounds):
            turns = list(contenders.items())
            for name, contender in turns if number % 2 == 0 else turns[::-1]:
                rounds[name].append(contender())
        trainer.close()
        rounds = {name: found for name, found in rounds.items() if all(found)}
        print(f"BERT {given.layers} x {given.hidden}, dropout {given.dropout}, {given.batch} windows a step, one thread")
        print(f"{'contender':28}{'tokens/CPU second':>20}{'tokens/second':>16}{'of bare torch':>16}")
        for name, found in rounds.items():
            cpu, wall = (statistics.median(column) for column in zip(*found, strict=True))
            print(f"{name:28}{1 / cpu:20,.0f}{1 / wall:16,.0f}{1 / median_ratio(rounds, name, BARE):16.3f}")
        bars = [("ZeRO 0 engine over a bare torch step", median_ratio(rounds, ENGINE, BARE), "<=", 1.08)]
        bars += [("the loop over a bare torch step", median_ratio(rounds, LOOP, BARE), "<=", 1.03)]
        if TRAINER in rounds:
            bars += [("the loop's speed over Trainer's", median_ratio(rounds, TRAINER, LOOP), ">=", 1.2)]
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
