"""Bytes and seconds that learning needs, by mode, and the choice between the modes.

The constants are checked by benchmarks/learn.py; docs/scaling.md explains them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from grover_dist.errors import UserError

Memory = Literal["auto", "fast", "lean"]
BYTES_A_BASE: dict[str, float] = {"fast": 11.0, "lean": 6.0}  # at the peak of a partition, with some room
FIXED_BYTES = 8 << 20  # tables of 65,536 tokens, per strip
NANOSECONDS_A_BASE, NANOSECONDS_A_BASE_AND_CYCLE = 32.0, 0.002  # of one core of 2.5 GHz, fast mode
LEAN_FACTOR = 3.0


def partition_bytes(n_rows: int, memory: Literal["fast", "lean"], strips: int = 1) -> int:
    """What a partition of so many rows needs at its peak."""
    return int(BYTES_A_BASE[memory] * n_rows) + strips * FIXED_BYTES


def learn_rounds(cycles: int) -> float:
    """Round trips between coordinator and workers, as on human and yeast DNA: 101 for 600 cycles, 474 for 5,000."""
    return min(cycles, 45 + cycles / 11.6)


def learn_seconds(
    n_rows: int, cycles: int, cores: int, memory: Literal["fast", "lean"] = "fast", *, round_trip_seconds: float = 0.003
) -> float:
    """Wall seconds of learning on so many cores, without loading the genome and writing the store."""
    nanoseconds = (NANOSECONDS_A_BASE + NANOSECONDS_A_BASE_AND_CYCLE * cycles) * (LEAN_FACTOR if memory == "lean" else 1.0)
    return 1e-9 * nanoseconds * n_rows / cores + learn_rounds(cycles) * round_trip_seconds


def available_bytes() -> int | None:
    """Memory that this process may still take: of the machine and, where there is one, of its control group. None where neither is told."""
    found = []
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        found += [1024 * int(line.split()[1]) for line in meminfo.read_text().splitlines() if line.startswith("MemAvailable:")]
    for limit, used in (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")):
        try:
            text = Path("/sys/fs/cgroup", limit).read_text().strip()
            if text.isdigit():
                found.append(max(0, int(text) - int(Path("/sys/fs/cgroup", used).read_text())))
        except OSError:
            continue
    return min(found) if found else None


def choose_memory(n_rows: int, memory: Memory, available: int | None = None) -> Literal["fast", "lean"]:
    """The mode for a partition: as asked, or for `auto` fast where it takes less than half of the memory that is left, else lean.

    available: bytes; what the machine tells when None. Raises UserError, naming the bytes, where the mode does not fit.
    """
    available = available_bytes() if available is None else available
    if memory == "auto":
        memory = "fast" if available is None or partition_bytes(n_rows, "fast") < available / 2 else "lean"
    needed = partition_bytes(n_rows, memory)
    if available is not None and needed > available:
        raise UserError(
            f"too little memory to learn {n_rows:,} bases here in {memory} mode",
            where="resources.bpe_memory",
            got=f"{available:,} bytes free",
            expected=f"{needed:,} bytes",
            hint="use resources.bpe_memory=lean" if memory == "fast" else "spread the genome over more nodes (resources.bpe_actors)",
        )
    return memory
