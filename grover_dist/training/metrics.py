"""What a training run tells: JSON lines, TensorBoard, throughput."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from grover_dist.run_dir import write_atomically


class MetricsWriter:
    """One JSON object a line in each of `paths`, and TensorBoard scalars where `tensorboard` names a folder.

    A line holds `labels`, `step` (steps made) and the values; without paths and folder nothing is written.
    """

    def __init__(self, *paths: Path, tensorboard: Path | None = None, labels: Mapping[str, object] | None = None) -> None:
        self._paths = paths
        self._labels = dict(labels or {})
        self._tensorboard_folder, self._tensorboard = tensorboard, None

    def begin(self, first_step: int) -> None:
        """Drop what a run that was cut off wrote after the checkpoint from which this one goes on."""
        for path in self._paths:
            if path.exists():
                kept = [line for line in path.read_text().splitlines() if _step_of(line) <= first_step]
                write_atomically(path, "".join(f"{line}\n" for line in kept).encode())
        if self._tensorboard_folder is not None:
            from torch.utils.tensorboard import SummaryWriter  # a second of imports, so not before it is needed

            self._tensorboard = SummaryWriter(str(self._tensorboard_folder), purge_step=first_step + 1)

    def write(self, step: int, **values: float) -> None:
        line = json.dumps({**self._labels, "step": step, **values}) + "\n"
        for path in self._paths:
            with open(path, "a") as handle:
                handle.write(line)
        if self._tensorboard is not None:
            for name, value in values.items():
                self._tensorboard.add_scalar(name, value, step)

    def close(self) -> None:
        if self._tensorboard is not None:
            self._tensorboard.close()
            self._tensorboard = None


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return float("inf")  # a line cut short by a kill


class Throughput:
    """Tokens and bases a second of training, evaluation and checkpoints left out, and the share of time spent waiting for data."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self.restart()

    def restart(self) -> None:
        self._started, self._paused, self._waited = self._clock(), 0.0, 0.0
        self._tokens = self._bases = self._steps = self._positions = self._padding = 0

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time inside does not count."""
        began = self._clock()
        yield
        self._paused += self._clock() - began

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Time inside counts, and is reported as waiting for data."""
        began = self._clock()
        yield
        self._waited += self._clock() - began

    def add(self, *, tokens: float, bases: float, positions: float = 0, padding: float = 0) -> None:
        """One optimizer step, of all ranks; `padding` of its `positions` hold nothing."""
        self._tokens += int(tokens)
        self._bases += int(bases)
        self._positions += int(positions)
        self._padding += int(padding)
        self._steps += 1

    def read(self) -> dict[str, float]:
        """Rates since the last `restart`."""
        seconds = max(self._clock() - self._started - self._paused, 1e-9)
        return {
            "tokens_per_second": self._tokens / seconds,
            "bases_per_second": self._bases / seconds,
            "seconds_per_step": seconds / max(self._steps, 1),
            "loader_wait_share": self._waited / seconds,
            "padding_share": self._padding / max(self._positions, 1),
        }
