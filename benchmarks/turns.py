"""Contenders of a benchmark that take turns step by step in one process, and the clocks that time them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import wraps
from typing import NamedTuple

import torch


class Spent(NamedTuple):
    """Seconds of one step. inside: CPU seconds in what no training can do without, 0 where it was not told apart."""

    cpu: float
    wall: float
    inside: float = 0.0


class Turns:
    """Threads of which one at a time works: in a circle, each until it passes its turn on or leaves."""

    def __init__(self, names: list[str]) -> None:
        self._circle, self._changed = list(names), threading.Condition()

    def take(self, name: str) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._circle[0] == name)

    def pass_on(self) -> None:
        with self._changed:
            self._circle.append(self._circle.pop(0))
            self._changed.notify_all()

    def leave(self) -> None:
        with self._changed:
            self._circle.pop(0)
            self._changed.notify_all()


class Stopwatch:
    """What each step of one contender took, from its first forward pass to that of the next step; the last one is left out."""

    def __init__(self, name: str = "", turns: Turns | None = None) -> None:
        self._name, self._turns, self._began = name, turns, None
        self.steps: list[Spent] = []

    def step_begins(self) -> None:
        if self._began is not None:
            self.steps.append(Spent(*(now - then for now, then in zip(clocks(), self._began, strict=True))))
        self.wait_for_turn()
        self._began = clocks()

    def wait_for_turn(self) -> None:
        if self._turns is not None:
            self._turns.pass_on()
            self._turns.take(self._name)


def clocks() -> Spent:
    return Spent(time.process_time(), time.perf_counter(), INSIDE.seconds)


class Inside(threading.local):
    """CPU seconds of this thread in the functions that `watch` has wrapped; a call inside of another counts once."""

    seconds, depth = 0.0, 0

    def watch(self, owner: object, name: str) -> None:
        function = getattr(owner, name)

        @wraps(function)
        def timed(*given, **named):
            self.depth += 1
            began = time.thread_time()
            try:
                return function(*given, **named)
            finally:
                self.depth -= 1
                if self.depth == 0:
                    self.seconds += time.thread_time() - began

        setattr(owner, name, timed)


INSIDE = Inside()


def in_turns(contenders: dict[str, Callable[[Stopwatch], None]], *, skip: int) -> dict[str, list[Spent]]:
    """What the steps of each contender took, the first `skip` left out."""
    turns = Turns(list(contenders))
    watches = {name: Stopwatch(name, turns) for name in contenders}
    faults = []

    def work(name: str) -> None:
        torch.set_num_threads(1)  # a setting of the thread
        turns.take(name)
        try:
            contenders[name](watches[name])
        except BaseException as fault:
            faults.append(fault)
        finally:
            turns.leave()

    threads = [threading.Thread(target=work, args=(name,)) for name in contenders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]
    return {name: watch.steps[skip:] for name, watch in watches.items()}
