"""Training speed of the paper's BERT-base on one GPU: tokens/s, MFU, memory, and where the time of a step goes.

    PYTHONPATH=. python benchmarks/train_gpu.py [--windows 64 --micro-batch 64 --steps 20] [--only packed]
    PYTHONPATH=. python benchmarks/train_gpu.py --layers 2 --hidden 32 --windows 4 --micro-batch 2 --steps 2   (anywhere: that it runs)

Needs torch, transformers and deepspeed, and no corpus: windows are random tokens, either all full or as the paper draws them (half full,
half of 20 to 510 tokens). Rows of "the loop" go through the product's own loop, with its loader thread, and time that alone; beside the
memory stands what `grover-dist plan` reckons. MFU = tokens/s x flops_per_token (model/size.py: matrix products of forward and backward,
nothing recomputed, attention over a window's own tokens) over the rate of a large bf16 matrix product measured here, and over the maker's
peak where it is known. On a GPU loader, forward, backward and optimizer are timed by events on the device, which is waited for once, at
the end.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch.nn import functional

from grover_dist.config import EngineSettings, ModelSettings, OptimizerSettings
from grover_dist.errors import UserError
from grover_dist.model.bert import MaskedPredictor, bert_config, masked_lm
from grover_dist.model.device import to_device
from grover_dist.model.packing import WindowEdges
from grover_dist.model.size import flops_per_token
from grover_dist.training.engine import BatchSplit, Engine, split_batch
from grover_dist.training.loop import BatchSize, Plan, train
from grover_dist.training.metrics import MetricsWriter, peak_memory_bytes
from grover_dist.training.plan import GPU_PEAK_FLOPS, measured_matmul_rate, rank_memory
from grover_dist.training.ranks import Ranks

VOCABULARY, WINDOW, MASKED = 609, 510, 0.15
PHASES = ("loader", "forward", "backward", "optimizer")
WARM_STEPS = 5


@dataclass(frozen=True)
class Variant:
    name: str
    stage: int = 0
    precision: str = "bf16"
    attention: str | None = None  # None: SDPA, which takes flash kernels where it can
    dropout: float = 0.1
    compiled: bool = False
    checkpointing: bool = False
    fused: bool = True
    lengths: str = "full"  # or "mixed", as the paper draws them
    packed: bool = False
    loop: bool = False


VARIANTS = (
    Variant("bf16, ZeRO 0"),
    Variant("fp32", precision="fp32"),
    Variant("no dropout", dropout=0.0),
    Variant("compiled", compiled=True),
    Variant("compiled, no dropout", compiled=True, dropout=0.0),
    Variant("eager attention (no flash)", attention="eager"),
    Variant("activation checkpointing", checkpointing=True),
    Variant("AdamW not fused", fused=False),
    Variant("full windows, packed", packed=True),
    Variant("mixed lengths, padded", lengths="mixed"),
    Variant("mixed lengths, packed", lengths="mixed", packed=True),
    Variant("mixed lengths, packed, no dropout", lengths="mixed", packed=True, dropout=0.0),
    Variant("mixed lengths, packed, compiled", lengths="mixed", packed=True, compiled=True),
    Variant("the loop, mixed lengths, packed", lengths="mixed", packed=True, loop=True),
    Variant("the loop, mixed lengths, packed, compiled", lengths="mixed", packed=True, compiled=True, loop=True),
    Variant("ZeRO 1", stage=1),
    Variant("ZeRO 2", stage=2),
    Variant("ZeRO 3", stage=3),
)


@dataclass(frozen=True)
class Batch:
    """lengths: of each window, with [CLS] and [SEP]. mask: None where nothing is padded."""

    ids: torch.Tensor
    mask: torch.Tensor | None
    masked_index: torch.Tensor
    labels: torch.Tensor
    lengths: np.ndarray
    packed: bool

    def logits(self, model, device: torch.device) -> torch.Tensor:
        ids, index = to_device(self.ids, device), to_device(self.masked_index, device)
        if self.packed:
            return model(ids, None, index, WindowEdges(self.lengths.tolist(), device))
        return model(ids, None if self.mask is None else to_device(self.mask, device), index)


def make_batch(random: np.random.Generator, windows: int, variant: Variant) -> Batch:
    """Random tokens; sorted by length, as the product's batches are."""
    lengths = np.full(windows, WINDOW)
    if variant.lengths == "mixed":
        lengths = np.sort(np.where(random.random(windows) < 0.5, WINDOW, random.integers(20, WINDOW + 1, windows)))[::-1]
    lengths = lengths + 2
    if variant.packed:
        ids, mask = random.integers(5, VOCABULARY, (1, int(lengths.sum()))), None
        inside = np.ones(ids.shape, bool)
    else:
        ids = random.integers(5, VOCABULARY, (windows, int(lengths.max())))
        inside = np.arange(ids.shape[1]) < lengths[:, None]
        ids[~inside] = 0
        mask = None if inside.all() else torch.from_numpy(inside.astype(np.int64))
    index = np.flatnonzero((random.random(ids.shape) < MASKED) & inside)
    return Batch(torch.from_numpy(ids), mask, torch.from_numpy(index), torch.from_numpy(ids.ravel()[index]), lengths, variant.packed)


class Clock:
    """Moments on the device: CUDA events, or the host's clock where there is no GPU."""

    def __init__(self) -> None:
        self._moments: list[tuple[str, object]] = []

    def mark(self, phase: str) -> None:
        if torch.cuda.is_available():
            moment = torch.cuda.Event(enable_timing=True)
            moment.record()
        else:
            moment = time.perf_counter()
        self._moments.append((phase, moment))

    def seconds(self) -> dict[str, float]:
        """By phase: the time from the mark before to each of its marks."""
        spent = dict.fromkeys(PHASES, 0.0)
        for (_, before), (phase, after) in pairwise(self._moments):
            if phase in spent:
                spent[phase] += before.elapsed_time(after) / 1_000 if torch.cuda.is_available() else after - before
        return spent


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class RandomWindows:
    """What the loop trains on (an `Objective`, see training.loop): masked tokens of random windows."""

    name = "benchmark"

    def __init__(self, model: MaskedPredictor, variant: Variant, split: BatchSplit) -> None:
        self.model, self.variant, self.split = model, variant, split
        self.lengths: list[np.ndarray] = []

    def batches(self, step: int, rank: int, world: int) -> list[Batch]:
        random = np.random.default_rng(step)
        return [make_batch(random, self.split.micro_batch, self.variant) for _ in range(self.split.accumulation)]

    def size(self, batch: Batch) -> BatchSize:
        self.lengths.append(batch.lengths)
        tokens = int(batch.lengths.sum()) - 2 * len(batch.lengths)
        return BatchSize(len(batch.labels), tokens, 4 * tokens, batch.ids.numel(), batch.ids.numel() - int(batch.lengths.sum()))

    def loss(self, model, batch: Batch, device: torch.device) -> torch.Tensor:
        logits = batch.logits(model, device).float()
        return functional.cross_entropy(logits, to_device(batch.labels, device), reduction="sum")

    def evaluate(self, model, ranks: Ranks) -> dict[str, float]:
        return {}


class Lines:
    """Keeps what a training run tells (a `Tracker`, see training.trackers)."""

    def __init__(self) -> None:
        self.kept: list[dict[str, float]] = []

    def begin(self, first_step: int) -> None: ...

    def write(self, step: int, values) -> None:
        if "tokens_per_second" in values:
            self.kept.append(dict(values))

    def close(self) -> None: ...


def through_the_loop(objective: RandomWindows, ranks: Ranks, settings: EngineSettings, variant: Variant, given) -> dict[str, float]:
    """Tokens/s of the loop's own lines, and the share of time that it waited for its loader; the first line warms up."""
    lines = Lines()
    plan = Plan(
        seed=1, total_steps=WARM_STEPS * (1 + max(1, given.steps // WARM_STEPS)), batch=given.windows, micro_batch=given.micro_batch,
        engine=settings, log_every_steps=WARM_STEPS,
    )  # fmt: skip
    train(objective, ranks, plan, metrics=MetricsWriter(trackers=[lines]), say=lambda line: None)
    kept = lines.kept[1:]
    seconds = sum(line["seconds_per_step"] for line in kept)
    return {
        "tokens_per_second": sum(line["tokens_per_second"] * line["seconds_per_step"] for line in kept) / seconds,
        "loader": sum(line["loader_wait_share"] * line["seconds_per_step"] for line in kept) / seconds,
    }


def by_phases(objective: RandomWindows, ranks: Ranks, settings: EngineSettings, variant: Variant, given) -> dict[str, float]:
    """Tokens/s of steps without the loop, and the share of time in each phase."""
    split = objective.split
    engine = Engine(objective.model, ranks, settings=settings, optimizer=OptimizerSettings(), split=split, zero_stage=variant.stage, seed=1)
    random, clock, began = np.random.default_rng(1), Clock(), 0.0
    for step in range(WARM_STEPS + given.steps):
        if step == WARM_STEPS:
            wait(ranks.device)
            clock, began = Clock(), time.perf_counter()
            objective.lengths.clear()
        clock.mark("start")
        for index in range(split.accumulation):
            batch = make_batch(random, split.micro_batch, variant)
            objective.size(batch)
            clock.mark("loader")
            loss = objective.loss(engine, batch, ranks.device)
            clock.mark("forward")
            engine.backward(loss, max(1, len(batch.labels) * split.accumulation))
            if index + 1 < split.accumulation:
                engine.accumulate()
            clock.mark("backward")
        engine.step(1e-4)
        clock.mark("optimizer")
    wait(ranks.device)
    seconds, spent = time.perf_counter() - began, clock.seconds()
    engine.close()
    attended = np.concatenate(objective.lengths)
    return {
        "tokens_per_second": (attended.sum() - 2 * len(attended)) / seconds,
        **{phase: spent[phase] / seconds for phase in PHASES},
    }


def measure(variant: Variant, ranks: Ranks, given: argparse.Namespace) -> dict[str, float]:
    heads = max(1, given.hidden // 64)
    settings = ModelSettings(layers=given.layers, heads=heads, hidden=given.hidden, feed_forward=4 * given.hidden, dropout=variant.dropout)
    model = MaskedPredictor(masked_lm(bert_config(settings, VOCABULARY), seed=1))
    if variant.attention:
        model.bert_for_masked_lm.set_attn_implementation(variant.attention)
    engine = EngineSettings(
        zero_stage=variant.stage, precision=variant.precision, compile=variant.compiled, activation_checkpointing=variant.checkpointing,
        fused_adamw=variant.fused,
    )  # fmt: skip
    on_gpu = ranks.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    split = split_batch(given.windows, 1, given.micro_batch)
    objective = RandomWindows(model, variant, split)
    found = (through_the_loop if variant.loop else by_phases)(objective, ranks, engine, variant, given)
    attended = np.concatenate(objective.lengths).astype(float)
    length = (attended**2).sum() / attended.sum()
    fullest = max(int(lengths.sum()) for lengths in objective.lengths) if variant.packed else split.micro_batch * (WINDOW + 2)
    planned = rank_memory(
        settings, VOCABULARY, zero_stage=variant.stage, world=1, windows=-(-fullest // (WINDOW + 2)), length_tokens=WINDOW + 2,
        masked_fraction=MASKED, bf16=variant.precision == "bf16", gpu=on_gpu, checkpointing=variant.checkpointing,
    )  # fmt: skip
    return found | {
        "flops_per_second": found["tokens_per_second"]
        * flops_per_token(settings, VOCABULARY, length_tokens=length, masked_fraction=MASKED),
        "gigabytes": peak_memory_bytes(ranks.device) / 1e9,
        "planned": planned.total / 1e9,
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("windows", 64), ("micro-batch", 64), ("steps", 20), ("layers", 12), ("hidden", 768)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--only", default="", help="variants with this in their name")
    given = parser.parse_args(arguments)
    if given.layers * given.hidden >= 12 * 768 and not torch.cuda.is_available():
        print("no GPU here: nothing to measure; small --layers and --hidden show that it runs", file=sys.stderr)
        return 2
    ranks = Ranks.join()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    rate = measured_matmul_rate() if torch.cuda.is_available() else measured_matmul_rate(seconds=0.1, size=512)
    peak = next((flops for key, flops in GPU_PEAK_FLOPS.items() if key.split()[0] in device.lower()), None)
    print(f"{device}, torch {torch.__version__}; large matrix products: {rate / 1e12:.2f} TFLOP/s measured")
    print(
        f"BERT {given.layers} x {given.hidden}, windows of {WINDOW} tokens, {given.windows} a step in micro-batches of {given.micro_batch}"
    )
    print()
    print("| variant | tokens/s | MFU of measured rate | MFU of peak | GB | planned GB | loader | forward | backward | optimizer |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for variant in (one for one in VARIANTS if given.only in one.name):
        try:
            found = measure(variant, ranks, given)
        except (torch.OutOfMemoryError, UserError) as error:
            print(f"| {variant.name} | {str(error).splitlines()[0]} |", flush=True)
            continue
        finally:
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        of_peak = f"{found['flops_per_second'] / peak:.1%}" if peak else ""
        shares = " | ".join(f"{found[phase]:.0%}" if phase in found else "" for phase in PHASES)
        print(
            f"| {variant.name} | {found['tokens_per_second']:,.0f} | {found['flops_per_second'] / rate:.1%} | {of_peak} "
            f"| {found['gigabytes']:.1f} | {found['planned']:.1f} | {shares} |",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    Ranks.end_process(main())
