"""Training speed of the paper's BERT-base on one GPU: tokens/s, MFU, memory, and where the time of a step goes.

    python benchmarks/train_gpu.py [--windows 64 --micro-batch 64 --steps 20]

Needs torch, transformers and deepspeed, and no corpus: windows are random tokens. MFU = tokens/s x flops_per_token (model/size.py: matrix
products of forward and backward, nothing recomputed) over the rate of a large bf16 matrix product measured here, and over the maker's
peak where it is known. Loader, forward, backward and optimizer are timed by events on the device; a step ends in a synchronisation.
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
from grover_dist.model.bert import MaskedPredictor, bert_config, masked_lm
from grover_dist.model.size import flops_per_token
from grover_dist.training.engine import Engine, split_batch
from grover_dist.training.plan import GPU_PEAK_FLOPS, measured_matmul_rate
from grover_dist.training.ranks import Ranks

VOCABULARY, WINDOW, MASKED = 609, 510, 0.15
PHASES = ("loader", "forward", "backward", "optimizer")
WARM_STEPS = 5


@dataclass(frozen=True)
class Variant:
    name: str
    stage: int = 0
    precision: str = "bf16"
    attention: str = "sdpa"
    dropout: float = 0.1
    compiled: bool = False
    mixed_lengths: bool = False  # half the windows full, half of 20 to 510 tokens, padded, as the paper draws them


VARIANTS = (
    Variant("bf16, ZeRO 0"),
    Variant("fp32, ZeRO 0", precision="fp32"),
    Variant("no dropout", dropout=0.0),
    Variant("compiled", compiled=True),
    Variant("compiled, no dropout", compiled=True, dropout=0.0),
    Variant("eager attention (no flash)", attention="eager"),
    Variant("mixed lengths, padded", mixed_lengths=True),
    Variant("ZeRO 1", stage=1),
    Variant("ZeRO 2", stage=2),
    Variant("ZeRO 3", stage=3),
)


def make_batch(random: np.random.Generator, windows: int, mixed: bool) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor, int]:
    """ids, mask or None, masked positions, tokens; sorted by length as the product's batches are."""
    lengths = np.full(windows, WINDOW)
    if mixed:
        lengths = np.sort(np.where(random.random(windows) < 0.5, WINDOW, random.integers(20, WINDOW + 1, windows)))[::-1]
    width = int(lengths.max()) + 2
    ids = random.integers(5, VOCABULARY, (windows, width))
    inside = np.arange(width) < (lengths + 2)[:, None]
    ids[~inside] = 0
    masked = np.flatnonzero((random.random(ids.shape) < MASKED) & inside)
    mask = torch.from_numpy(inside.astype(np.int64)) if mixed else None
    return torch.from_numpy(ids), mask, torch.from_numpy(masked), int(lengths.sum())


def measure(variant: Variant, ranks: Ranks, given: argparse.Namespace) -> dict[str, float]:
    settings = ModelSettings(dropout=variant.dropout)
    config = bert_config(settings, VOCABULARY)
    config._attn_implementation = variant.attention
    model = MaskedPredictor(masked_lm(config, seed=1))
    if variant.compiled:
        model.compile()
    split = split_batch(given.windows, 1, given.micro_batch)
    engine = Engine(
        model, ranks, settings=EngineSettings(precision=variant.precision), optimizer=OptimizerSettings(), split=split,
        zero_stage=variant.stage, seed=1,
    )  # fmt: skip
    random = np.random.default_rng(1)
    spent = dict.fromkeys(PHASES, 0.0)
    tokens, began = 0, 0.0
    torch.cuda.reset_peak_memory_stats()
    for step in range(WARM_STEPS + given.steps):
        if step == WARM_STEPS:
            torch.cuda.synchronize()
            spent, tokens, began = dict.fromkeys(PHASES, 0.0), 0, time.perf_counter()
        events: list[tuple[str, torch.cuda.Event]] = []

        def mark(phase: str, events: list = events) -> None:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            events.append((phase, event))

        mark("start")
        for index in range(split.accumulation):
            ids, mask, masked, count = make_batch(random, split.micro_batch, variant.mixed_lengths)
            labels = ids.flatten()[masked].to(ranks.device)
            ids, masked = ids.to(ranks.device), masked.to(ranks.device)
            mask = mask.to(ranks.device) if mask is not None else None
            mark("loader")
            loss = functional.cross_entropy(engine(ids, mask, masked).float(), labels, reduction="sum")
            mark("forward")
            engine.backward(loss, max(1, len(labels) * split.accumulation))
            if index + 1 < split.accumulation:
                engine.accumulate()
            mark("backward")
            tokens += count
        engine.step(1e-4)
        mark("optimizer")
        torch.cuda.synchronize()
        for (_, before), (phase, after) in pairwise(events):
            spent[phase] += before.elapsed_time(after) / 1_000
    seconds = time.perf_counter() - began
    mean_length = tokens / (given.steps * given.windows)
    engine.close()
    flops = flops_per_token(settings, VOCABULARY, length_tokens=mean_length, masked_fraction=MASKED)
    return {
        "tokens_per_second": tokens / seconds,
        "flops_per_second": tokens / seconds * flops,
        "gigabytes": torch.cuda.max_memory_allocated() / 1e9,
        **{phase: spent[phase] / seconds for phase in PHASES},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("windows", 64), ("micro-batch", 64), ("steps", 20)):
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args()
    if not torch.cuda.is_available():
        print("no GPU here: nothing to measure", file=sys.stderr)
        return 2
    ranks, name = Ranks.join(), torch.cuda.get_device_name()
    rate = measured_matmul_rate()
    peak = next((flops for key, flops in GPU_PEAK_FLOPS.items() if key.split()[0] in name.lower()), None)
    print(f"{name}, torch {torch.__version__}; bf16 matrix products: {rate / 1e12:.0f} TFLOP/s measured")
    print(f"BERT-base, windows of {WINDOW} tokens, {given.windows} a step in micro-batches of {given.micro_batch}")
    print()
    print("| variant | tokens/s | MFU of measured rate | MFU of peak | GB | loader | forward | backward | optimizer |")
    print("|---|---|---|---|---|---|---|---|---|")
    for variant in VARIANTS:
        try:
            found = measure(variant, ranks, given)
        except torch.cuda.OutOfMemoryError:
            print(f"| {variant.name} | out of memory |")
            continue
        finally:
            torch.cuda.empty_cache()
        of_peak = f"{found['flops_per_second'] / peak:.1%}" if peak else ""
        shares = " | ".join(f"{found[phase]:.0%}" for phase in PHASES)
        print(
            f"| {variant.name} | {found['tokens_per_second']:,.0f} | {found['flops_per_second'] / rate:.1%} | {of_peak} "
            f"| {found['gigabytes']:.1f} | {shares} |", flush=True,
        )  # fmt: skip
    Ranks.leave()
    return 0


if __name__ == "__main__":
    sys.exit(main())
