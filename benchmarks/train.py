"""What the training loop costs on a CPU, beside a bare torch step and Hugging Face's Trainer, on the same windows, masks and model.

    python benchmarks/train.py [--layers 4 --hidden 256 --dropout 0.1 --steps 5 --rounds 2 --ranks]

Contenders take turns, `--rounds` times; the best round of each counts. One thread, seconds of CPU time of the process (other load on the
machine hardly moves them); the last two lines, two ranks against two threads, need wall time and an idle machine. Trainer needs
`accelerate`, which the product does not; its line is left out where it is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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
from grover_dist.training.engine import adamw
from grover_dist.training.loop import Plan, train
from grover_dist.training.ranks import Ranks

CYCLES, WARM_STEPS = 300, 1
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


def seconds_a_token(marks: list[tuple[int, float, float]], micro_batches: int, clock: int = 1) -> float:
    """From the first mark after the warm-up to the last; the tokens of the last mark are not yet paid for."""
    kept = marks[WARM_STEPS * micro_batches :]
    return (kept[-1][clock] - kept[0][clock]) / sum(mark[0] for mark in kept[:-1])


def engine_loop(config: Config, batches: MaskedBatches, ranks: Ranks, steps: int, stage: int | str = "auto", clock: int = 1) -> float:
    objective = Timed(config, batches)
    plan = Plan(
        seed=1, total_steps=steps, batch=config.pretrain.batch_windows, micro_batch=config.pretrain.micro_batch_windows,
        optimizer=OPTIMIZER, engine=EngineSettings(zero_stage=stage),
    )  # fmt: skip
    train(objective, ranks, plan, say=lambda line: None)
    return seconds_a_token(objective.marks, len(objective.marks) // steps, clock)


def bare_torch(config: Config, batches: MaskedBatches, steps: int) -> float:
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


def hugging_face_trainer(config: Config, batches: MaskedBatches, steps: int) -> float | None:
    """Trainer as its users write it: one sample a window, padded batch by batch, logits everywhere, labels -100 where nothing is masked."""
    try:
        from transformers import Trainer, TrainerCallback, TrainingArguments

        class Marks(TrainerCallback):
            def __init__(self) -> None:
                self.at: list[float] = []

            def on_step_begin(self, *_, **__):
                self.at.append(time.process_time())

        arguments = TrainingArguments(
            output_dir=tempfile.mkdtemp(), max_steps=steps, per_device_train_batch_size=config.pretrain.micro_batch_windows,
            gradient_accumulation_steps=config.pretrain.batch_windows // config.pretrain.micro_batch_windows, report_to=[],
            save_strategy="no", logging_strategy="no", disable_tqdm=True, use_cpu=True, learning_rate=OPTIMIZER.learning_rate,
        )  # fmt: skip
    except ImportError:
        return None
    windows, tokens = [], []
    for step in range(steps):
        micro_batches = batches.step(step)
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
    return (kept[-1] - kept[0]) / (sum(tokens) / steps * (len(kept) - 1))


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


def in_own_process(folder: Path) -> float | None:
    """Trainer without our process group, around which it would wrap the model."""
    environment = {**{name: value for name, value in os.environ.items() if name != "LOCAL_RANK"}, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, *sys.argv[1:], "--worker", str(folder), "trainer"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def in_ranks(folder: Path, world: int, threads: int) -> float:
    """Tokens a second, wall time, of `world` ranks of `threads` threads."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={world}", __file__, *sys.argv[1:]]
    done = subprocess.run([*command, "--worker", str(folder), str(threads)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def worker(given: argparse.Namespace) -> None:
    folder, threads = given.worker
    if threads == "trainer":
        torch.set_num_threads(1)
        config = settings(given, Path(folder))
        print(json.dumps(hugging_face_trainer(config, batches_of(config, 1), given.steps)))
        return
    ranks = Ranks.join(threads=int(threads))
    config = settings(given, Path(folder))
    batches = batches_of(config, ranks.world)
    best = min(engine_loop(config, batches, ranks, given.steps, clock=2) for _ in range(given.rounds))
    if ranks.is_main:
        print(json.dumps(ranks.world / best))  # a rank's marks count its own share of the tokens
    Ranks.leave()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("layers", 4), ("hidden", 256), ("batch", 8), ("micro-batch", 4), ("steps", 5), ("rounds", 2)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--ranks", action="store_true", help="measure two ranks against two threads as well")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        worker(given)
        return
    with tempfile.TemporaryDirectory() as folder:
        config = prepare(given, Path(folder) / "run")
        ranks, batches = Ranks.join(), batches_of(config, 1)
        contenders = {
            "bare torch step": lambda: bare_torch(config, batches, given.steps),
            "the loop, ZeRO auto (0)": lambda: engine_loop(config, batches, ranks, given.steps),
            "the loop, ZeRO 1": lambda: engine_loop(config, batches, ranks, given.steps, stage=1),
            "Hugging Face Trainer": lambda: in_own_process(Path(folder) / "run"),
        }
        best: dict[str, float] = {}
        for _ in range(given.rounds):
            for name, contender in contenders.items():
                seconds = contender()
                if seconds is not None:
                    best[name] = min(seconds, best.get(name, seconds))
        print(f"BERT {given.layers} x {given.hidden}, dropout {given.dropout}, {given.batch} windows a step, one thread")
        print(f"{'contender':28}{'tokens/CPU second':>20}{'of bare torch':>16}")
        for name, seconds in best.items():
            print(f"{name:28}{1 / seconds:20,.0f}{best['bare torch step'] / seconds:16.3f}")
        if given.ranks:
            one, two = in_ranks(Path(folder) / "run", 1, 2), in_ranks(Path(folder) / "run", 2, 1)
            print(f"{'1 rank of 2 threads':28}{one:20,.0f} tokens/s\n{'2 ranks of 1 thread':28}{two:20,.0f} tokens/s{two / one:16.3f}")


if __name__ == "__main__":
    main()
