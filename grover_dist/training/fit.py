"""The largest micro-batch that fits: by the memory formula on a CPU, by trying on a GPU."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch

from grover_dist.config import Config
from grover_dist.errors import UserError
from grover_dist.training.plan import Memory, rank_memory_of
from grover_dist.training.ranks import Ranks

CPU_SHARE, GPU_SHARE = 0.7, 0.92  # of what is free: allocators, the loader and evaluation need the rest
_GIB = 2**30


class Probed(Protocol):
    """What the probe needs of an objective (see loop.Objective)."""

    name: str
    model: torch.nn.Module

    def largest_batch(self, samples: int) -> Any:
        """A micro-batch of the longest samples that can come."""

    def loss(self, model: Any, batch: Any, device: torch.device) -> torch.Tensor: ...


def micro_batch_that_fits(objective: Probed, ranks: Ranks, config: Config, vocab_size: int, *, zero_stage: int) -> int:
    """The largest divisor of a rank's share of `pretrain.batch_windows` with room on every rank. Collective: each rank gets the same.

    UserError where not even one window has room.
    """
    share = config.pretrain.batch_windows // ranks.world

    def memory(windows: int) -> Memory:
        return rank_memory_of(config, vocab_size, zero_stage=zero_stage, world=ranks.world, windows=windows)

    if ranks.device.type == "cuda":
        available = round(GPU_SHARE * _free_gpu_bytes(ranks.device))
        fits = _tried_on_gpu(objective, ranks.device, available, memory(1), bf16=config.engine.precision == "bf16")
    else:
        available = round(CPU_SHARE * memory_available() / int(os.environ.get("LOCAL_WORLD_SIZE", ranks.world)))

        def fits(windows: int) -> bool:
            return memory(windows).total <= available

    found = min(ranks.gather(largest_divisor(share, fits)))
    if found == 0:
        raise UserError(
            "not even one window fits into the memory of a rank",
            where=f"{objective.name}, pretrain.micro_batch_windows",
            got=f"{available / _GIB:.1f} GiB to use",
            expected=f"about {memory(1).total / _GIB:.1f} GiB",
            hint="set engine.activation_checkpointing=true or a higher engine.zero_stage with more ranks, or make the model smaller",
        )
    return found


def largest_divisor(share: int, fits: Callable[[int], bool]) -> int:
    """The largest divisor of `share` that fits, by bisection (what fits, fits when smaller); 0 where none does."""
    divisors = [count for count in range(1, share + 1) if share % count == 0]
    low, high = 0, len(divisors)
    while low < high:
        middle = (low + high) // 2
        if fits(divisors[middle]):
            low = middle + 1
        else:
            high = middle
    return divisors[low - 1] if low else 0


def memory_available(root: Path = Path("/")) -> int:
    """Bytes that this process may still take: what the kernel calls available, or less under a control group's limit."""
    lines = dict(line.split(":", 1) for line in (root / "proc/meminfo").read_text().splitlines())
    available = int(lines["MemAvailable"].split()[0]) * 1024
    for limit, used in (
        ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory.current"),
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", "sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            left = int((root / limit).read_text()) - int((root / used).read_text())
        except (OSError, ValueError):  # not there, or "max"
            continue
        available = min(available, max(left, 0))
    return available


def _free_gpu_bytes(device: torch.device) -> int:
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device)


def _tried_on_gpu(objective: Probed, device: torch.device, available: int, state: Memory, *, bf16: bool) -> Callable[[int], bool]:
    """Forward and backward pass of the longest windows; the optimizer's state, not there yet, is added by formula."""

    def fits(windows: int) -> bool:
        model = objective.model.to(device).train()
        torch.cuda.reset_peak_memory_stats(device)
        try:
            with torch.autocast("cuda", dtype=torch.bfloat16, enabled=bf16):
                loss = objective.loss(model, objective.largest_batch(windows), device)
            loss.backward()
            peak = torch.cuda.max_memory_allocated(device)
        except torch.OutOfMemoryError:
            return False
        finally:
            model.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
        return peak + state.optimizer + state.buckets <= available

    return fits


@contextmanager
def out_of_memory_named(name: str, device: torch.device, micro_batch: int):
    """A GPU that is out of memory inside ends in a UserError that says what was asked and what there is."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        free, total = torch.cuda.mem_get_info(device) if device.type == "cuda" else (0, memory_available())
        raise UserError(
            f"out of GPU memory with {micro_batch} samples in a forward pass",
            where=f"{name}, {device}",
            got=f"{str(error).split('.')[1].strip() if '.' in str(error) else error}; {free / _GIB:.1f} of {total / _GIB:.1f} GiB free",
            expected=f"a micro-batch below {micro_batch}",
            hint="pretrain.micro_batch_windows=auto finds the largest that fits; or set engine.activation_checkpointing=true",
        ) from error
