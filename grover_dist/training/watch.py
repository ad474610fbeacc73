"""A gang in which one rank hangs ends: all stacks are printed, and the rank that the others wait for is named."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch.distributed

from grover_dist.errors import UserError
from grover_dist.training.ranks import Ranks

EXIT_HANGS = 1


@contextmanager
def hang_watch(ranks: Ranks, name: str, timeout_seconds: float) -> Iterator[Callable[[int], None]]:
    """Unless the yielded function is called in time, with the steps made so far, this process ends: the stacks of all its threads go to
    the standard error, then one rank tells which rank the others wait for, and every rank exits with EXIT_HANGS. Collective.

    A rank that is stopped, or holds the interpreter's lock, cannot speak: the others tell that it does not answer.
    """
    watch = _HangWatch(ranks, name, timeout_seconds)
    try:
        yield watch.alive
    finally:
        watch.close()


class _HangWatch:
    def __init__(self, ranks: Ranks, name: str, timeout_seconds: float) -> None:
        self._ranks, self._name, self._timeout = ranks, name, timeout_seconds
        self._step, self._last = 0, time.monotonic()
        self._main_thread = threading.get_ident()
        self._closed = threading.Event()
        self._store = _common_store(ranks, timeout_seconds)
        self._thread = threading.Thread(target=self._watch, name="hang-watch", daemon=True)
        self._thread.start()

    def alive(self, step: int) -> None:
        self._step, self._last = step, time.monotonic()

    def close(self) -> None:
        self._closed.set()
        self._thread.join()  # first: it arms the timer
        faulthandler.cancel_dump_traceback_later()

    def _watch(self) -> None:
        # The interpreter's own timer needs no lock of the interpreter: it ends a rank whose Python threads stand still.
        while not self._closed.is_set():
            left = self._last + self._timeout - time.monotonic()
            if left <= 0:
                self._end()
            faulthandler.dump_traceback_later(left + 0.25 * self._timeout, exit=True, file=sys.__stderr__)
            self._closed.wait(min(left, self._timeout / 10))

    def _end(self) -> None:
        where, waits = _position(self._main_thread)
        print(f"grover-dist: rank {self._ranks.rank} stands in step {self._step + 1} at {where}", file=sys.__stderr__, flush=True)
        faulthandler.dump_traceback(file=sys.__stderr__)
        with contextlib.suppress(OSError, RuntimeError):  # a store whose rank is gone: somebody else has told
            states = self._states(where, waits)
            if self._store is None or self._store.add("told", 1) == 1:
                print(f"grover-dist: {self._verdict(states)}", file=sys.__stderr__, flush=True)
            if self._store is not None:
                self._store.add("left", 1)
                self._linger()
        os._exit(EXIT_HANGS)

    def _states(self, where: str, waits: bool) -> dict[int, tuple[str, bool]]:
        """Of each rank that answers: where it stands, and whether that is a collective call, in which it waits for others."""
        if self._store is None:
            return {0: (where, False)}
        self._store.set(f"state/{self._ranks.rank}", json.dumps([where, waits]))
        keys = [f"state/{rank}" for rank in range(self._ranks.world)]
        deadline = time.monotonic() + 0.2 * self._timeout
        while not self._store.check(keys) and time.monotonic() < deadline:
            time.sleep(0.05)
        return {rank: tuple(json.loads(self._store.get(key))) for rank, key in enumerate(keys) if self._store.check([key])}

    def _linger(self) -> None:
        """The rank that holds the store leaves last, or its end would be taken for the fault."""
        deadline = time.monotonic() + 0.2 * self._timeout
        while self._ranks.is_main and self._store.add("left", 0) < self._ranks.world and time.monotonic() < deadline:
            time.sleep(0.05)

    def _verdict(self, states: dict[int, tuple[str, bool]]) -> UserError:
        mute = [rank for rank in range(self._ranks.world) if rank not in states]
        hanging = [f"rank {rank} at {states[rank][0]}" for rank in states if not states[rank][1]]
        culprits = [f"rank {rank}, which does not answer" for rank in mute] or hanging or ["every rank, inside a collective call"]
        return UserError(
            f"nothing has moved for {self._timeout:g} s and the gang ends",
            where=f"{self._name}, step {self._step + 1}; hangs: {'; '.join(culprits)}",
            hint="the stacks of the ranks stand above; start again to go on from the last checkpoint, and raise "
            "resources.rank_timeout_seconds where a step, an evaluation or a checkpoint may take that long",
        )


def _common_store(ranks: Ranks, timeout_seconds: float) -> torch.distributed.TCPStore | None:
    """A small key-value store on rank 0, apart from the process group, which a hang blocks."""
    if ranks.world == 1:
        return None
    host, timeout = os.environ.get("MASTER_ADDR", "127.0.0.1"), timedelta(seconds=max(10.0, 0.2 * timeout_seconds))
    options = {"wait_for_workers": False, "timeout": timeout}
    store = torch.distributed.TCPStore(host, 0, ranks.world, is_master=True, **options) if ranks.is_main else None
    port = ranks.on_main(lambda: store.port)
    return store or torch.distributed.TCPStore(host, port, ranks.world, is_master=False, **options)


def _position(thread: int) -> tuple[str, bool]:
    """Where the thread stands, in words, and whether any thread of this process is inside a collective call."""
    frames = sys._current_frames()
    frame = frames.get(thread)
    where = "an unknown place" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno} ({frame.f_code.co_name})"
    return where, any(_is_collective(top) for top in frames.values())


def _is_collective(frame) -> bool:
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith("torch.distributed.distributed_c10d"):
            return True
        frame = frame.f_back
    return False
