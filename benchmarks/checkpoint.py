"""How long training stands still for a checkpoint: copied to host memory and written by a thread, beside waiting until it is on the disk.

    python benchmarks/checkpoint.py [--layers 12 --hidden 768 --zero-stage 0 --repeats 5 --folder FOLDER]

Both ways take turns in one process; medians of milliseconds, by the wall and in CPU time of the thread that trains, which other load on the
machine hardly moves (waiting for the disk is not in it). The step beside which a thread writes is timed as well.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from grover_dist.config import EngineSettings, ModelSettings, OptimizerSettings
from grover_dist.model.bert import MaskedPredictor, bert_config, masked_lm
from grover_dist.training.checkpoint import Checkpoints, Progress
from grover_dist.training.engine import Engine, split_batch
from grover_dist.training.ranks import Ranks

VOCABULARY, ROWS, LENGTH = 609, 4, 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--zero-stage", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="on the disk to be measured; by default a temporary one")
    given = parser.parse_args()
    ranks = Ranks.join(threads=2)
    sizes = ModelSettings(layers=given.layers, heads=given.hidden // 64, hidden=given.hidden, feed_forward=4 * given.hidden)
    model = MaskedPredictor(masked_lm(bert_config(sizes, VOCABULARY), seed=1))
    weights = sum(parameter.numel() for parameter in model.parameters())
    settings = EngineSettings(zero_stage=given.zero_stage)
    split = split_batch(ROWS, 1, ROWS)
    engine = Engine(model, ranks, settings=settings, optimizer=OptimizerSettings(), split=split, zero_stage=given.zero_stage, seed=1)
    ids, chosen = torch.randint(5, VOCABULARY, (ROWS, LENGTH)), torch.arange(0, ROWS * LENGTH, 8)

    def step() -> float:
        began = time.perf_counter()
        logits = engine(ids, None, chosen)
        engine.backward(torch.nn.functional.cross_entropy(logits, ids.flatten()[chosen], reduction="sum"), len(chosen))
        engine.step(1e-4)
        return 1_000 * (time.perf_counter() - began)

    stalls: dict[str, list[float]] = {"waiting": [], "in a thread": []}
    busy: dict[str, list[float]] = {"waiting": [], "in a thread": []}
    steps: dict[str, list[float]] = {"alone": [], "beside a write": []}
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        store = Checkpoints(Path(folder), ranks, keep=1, hash="benchmark")
        step()
        for number in range(2 * given.repeats):
            way = list(stalls)[number % 2]
            steps["alone"].append(step())
            began, worked = time.perf_counter(), time.process_time() if way == "waiting" else time.thread_time()
            store.save(engine, Progress(number + 1))
            if way == "waiting":
                store.finish()
            busy[way].append(1_000 * ((time.process_time() if way == "waiting" else time.thread_time()) - worked))
            stalls[way].append(1_000 * (time.perf_counter() - began))
            if way == "in a thread":
                steps["beside a write"].append(step())
            store.finish()
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    print(f"{weights:,} parameters, ZeRO {given.zero_stage}, a checkpoint of {size / 1e6:,.0f} MB")
    for what, figures in (("wall", stalls), ("CPU", busy)):
        waiting, threaded = (statistics.median(figures[way]) for way in figures)
        print(f"stall, {what}: {waiting:,.0f} ms waiting, {threaded:,.0f} ms in a thread: {waiting / threaded:.1f} times less")
    print(f"step: {statistics.median(steps['alone']):,.0f} ms alone, {statistics.median(steps['beside a write']):,.0f} ms beside a write")


if __name__ == "__main__":
    main()
