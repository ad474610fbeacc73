"""Windows a second of the pass over the genome that the analyses rest on, on one Ray task and on two, and what adding the parts costs.

python benchmarks/analysis.py RUN [--windows 2000] [--repeats 3]

RUN is a run's folder with a vocabulary and a pretrained candidate. Beside wall times it prints the CPU seconds of the slowest task, which
another load on the machine does not change: with two tasks it should be about half.
"""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

os.environ.setdefault("RAY_AUTH_MODE", "disabled")

from grover_dist.analysis.sums import ModelSums, sums_of_part
from grover_dist.cluster.passes import add_on_ray
from grover_dist.cluster.session import ray_session
from grover_dist.config import ResourceSettings, load_config
from grover_dist.corpus.corpus import Corpus
from grover_dist.run_dir import RunDir


class Timed:
    """Sums with the CPU seconds of the slowest part."""

    def __init__(self, sums: ModelSums, slowest: float) -> None:
        self.sums, self.slowest = sums, slowest

    def __add__(self, other: Timed) -> Timed:
        return Timed(self.sums + other.sums, max(self.slowest, other.slowest))


def timed_part(*arguments: Any) -> Timed:
    import torch

    torch.set_num_threads(1)
    sums_of_part(*arguments[:-2], 0, 100)  # imports and compiled loops
    started = time.process_time()
    return Timed(sums_of_part(*arguments), time.process_time() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("--windows", type=int, default=2_000)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    run = RunDir.existing(given.run)
    corpus, model = run.latest("learn"), run.latest("pretrain")
    assert corpus is not None and model is not None, "the run needs a vocabulary and a pretrained candidate"
    opened = Corpus.open(corpus)
    cycles = int(model.counts["cycles"])
    config = load_config(f"{given.run}/config.yaml", [f"analysis.windows={given.windows}"])
    with ray_session(ResourceSettings()):
        for _ in range(given.repeats):
            slowest = {}
            for parts in (1, 2):
                lines = [(config, opened, model, "trained", cycles, part, parts) for part in range(parts)]
                started = time.perf_counter()
                found = add_on_ray(timed_part, lines)
                wall = time.perf_counter() - started
                slowest[parts] = found.slowest
                print(
                    f"{parts} task{'s' if parts > 1 else ''}: {found.sums.windows:,} windows, slowest task {found.slowest:.2f} CPU s "
                    f"({found.sums.windows / found.slowest:,.0f} windows/s), wall {wall:.1f} s with starting"
                )
            print(f"two tasks take {slowest[2] / slowest[1]:.2f} of one")


if __name__ == "__main__":
    main()
