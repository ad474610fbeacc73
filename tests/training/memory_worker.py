"""Trains small models one after the other and prints, for each, what rank 0's process held at its peak and what `plan` says: `python -m
tests.training.memory_worker`, also under torchrun. Started with glibc told to hand freed memory back, so that the process holds what its
tensors hold.
"""

from __future__ import annotations

import ctypes
import gc
import json
from pathlib import Path

import torch

from grover_dist.config import EngineSettings, ModelSettings, OptimizerSettings
from grover_dist.model.bert import MaskedPredictor, bert_config, masked_lm
from grover_dist.model.packing import WindowEdges
from grover_dist.training.engine import BatchSplit, Engine
from grover_dist.training.plan import rank_memory
from grover_dist.training.ranks import Ranks

VOCABULARY, EVERY = 609, 7
# One rank, whose activations are most of it; several, whose weights are.
SMALL = {"model": {"layers": 2, "heads": 4, "hidden": 256, "feed_forward": 1024}, "windows": 4, "length": 510}
WIDE = {"model": {"layers": 6, "heads": 8, "hidden": 512, "feed_forward": 2048}, "windows": 1, "length": 64}
CASES = {
    "stage 3": {"zero_stage": 3},
    "stage 2": {"zero_stage": 2},
    "stage 1": {"zero_stage": 1},
    "stage 0": {},
    "packed": {"packed": True},
    "bf16": {"precision": "bf16"},
    "no dropout": {"dropout": 0.0},
    "checkpointing": {"checkpointing": True},
}


def train(
    ranks: Ranks, model: ModelSettings, windows: int, length: int, *, zero_stage=0, precision="fp32", checkpointing=False, packed=False
) -> None:
    engine = Engine(
        MaskedPredictor(masked_lm(bert_config(model, VOCABULARY), seed=1)),
        ranks,
        settings=EngineSettings(precision=precision, activation_checkpointing=checkpointing),
        optimizer=OptimizerSettings(),
        split=BatchSplit(windows, 1, ranks.world),
        zero_stage=zero_stage,
        seed=1,
    )
    for tokens in (16, length):  # the moments come with the first step
        ids = torch.randint(5, VOCABULARY, (windows, tokens))
        index = torch.arange(0, ids.numel(), EVERY)
        rows = (ids.view(1, -1), None, index, WindowEdges([tokens] * windows)) if packed else (ids, None, index)
        loss = torch.nn.functional.cross_entropy(engine(*rows).float(), ids.flatten()[index], reduction="sum")
        engine.backward(loss, len(index))
        engine.step(1e-4)
    engine.close()
    gc.collect()


def status_bytes(field: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{field}:"))
    return 1024 * int(line.split()[1])


def main() -> None:
    ranks = Ranks.join()
    for stage in range(4):  # what DeepSpeed and torch set up once
        train(ranks, ModelSettings(layers=1, heads=1, hidden=16, feed_forward=16), 1, 16, zero_stage=stage)
    size = SMALL if ranks.world == 1 else WIDE
    for name, case in CASES.items():
        if ranks.world > 1 and not name.startswith("stage"):
            continue
        settings = dict(case)
        model = ModelSettings(**size["model"], dropout=settings.pop("dropout", 0.1))
        ctypes.CDLL(None).malloc_trim(0)  # what is free already must not serve the next case
        before = status_bytes("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        train(ranks, model, size["windows"], size["length"], **settings)
        planned = rank_memory(
            model,
            VOCABULARY,
            zero_stage=settings.get("zero_stage", 0),
            world=ranks.world,
            windows=size["windows"],
            length_tokens=size["length"],
            masked_fraction=1 / EVERY,
            bf16=settings.get("precision") == "bf16",
            checkpointing=settings.get("checkpointing", False),
        )
        if ranks.is_main:
            print(json.dumps({"name": name, "measured": status_bytes("VmHWM") - before, "planned": planned.total}), flush=True)
    Ranks.end_process()


if __name__ == "__main__":
    main()
