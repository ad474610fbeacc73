"""The candidate scheduler: jobs of unequal size and cost on limited room. Dearest first; what does not fit waits; freed
room goes to the next at once. A failed job is reported at the end and harms no other.

`pack` chooses how wide each candidate is trained (`resources.gpus_per_candidate: auto`), so that the sweep ends earliest. It
simulates the same rule that `run_jobs` follows.
"""

from __future__ import annotations

import heapq
import math
import random
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


def pack(
    work: Sequence[float],
    slots: int,
    widths: Sequence[int],
    speed: Callable[[int], float],
    *,
    places: int | None = None,
    proposals: int = 3_000,
) -> Packed:
    """Widths and order with which jobs of `work` (time at width 1) end earliest on `slots` ranks, at most `places` at a time.

    For a wanted end T every job takes the narrowest width that meets it, which wastes least (Turek, Wolf and Yu 1992; Ludwig and Tiwari
    1994). The best simulated schedule over all T that matter, one width for all, and three orders is then improved by simulated
    annealing over widths and order, whose random numbers are always the same (3,000 proposals: tenths of a second for twenty jobs).
    """
    usable = sorted({width for width in widths if 1 <= width <= slots})
    if not usable:
        raise UserError(
            "no number of ranks fits the cluster and the batch",
            where="resources.gpus_per_candidate",
            got=f"room for {slots} ranks, batches that {', '.join(map(str, sorted(widths))) or 'no number of'} ranks can share",
            hint="use a larger cluster, or lower resources.cpus_per_rank or gpus_per_rank",
        )
    if not work:
        return Packed((), (), (), ())
    places = places or len(work)
    took = [{width: job / speed(width) for width in usable} for job in work]

    def packed(chosen: Sequence[int], order: Sequence[float]) -> Packed:
        seconds = tuple(took[job][width] for job, width in enumerate(chosen))
        return Packed(tuple(chosen), simulated_starts(chosen, seconds, order, slots, places), seconds, tuple(order))

    def best_order(chosen: Sequence[int]) -> Packed:
        seconds = [took[job][width] for job, width in enumerate(chosen)]
        area = [width * time for width, time in zip(chosen, seconds, strict=True)]
        widest_first = [width * sum(seconds) + time for width, time in zip(chosen, seconds, strict=True)]
        return min((packed(chosen, order) for order in (seconds, area, widest_first)), key=lambda found: found.makespan)

    def narrowest(job: int, end: float) -> int:
        return next(width for width in usable if took[job][width] <= end * (1 + 1e-12))

    floor = max(min(times.values()) for times in took)
    ends = sorted({time for times in took for time in times.values() if time >= floor})
    firsts = [[narrowest(job, end) for job in range(len(work))] for end in ends] + [[width] * len(work) for width in usable]
    best = here = min(map(best_order, firsts), key=lambda found: found.makespan)
    generator, reach = random.Random(0), 0.05 * best.makespan
    for proposal in range(proposals if len(work) > 1 else 0):
        chosen, order = list(here.width), list(here.priority)
        first, second, kind = generator.randrange(len(work)), generator.randrange(len(work)), generator.random()
        if kind < 0.5:
            chosen[first] = generator.choice(usable)
        else:
            order[first], order[second] = order[second], order[first]
            if kind > 0.8:
                chosen[first], chosen[second] = chosen[second], chosen[first]
        found = packed(chosen, order)
        warmth = reach * (1 - proposal / proposals) + 1e-12
        if found.makespan < here.makespan or generator.random() < math.exp((here.makespan - found.makespan) / warmth):
            here = found
        best = min(best, here, key=lambda found: found.makespan)
    return best


def simulated_starts(widths: Sequence[int], seconds: Sequence[float], order: Sequence[float], slots: int, places: int) -> tuple[float, ...]:
    """When each job starts under the rule of `next_jobs`, its cost being `order`."""
    waiting = sorted(range(len(widths)), key=lambda job: -order[job])
    running: list[tuple[float, int]] = []
    starts, now, free = [0.0] * len(widths), 0.0, slots
    while waiting:
        left = []
        for job in waiting:
            if widths[job] <= free and len(running) < places:
                starts[job] = now
                heapq.heappush(running, (now + seconds[job], job))
                free -= widths[job]
            else:
                left.append(job)
        waiting = left
        if waiting:
            now = running[0][0]
            while running and running[0][0] <= now:
                free += widths[heapq.heappop(running)[1]]
    return tuple(starts)


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
