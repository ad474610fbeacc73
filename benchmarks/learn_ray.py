"""What Ray adds to learning: seconds a round of the conversation with actors, over the same conversation inside one process.

python benchmarks/learn_ray.py [--actors 4] [--bases 400000] [--cycles 600] [--repeats 3]

The sequence is short on purpose: on a long one the workers' own time hides the messages. Both sides hold the same partitions; the
difference of their wall times, by the number of rounds, is what serialisation, scheduling and waking cost.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

os.environ.setdefault("RAY_AUTH_MODE", "disabled")

import numpy as np
import ray

from grover_dist.bpe.learn import WorkerGroup, call_local, learn
from grover_dist.bpe.partition import Partition, cut
from grover_dist.cluster.learners import call_actors
from grover_dist.cluster.session import ray_session
from grover_dist.config import ResourceSettings


def conversation(make, call, cycles: int) -> tuple[float, float, int]:
    """Wall seconds, this process's CPU seconds, rounds."""
    group = WorkerGroup(make(), call=call)
    group.call("start", [()] * len(group.workers))  # the workers exist and have compiled
    rounds = 0

    def count(number: int, _: int) -> None:
        nonlocal rounds
        rounds = number

    wall, cpu = time.perf_counter(), time.process_time()
    learn(group, cycles, on_round=count, say=lambda _: None)
    return time.perf_counter() - wall, time.process_time() - cpu, rounds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--actors", type=int, default=4)
    parser.add_argument("--bases", type=int, default=400_000)
    parser.add_argument("--cycles", type=int, default=600)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    codes = np.random.default_rng(1).integers(0, 4, arguments.bases, dtype=np.uint8)
    ranges = cut(np.empty(0, np.int64), len(codes), arguments.actors)

    def local() -> list[Partition]:
        return [Partition(codes[a:b], np.empty(0, np.int64), a == 0) for a, b in ranges]

    with ray_session(ResourceSettings()):
        actor_class = ray.remote(num_cpus=0)(Partition)

        def remote() -> list:
            return [actor_class.remote(codes[a:b], np.empty(0, np.int64), a == 0) for a, b in ranges]

        conversation(local, call_local, 50)
        extra = []
        for _ in range(arguments.repeats):
            inside, _, rounds = conversation(local, call_local, arguments.cycles)
            outside, cpu, again = conversation(remote, call_actors, arguments.cycles)
            assert rounds == again
            extra.append((outside - inside) / rounds)
            print(
                f"{arguments.actors} actors, {rounds} rounds: in one process {inside:.3f} s, on Ray {outside:.3f} s "
                f"(driver {cpu:.3f} CPU s), {1e3 * extra[-1]:.2f} ms a round more"
            )
    print(f"median: {1e3 * statistics.median(extra):.2f} ms a round")


if __name__ == "__main__":
    main()
