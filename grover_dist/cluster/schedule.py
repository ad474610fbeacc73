"""The candidate scheduler: jobs of unequal size and cost on limited room. Dearest first; what does not fit waits; freed
room goes to the next at once. A failed job is reported at the end and harms no other.

`pack` chooses how wide each candidate is trained (`resources.gpus_per_candidate: auto`), so that the sweep ends earliest. It
simulates the same rule that `run_jobs` follows.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Sequence
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


@dataclass(frozen=True)
class Packed:
    """Per job, in the given order: ranks, when it starts and how long it takes. A job with a higher `priority` is asked first."""

    width: tuple[int, ...]
    start: tuple[float, ...]
    seconds: tuple[float, ...]
    priority: tuple[float, ...]

    @property
    def makespan(self) -> float:
        return max((start + took for start, took in zip(self.start, self.seconds, strict=True)), default=0.0)


def rank_numbers(*batches: int) -> list[int]:
    """Numbers of ranks that can share every one of the batches evenly."""
    common = math.gcd(*batches)
    return [ranks for ranks in range(1, common + 1) if common % ranks == 0]


def doubling_speed(efficiency: float) -> Callable[[int], float]:
    """Speed of `width` ranks against one, where each doubling keeps `efficiency` of what it should bring."""
    return lambda width: width * efficiency ** math.log2(width)


def pack(work: Sequence[float], slots: int, widths: Sequence[int], speed: Callable[[int], float], *, places: int | None = None) -> Packed:
    """Widths and order with which jobs of `work` (time at width 1) end earliest on `slots` ranks, at most `places` at a time.

    For a wanted end T every job takes the narrowest width that meets it, which wastes least (Turek, Wolf and Yu 1992; Ludwig and Tiwari
    1994). Over all T that matter, one width for all, and three orders the best simulated schedule is kept, then improved by single
    changes of width.
    """
    usable = sorted({width for width in widths if 1 <= width <= slots})
    if not usable:
        raise UserError(
            "no number of ranks fits the cluster and the batch",
            where="resources.gpus_per_candidate",
            got=f"room for {slots} ranks, batches that {', '.join(map(str, sorted(widths))) or 'no number of'} ranks can share",
            hint="use a larger cluster, or lower resources.cpus_per_rank or gpus_per_rank",
        )
    places = places or len(work)
    took = [{width: job / speed(width) for width in usable} for job in work]

    def best_of(chosen: Sequence[int]) -> Packed:
        seconds = tuple(took[job][width] for job, width in enumerate(chosen))
        area = [width * time for width, time in zip(chosen, seconds, strict=True)]
        orders = (seconds, area, [width * sum(seconds) + time for width, time in zip(chosen, seconds, strict=True)])
        tried = (Packed(tuple(chosen), _starts(chosen, seconds, order, slots, places), seconds, tuple(order)) for order in orders)
        return min(tried, key=lambda packed: packed.makespan)

    def narrowest(job: int, end: float) -> int:
        return next(width for width in usable if took[job][width] <= end * (1 + 1e-12))

    floor = max((min(times.values()) for times in took), default=0.0)
    ends = sorted({time for times in took for time in times.values() if time >= floor})
    firsts = [[narrowest(job, end) for job in range(len(work))] for end in ends] + [[width] * len(work) for width in usable]
    found = min(map(best_of, firsts), key=lambda packed: packed.makespan)
    while True:
        changes = (
            best_of([*found.width[:job], width, *found.width[job + 1 :]])
            for job in range(len(work))
            for width in usable
            if width != found.width[job]
        )
        better = min(changes, key=lambda packed: packed.makespan, default=found)
        if better.makespan >= found.makespan * (1 - 1e-9):
            return found
        found = better


def _starts(widths: Sequence[int], seconds: Sequence[float], order: Sequence[float], slots: int, places: int) -> tuple[float, ...]:
    """When each job starts under `next_jobs`, its cost being `order`."""
    jobs = [Job(str(index), _nothing, cpus=width, cost=order[index]) for index, width in enumerate(widths)]
    waiting, running, starts, now, free = sorted(jobs, key=lambda job: -job.cost), [], [0.0] * len(jobs), 0.0, slots
    while waiting:
        for job in next_jobs(waiting, free, 0.0, places - len(running)):
            waiting.remove(job)
            index = int(job.name)
            starts[index] = now
            heapq.heappush(running, (now + seconds[index], index))
            free -= widths[index]
        if waiting:
            now, index = heapq.heappop(running)
            free += widths[index]
    return tuple(starts)


def _nothing() -> None:
    """A simulated job."""


def makespan_bound(work: Iterable[float], slots: int, widths: Sequence[int], speed: Callable[[int], float]) -> float:
    """No schedule ends before: the smallest T at which every job can meet T, and the least rank-seconds with which they do fit `slots`."""
    took = [{width: job / speed(width) for width in widths if width <= slots} for job in work]
    low, high = 0.0, sum(min(times.values()) for times in took)

    def possible(end: float) -> bool:
        areas = [min((width * time for width, time in times.items() if time <= end), default=math.inf) for times in took]
        return sum(areas) <= slots * end

    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if possible(middle) else (middle, high)
    return low


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
