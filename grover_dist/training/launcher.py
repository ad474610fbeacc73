"""What a rank owes to the launcher that started it: its place, a meeting of all ranks within a bounded time, and an end with it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import torch.distributed

from grover_dist.errors import UserError

HOSTFILE_VARIABLE = "GROVER_HOSTFILE"  # set by launch/deepspeed.sh, so that an error can name the host
_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_OPEN_MPI = {  # by its own names; mpirun does not say where the ranks meet
    "RANK": "OMPI_COMM_WORLD_RANK",
    "WORLD_SIZE": "OMPI_COMM_WORLD_SIZE",
    "LOCAL_RANK": "OMPI_COMM_WORLD_LOCAL_RANK",
    "LOCAL_WORLD_SIZE": "OMPI_COMM_WORLD_LOCAL_SIZE",
}
_PROGRAMS = ("torchrun", "torch.distributed.run", "deepspeed", "deepspeed.launcher.launch", "mpirun", "orted", "prterun", "prted")
_GRACE_SECONDS = 30.0  # what a preempted rank may take to save and leave


def was_launched() -> bool:
    """Whether the environment names a place in a gang. UserError where it does so by half."""
    if "RANK" not in os.environ and int(os.environ.get(_OPEN_MPI["WORLD_SIZE"], "1")) > 1:
        os.environ.update({name: os.environ[own] for name, own in _OPEN_MPI.items()})
    given = [name for name in _VARIABLES if name in os.environ]
    if "RANK" not in given and "WORLD_SIZE" not in given:
        return False
    if len(given) < len(_VARIABLES):
        raise UserError(
            "the launcher's variables are not complete",
            where="environment",
            got=", ".join(given),
            expected=", ".join(_VARIABLES),
            hint="start through torchrun, the deepspeed launcher or Ray, hand over MASTER_ADDR and MASTER_PORT with mpirun's -x, or unset "
            "RANK and WORLD_SIZE for a single process",
        )
    return True


def init_from_environment(backend: str, *, timeout_seconds: float, start_timeout_seconds: float) -> None:
    """Make the process group that the launcher's variables describe. UserError, which names who is missing, unless every rank
    is there within `start_timeout_seconds`.
    """
    timeout = timedelta(seconds=timeout_seconds)
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":  # torchrun's agents have met already, and one of them holds the store
        torch.distributed.init_process_group(backend, init_method="env://", timeout=timeout)
        return
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    store = torch.distributed.PrefixStore("group", _meet(rank, world, start_timeout_seconds))
    torch.distributed.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=timeout)


def _meet(rank: int, world: int, timeout_seconds: float) -> torch.distributed.TCPStore:
    host, port, timeout = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), timedelta(seconds=timeout_seconds)
    try:
        store = torch.distributed.TCPStore(host, port, world, is_master=rank == 0, timeout=timeout, wait_for_workers=False)
        store.set(f"rank/{rank}", socket.gethostname())
    except (torch.distributed.DistError, RuntimeError, ValueError) as error:
        raise UserError(
            f"rank {rank} cannot {'listen' if rank == 0 else 'reach rank 0'} at {host}:{port}",
            where=f"{socket.gethostname()}; {_name(0)}",
            got=str(error).splitlines()[0],
            hint="check that the host of rank 0 runs its part, and that MASTER_ADDR and MASTER_PORT are reachable from here and free",
        ) from None
    keys = [f"rank/{other}" for other in range(world)]
    try:
        store.wait(keys, timeout)
    except torch.distributed.DistError:
        missing = [other for other, key in enumerate(keys) if not store.check([key])]
        raise UserError(
            f"{len(missing)} of {world} ranks did not come within {timeout_seconds:g} s",
            where="; ".join(map(_name, missing)),
            got="; ".join(f"rank {other} on {store.get(key).decode()}" for other, key in enumerate(keys) if other not in missing),
            hint="see what the missing hosts' own output says; resources.start_timeout_seconds is how long the others wait",
        ) from None
    return store


def _name(rank: int) -> str:
    """The rank, and its host where the host file is known."""
    hosts: list[str] = []
    with contextlib.suppress(KeyError, OSError, ValueError):
        for line in Path(os.environ[HOSTFILE_VARIABLE]).read_text().splitlines():
            words = line.partition("#")[0].split()
            if words:
                hosts += [words[0]] * int(dict(word.split("=", 1) for word in words[1:])["slots"])
    return f"rank {rank} ({hosts[rank]})" if rank < len(hosts) else f"rank {rank}"


def end_with_launcher(*, poll_seconds: float = 0.5, grace_seconds: float = _GRACE_SECONDS) -> None:
    """From now on this rank ends when a process that launched it is gone: as SIGTERM would end it (in the loop: save, then leave),
    and in any case after `grace_seconds`. Without it a rank trains on beside the run that takes its place. Does nothing where no
    launcher is among the ancestors.
    """
    launchers = _launchers()
    if not launchers:
        return

    def watch() -> None:
        while all(_started(number) == started for number, started in launchers):
            time.sleep(poll_seconds)
        with contextlib.suppress(OSError):  # the launcher may have held the other end of a pipe
            print(f"grover-dist: rank {os.environ.get('RANK')}: its launcher is gone; saves and leaves", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(grace_seconds)
        os._exit(1)

    threading.Thread(target=watch, name="launcher", daemon=True).start()


def _launchers() -> list[tuple[int, str]]:
    """Process number and start time of the ancestors that launched this process: torchrun's agent, or mpirun or its daemon; DeepSpeed's
    launcher of this host with the deepspeed command above it, or, on another host, the shell and the ssh session that carry it. A user's
    own shell is none.
    """
    chain: list[tuple[int, str]] = []
    number, words = os.getppid(), _words(os.getppid())
    while any(Path(word).name in _PROGRAMS for word in words):
        over_ssh = "deepspeed.launcher.launch" in words
        chain.append((number, _started(number) or ""))
        number = int(_status(number)[1])
        words = _words(number)
    session = list[tuple[int, str]]()
    while chain and over_ssh and number > 1 and words:
        session.append((number, _started(number) or ""))
        if words[0].startswith("sshd"):
            return chain + session
        number = int(_status(number)[1])
        words = _words(number)
    return chain


def _words(number: int) -> list[str]:
    """The first words of a process's command line; none for a process that cannot be seen."""
    try:
        return Path(f"/proc/{number}/cmdline").read_bytes().decode(errors="replace").split("\0")[:6]
    except OSError:
        return []


def _status(number: int) -> list[str]:
    """Fields of /proc/N/stat after the name, which may hold blanks: state, parent, ... Raises OSError for a process that is gone."""
    return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()


def _started(number: int) -> str | None:
    """When the process started, which tells it from a later one of the same number; None where it has ended."""
    try:
        fields = _status(number)
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]
