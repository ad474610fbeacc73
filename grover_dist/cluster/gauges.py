"""Figures of a gang at work as Ray metrics, which Prometheus collects from every node's metrics port under the prefix `ray_`."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ray.util.metrics import Gauge

from grover_dist.run_dir import RunDir

READ_SECONDS = 2.0
# Key of a line of progress -> name of the gauge and what it says.
GAUGES = {
    "step": ("grover_step", "optimizer steps made by the candidate's pretraining"),
    "steps": ("grover_steps", "optimizer steps that the rung's budget makes"),
    "bases": ("grover_bases", "bases shown to the candidate"),
    "loss": ("grover_loss_nats_per_token", "training loss of the last logged step"),
    "held_out_bits_per_base": ("grover_bits_per_base", "held-out bits per base"),
    "tokens_per_second": ("grover_tokens_per_second", "tokens a second of training, over all ranks"),
    "bases_per_second": ("grover_bases_per_second", "bases a second of training, over all ranks"),
    "loader_wait_share": ("grover_loader_wait_share", "share of a step spent waiting for data"),
    "accuracy": ("grover_kmer_accuracy", "accuracy of the last next-k-mer head"),
    "done": ("grover_kmer_heads_done", "next-k-mer heads trained"),
}


@contextmanager
def exported(run: RunDir, name: str) -> Iterator[None]:
    """While the block runs, follow the progress files of candidate `name` (`c600`) and set the gauges. For the main rank."""
    stop = threading.Event()
    watcher = _Watcher(run, name)

    def loop() -> None:
        while not stop.wait(READ_SECONDS):
            watcher.read()
        watcher.read()

    thread = threading.Thread(target=loop, name="gauges", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


class _Watcher:
    def __init__(self, run: RunDir, name: str) -> None:
        self.paths = [run.logs / f"{stage}-{name}.jsonl" for stage in ("pretrain", "kmer")]
        self.read_bytes = {path: _size(path) for path in self.paths}  # what an earlier rung wrote is past
        self.tags = {"candidate": name, "run": run.path.name}
        self.gauges = {key: Gauge(gauge, description, tuple(self.tags)) for key, (gauge, description) in GAUGES.items()}

    def read(self) -> None:
        for path in self.paths:
            size = _size(path)
            start = min(self.read_bytes[path], size)  # a run taken up again drops the lines after its checkpoint
            if size == start:
                continue
            with open(path, "rb") as handle:
                handle.seek(start)
                new = handle.read()
            whole = new[: new.rfind(b"\n") + 1]
            self.read_bytes[path] = start + len(whole)
            for line in whole.splitlines():
                for key, value in _values(line).items():
                    self.gauges[key].set(value, self.tags)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _values(line: bytes) -> dict[str, float]:
    """The figures of one line that have a gauge; none of a line that was cut short by a kill."""
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return {key: float(found[key]) for key in GAUGES if isinstance(found.get(key), (int, float))}
