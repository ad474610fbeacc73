"""What a training run tells: JSON lines, and through trackers elsewhere; throughput, MFU, memory."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from grover_dist.run_dir import write_atomically
from grover_dist.training.trackers import Tracker


class MetricsWriter:
    """One JSON object a line in each of `paths`, and the same values to each of `trackers`.

    A line holds `labels`, `step` (steps made) and the values; without paths and trackers nothing is written.
    """

    def __init__(self, *paths: Path, trackers: Sequence[Tracker] = (), labels: Mapping[str, object] | None = None) -> None:
        self._paths, self._trackers = paths, trackers
        self._labels = dict(labels or {})

    def begin(self, first_step: int) -> None:
        """Drop what a run that was cut off wrote after the checkpoint from which this one goes on."""
        for path in self._paths:
            if path.exists():
                kept = [line for line in path.read_text().splitlines() if _step_of(line) <= first_step]
                write_atomically(path, "".join(f"{line}\n" for line in kept).encode())
        for tracker in self._trackers:
            tracker.begin(first_step)

    def write(self, step: int, **values: float) -> None:
        line = json.dumps({**self._labels, "step": step, **values}) + "\n"
        for path in self._paths:
            with open(path, "a") as handle:
                handle.write(line)
        for tracker in self._trackers:
            tracker.write(step, values)

    def close(self) -> None:
        for tracker in self._trackers:
            tracker.close()


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return float("inf")  # a line cut short by a kill


class Throughput:
    """Tokens and bases a second of training, evaluation and checkpoints left out, and the share of time spent waiting for data.

    flops_per_token: of forward and backward pass (see model.size). peak_flops: operations a second that all ranks together could make;
    their quotient, times the tokens a second, is the model FLOPs utilisation (MFU; Chowdhery et al. 2022, PaLM, appendix B). Left out
    where either is 0.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter, *, flops_per_token: float = 0.0, peak_flops: float = 0.0) -> None:
        self._clock = clock
        self._utilisation = flops_per_token / peak_flops if peak_flops else 0.0
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
        mfu = {"mfu": self._tokens / seconds * self._utilisation} if self._utilisation else {}
        return {
            **mfu,
            "tokens_per_second": self._tokens / seconds,
            "bases_per_second": self._bases / seconds,
            "seconds_per_step": seconds / max(self._steps, 1),
            "loader_wait_share": self._waited / seconds,
            "padding_share": self._padding / max(self._positions, 1),
        }


def peak_memory_bytes(device: torch.device) -> int:
    """The most that this rank has held: on a GPU in torch's allocator, else the process in memory (resident, mapped files included)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
