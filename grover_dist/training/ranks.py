"""The ranks of one gang, whoever started them: a plain process, torchrun, the deepspeed launcher, Slurm or Ray Train."""

from __future__ import annotations

import hashlib
import math
import os
import socket
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.distributed

from grover_dist.errors import UserError
from grover_dist.model.device import local_device
from grover_dist.training.launcher import end_with_launcher, init_from_environment, was_launched

if not torch.cuda.is_available():
    # DeepSpeed reads this on import. Without it a machine with a CUDA build of torch and no GPU is taken for a GPU machine.
    os.environ.setdefault("DS_ACCELERATOR", "cpu")


@dataclass(frozen=True)
class Ranks:
    """This process's place in its gang, and the few exchanges that the loop needs. Every method is a collective call."""

    rank: int
    world: int
    device: torch.device

    @classmethod
    def join(cls, timeout_seconds: float = 1_800, *, start_timeout_seconds: float = 300, threads: int = 1) -> Ranks:
        """Take part in the process group that exists, or that the launcher's variables name; else be a gang of one.

        timeout_seconds: how long a collective call waits for a lost or hanging rank (a group that exists keeps its own).
        start_timeout_seconds: how long the first ranks wait for the last; UserError then names the missing ones.
        threads: torch threads of this rank; more than its share of the cores slows every rank down.
        """
        torch.set_num_threads(max(1, threads))
        launched = not torch.distributed.is_initialized() and was_launched()
        local_rank = int(os.environ.setdefault("LOCAL_RANK", "0"))  # DeepSpeed insists on the variable
        on_gpu = local_device().type == "cuda"
        if on_gpu:
            torch.cuda.set_device(local_rank % torch.cuda.device_count())
        device = local_device()
        if not torch.distributed.is_initialized():
            backend, timeout = ("nccl" if on_gpu else "gloo"), timedelta(seconds=timeout_seconds)
            if launched:
                end_with_launcher()
                init_from_environment(backend, timeout_seconds=timeout_seconds, start_timeout_seconds=start_timeout_seconds)
            else:
                # A store in this process's memory: no port, so gangs of one on the same host cannot meet.
                store = torch.distributed.HashStore()
                torch.distributed.init_process_group(backend, store=store, rank=0, world_size=1, timeout=timeout)
        return cls(torch.distributed.get_rank(), torch.distributed.get_world_size(), device)

    @staticmethod
    def end_process(code: int = 0) -> NoReturn:
        """Close the process group and end this process, which a launcher started for one rank and which has nothing more to do.

        The process ends without the interpreter's tear-down: DeepSpeed holds groups whose threads outlive `destroy_process_group`,
        and now and then they abort the tear-down of a rank whose work is done, which the launcher then reports as a failure.
        """
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    def first(self, world: int) -> Ranks | None:
        """The gang of the first `world` ranks, in a process group of its own; None on the others, which have nothing to do. Collective,
        and only before anything else has made use of the group.
        """
        if world == self.world:
            return self
        host, timeout = os.environ.get("MASTER_ADDR", "127.0.0.1"), timedelta(seconds=300)
        options = {"wait_for_workers": False, "timeout": timeout}
        store = torch.distributed.TCPStore(host, 0, world, is_master=True, **options) if self.is_main else None
        port = self.on_main(lambda: store.port)
        backend = torch.distributed.get_backend()
        torch.distributed.destroy_process_group()
        if self.rank >= world:
            return None
        store = store or torch.distributed.TCPStore(host, port, world, is_master=False, **options)
        torch.distributed.init_process_group(backend, store=store, rank=self.rank, world_size=world, timeout=timeout)
        os.environ["WORLD_SIZE"] = str(world)
        return Ranks(self.rank, world, self.device)

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @property
    def is_first_of_machine(self) -> bool:
        """Of the ranks that a launcher started on this machine; it does what is to be done once for each machine's own disk."""
        return os.environ.get("LOCAL_RANK", "0") == "0"

    def barrier(self) -> None:
        if self.world > 1:
            torch.distributed.barrier()

    def sum(self, values: Sequence[float]) -> list[float]:
        """The values added over the ranks, in float64 and in the same order on each rank; every rank gets the sums."""
        if self.world == 1:
            return [float(value) for value in values]
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(total)
        return total.tolist()

    def gather(self, value: Any) -> list[Any]:
        """One picklable value of each rank, in the order of the ranks; every rank gets the list."""
        if self.world == 1:
            return [value]
        gathered: list[Any] = [None] * self.world
        torch.distributed.all_gather_object(gathered, value)
        return gathered

    def on_machines(self, work: Callable[[], Any]) -> list[Any]:
        """The first rank of each machine works, the others wait; every rank gets the picklable values. A fault of one is raised on all."""
        value, fault = None, None
        if self.is_first_of_machine:
            try:
                value = work()
            except Exception as error:
                fault = error
        gathered = self.gather((self.is_first_of_machine, value, self._told(fault)))
        if fault is not None:
            raise fault
        for _, _, other in gathered:
            if other is not None:
                raise other
        return [found for first, found, _ in gathered if first]

    def _told(self, fault: Exception | None) -> Exception | None:
        """A fault in the form that other ranks can be sent."""
        if fault is None or isinstance(fault, UserError):
            return fault
        return RuntimeError(f"rank {self.rank}: {type(fault).__name__}: {fault}")

    def agree(self, facts: Mapping[str, object]) -> None:
        """Stop every rank with the same UserError unless all were given the same facts (name -> printable value). The error names the
        ranks that differ from most, or from the first where there is no majority.
        """
        told = self.gather((socket.gethostname(), {name: str(value) for name, value in facts.items()}))
        usual = {name: Counter(given[name] for _, given in told).most_common(1)[0][0] for name in facts}
        different = [
            f"rank {rank} on {host}: {name} {given[name]} (the others: {usual[name]})"
            for rank, (host, given) in enumerate(told)
            for name in usual
            if given[name] != usual[name]
        ]
        if different:
            raise UserError(
                "the ranks were not given the same work",
                where="; ".join(different),
                hint="start every rank with the same settings and code, and with a run.dir that all hosts share",
            )

    def on_main(self, work: Callable[[], Any]) -> Any:
        """Rank 0 works, the others wait; every rank gets the picklable value. What rank 0 raises is raised on every rank, so that a
        fault of the settings or the disk ends the whole gang at once, not one rank now and the others at their timeout.
        """
        value, fault = None, None
        if self.is_main:
            try:
                value = work()
            except Exception as error:
                fault = error
        if self.world > 1:
            held = [(value, self._told(fault))]
            torch.distributed.broadcast_object_list(held, src=0)
            if not self.is_main:
                value, fault = held[0]
        if fault is not None:
            raise fault
        return value


def usable_ranks(world: int, batches: Sequence[int]) -> int:
    """The most of `world` ranks that can take an even share of every batch."""
    common = math.gcd(*batches)
    return max(count for count in range(1, world + 1) if common % count == 0)


@cache
def code_version() -> str:
    """The version of the product and a digest of its source files as this rank imports them."""
    import grover_dist

    folder, digest = Path(grover_dist.__file__).parent, hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return f"{grover_dist.__version__}/{digest.hexdigest()[:12]}"
