"""What the user sees while workers work: their log lines as they come, and the progress of each candidate, as bars on a terminal and as
a line now and then elsewhere.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from grover_dist.run_dir import RunDir

POLL_SECONDS = 0.5
PROGRESS_SECONDS = 15.0


@contextmanager
def following(run: RunDir, say: Callable[[str], None], *, console: Console | None = None) -> Iterator[Callable[[], None]]:
    """Repeat new lines of the workers' logs through `say` until the block ends, the last lines included. Yields a function that
    repeats what stands there now, for a driver that has just seen a worker end and wants its words before its own.

    console: where the bars are drawn if it is a terminal (default: standard output); what is printed meanwhile appears above them.
    """
    console = console or Console()
    with _Bars(console) if console.is_terminal else nullcontext() as bars:
        follower = _Follower(run.logs, say, bars)
        thread = threading.Thread(target=follower.loop, name="follow-logs", daemon=True)
        thread.start()
        try:
            yield follower.read
        finally:
            follower.stop.set()
            thread.join()


class _Bars(Progress):
    """A bar for each file of progress, from its first line until its work is done."""

    def __init__(self, console: Console) -> None:
        left = TimeRemainingColumn(compact=True)
        columns = (TextColumn("{task.description}"), BarColumn(16), left, TextColumn("{task.fields[words]}", markup=False))
        super().__init__(*columns, console=console)  # fits into 80 columns
        self._of: dict[str, TaskID] = {}

    def show(self, name: str, line: str) -> None:
        try:
            state = json.loads(line)
        except ValueError:
            return
        done, whole = (state.get("step"), state.get("steps")) if "step" in state else (state.get("done"), state.get("of"))
        if done is None or not whole:
            return
        if name not in self._of:
            self._of[name] = self.add_task(name, words="")
        figures = (("loss", "loss {:.3f}"), ("tokens_per_second", "{:,.0f} tokens/s"), ("accuracy", "accuracy {:.2%}"))
        words = [text.format(state[key]) for key, text in figures if isinstance(state.get(key), (int, float))]
        self.update(self._of[name], total=whole, completed=done, words=f"{done}/{whole} {' '.join(words)}", visible=done < whole)


class _Follower:
    def __init__(self, folder: Path, say: Callable[[str], None], bars: _Bars | None) -> None:
        self.folder, self.say, self.bars, self.stop = folder, say, bars, threading.Event()
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
            elif lines and self.bars is not None:
                self.bars.show(path.stem, lines[-1])
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
