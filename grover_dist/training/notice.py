"""How a rank learns that its machine is about to go."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STOP_FILE = "GROVER_STOP_FILE"  # environment variable: a path, on which a file appears when this machine (or this job) is about to end


class StopRequest:
    """Asked between steps. SIGTERM reaches the main thread of a process alone, and Ray runs ranks in another: there the file tells."""

    def __init__(self, path: Path | None) -> None:
        self._path, self._event = path, threading.Event()

    def set(self) -> None:
        self._event.set()

    def is_set(self) -> bool:
        return self._event.is_set() or (self._path is not None and self._path.exists())


def stop_file() -> Path | None:
    return Path(os.environ[STOP_FILE]) if os.environ.get(STOP_FILE) else None


@contextmanager
def at_work() -> Iterator[None]:
    """Leaves word beside the stop file that a rank of this machine has not ended yet, for whoever waits to take the machine away."""
    path = stop_file()
    if path is None or not path.parent.is_dir():
        yield
        return
    mark = path.with_name(f"{path.name}.rank-{os.getpid()}")
    mark.touch()
    try:
        yield
    finally:
        mark.unlink(missing_ok=True)


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """A request that SIGTERM (preemption, Slurm, spot) sets where a handler can be installed, and the stop file everywhere."""
    request = StopRequest(stop_file())
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = signal.signal(signal.SIGTERM, lambda *_: request.set())
    try:
        yield request
    finally:
        signal.signal(signal.SIGTERM, before)
