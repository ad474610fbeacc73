"""The candidate scheduler: jobs of unequal size and cost on limited room. Dearest first; what does not fit waits; freed
room goes to the next at once. A failed job is reported at the end and harms no other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

from grover_dist.errors import UserError


@dataclass(frozen=True)
class Job:
    """`run` blocks until the job is done. `cost` is any number that is proportional to its expected time."""

    name: str
    run: Callable[[], Any]
    cpus: float = 0.0
    gpus: float = 0.0
    cost: float = 0.0


@dataclass
class Outcome:
    results: dict[str, Any] = field(default_factory=dict)
    failures: dict[str, BaseException] = field(default_factory=dict)


def next_jobs(waiting: Sequence[Job], free_cpus: float, free_gpus: float, free_places: int) -> list[Job]:
    """Which of the waiting jobs start now: by falling cost (ties in the given order), each if it fits what is left."""
    chosen = []
    for job in sorted(waiting, key=lambda job: -job.cost):
        if len(chosen) < free_places and job.cpus <= free_cpus + 1e-9 and job.gpus <= free_gpus + 1e-9:
            chosen.append(job)
            free_cpus -= job.cpus
            free_gpus -= job.gpus
    return chosen


def run_jobs(jobs: Sequence[Job], *, cpus: float, gpus: float, places: int | None = None) -> Outcome:
    """Run all jobs in threads of this process within `cpus`, `gpus` and at most `places` at a time.

    Raises UserError, before anything starts, where a job can never fit.
    """
    for job in jobs:
        if job.cpus > cpus + 1e-9 or job.gpus > gpus + 1e-9:
            raise UserError(
                f"'{job.name}' needs more than the whole cluster has",
                got=f"{cpus:g} CPUs and {gpus:g} GPUs",
                expected=f"{job.cpus:g} CPUs and {job.gpus:g} GPUs",
                hint="lower resources.ranks_per_candidate, cpus_per_rank or gpus_per_rank, or use a larger cluster",
            )
    outcome = Outcome()
    waiting, running = list(jobs), dict[Future, Job]()
    places = places or len(jobs)
    if not jobs:
        return outcome
    with ThreadPoolExecutor(max_workers=places, thread_name_prefix="job") as pool:
        while waiting or running:
            free_cpus = cpus - sum(job.cpus for job in running.values())
            free_gpus = gpus - sum(job.gpus for job in running.values())
            for job in next_jobs(waiting, free_cpus, free_gpus, places - len(running)):
                waiting.remove(job)
                running[pool.submit(job.run)] = job
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                job = running.pop(future)
                error = future.exception()
                if error is None:
                    outcome.results[job.name] = future.result()
                else:
                    outcome.failures[job.name] = error
    return outcome
