"""What the user sees while workers work: their log lines as they come, and one line of progress per candidate."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from grover_dist.run_dir import RunDir

POLL_SECONDS = 0.5
PROGRESS_SECONDS = 15.0


@contextmanager
def following(run: RunDir, say: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """Repeat new lines of the workers' logs through `say` until the block ends, the last lines included. Yields a function that
    repeats what stands there now, for a driver that has just seen a worker end and wants its words before its own.
    """
    follower = _Follower(run.logs, say)
    thread = threading.Thread(target=follower.loop, name="follow-logs", daemon=True)
    thread.start()
    try:
        yield follower.read
    finally:
        follower.stop.set()
        thread.join()


class _Follower:
    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self.folder, self.say, self.stop = folder, say, threading.Event()
        self.read_bytes = {path: path.stat().st_size for path in self._files()}  # what earlier commands said stays said
        self.told_progress: dict[Path, float] = {}
        self.reading = threading.Lock()

    def _files(self) -> list[Path]:
        return sorted([*self.folder.glob("*.log"), *self.folder.glob("*.jsonl")])

    def loop(self) -> None:
        while not self.stop.wait(POLL_SECONDS):
            self.read()
        self.read()

    def read(self) -> None:
        with self.reading:
            self._read()

    def _read(self) -> None:
        for path in self._files():
            start = self.read_bytes.get(path, 0)
            if path.stat().st_size <= start:
                continue
            with open(path, "rb") as handle:
                handle.seek(start)
                new = handle.read()
            whole = new[: new.rfind(b"\n") + 1]  # a line still being written is left for the next look
            self.read_bytes[path] = start + len(whole)
            lines = whole.decode("utf-8", "replace").splitlines()
            if path.suffix == ".log":
                for line in lines:
                    self.say(f"[{path.stem}] {line}")
            elif lines and time.monotonic() - self.told_progress.get(path, 0.0) > PROGRESS_SECONDS:
                self.told_progress[path] = time.monotonic()
                self.say(f"[{path.stem}] {describe_progress(lines[-1])}")


def describe_progress(line: str) -> str:
    """One JSON line of a candidate's progress in words."""
    try:
        state = json.loads(line)
    except ValueError:
        return line
    words = []
    if "arm" in state:
        words.append(f"k={state['k']} {state['arm']}, {state['done']} of {state['of']}")
    if "step" in state:
        words.append(f"step {state['step']:,}" + (f" of {state['steps']:,}" if state.get("steps") else ""))
    for key, text in (
        ("bases", "{:,} bases"),
        ("loss", "loss {:.4f} nats a token"),
        ("nats_per_token", "{:.4f} nats a token"),
        ("bits_per_base", "{:.4f} bits a base"),
        ("tokens_per_second", "{:,.0f} tokens/s"),
        ("accuracy", "accuracy {:.2%}"),
    ):
        if isinstance(state.get(key), (int, float)):
            words.append(text.format(state[key]))
    return ", ".join(words) or line
