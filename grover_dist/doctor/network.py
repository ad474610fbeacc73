"""All-reduce between ranks: does the collective that training waits for work, and how fast?

Run as a program it is one rank; `run_ranks` starts some of them here. Processes of their own, so that a rank that hangs can be ended
and no process group or CUDA context stays behind.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grover_dist.doctor.findings import Finding

SLOW_GB_PER_SECOND = 0.1  # a 1 Gbit/s line
_MEGABYTES = {"gloo": 16, "nccl": 256}
_ROUNDS = 5


@dataclass(frozen=True)
class RankGroup:
    """address, port: where rank 0 listens. backend: "gloo" or "nccl". timeout_seconds: of each collective call."""

    world: int
    address: str
    port: int
    backend: str
    timeout_seconds: float = 30.0


def run_ranks(group: RankGroup, first_rank: int, count: int, seconds: float) -> list[dict[str, Any]]:
    """`count` ranks on this machine; each gives {"rank", "seconds", "bytes"} or {"rank", "error"}. All have ended on return."""
    started = []
    for local in range(count):
        rank = first_rank + local
        environment = {
            **os.environ,
            "RANK": str(rank),
            "LOCAL_RANK": str(local),
            "WORLD_SIZE": str(group.world),
            "MASTER_ADDR": group.address,
            "MASTER_PORT": str(group.port),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]),
        }
        command = [sys.executable, "-m", "grover_dist.doctor.network", group.backend, str(group.timeout_seconds)]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append((rank, process))
    deadline = time.monotonic() + seconds
    return [_outcome(rank, process, deadline) for rank, process in started]


def _outcome(rank: int, process: subprocess.Popen[str], deadline: float) -> dict[str, Any]:
    try:
        said, complained = process.communicate(timeout=max(0.1, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return {"rank": rank, "error": "no answer from the other ranks in time"}
    if process.returncode != 0:
        lines = [line for line in complained.splitlines() if line.strip()]
        return {"rank": rank, "error": lines[-1][:240] if lines else f"ended with {process.returncode}"}
    return json.loads(said.splitlines()[-1])


def judge(outcomes: Sequence[dict[str, Any]], group: RankGroup, nodes: int) -> Finding:
    """One finding of all ranks' outcomes. Bus bandwidth as NCCL's tests define it, 2 (n - 1) / n bytes over seconds, of the slowest."""
    where = f"{group.world} ranks on {nodes} node{'s' if nodes > 1 else ''}"
    broken = [outcome for outcome in outcomes if "error" in outcome]
    interface = "NCCL_SOCKET_IFNAME" if group.backend == "nccl" else "GLOO_SOCKET_IFNAME"
    if broken or len(outcomes) < group.world:
        words = "; ".join(f"rank {outcome['rank']}: {outcome['error']}" for outcome in broken[:2]) or "some ranks were never started"
        remedy = (
            f"let the nodes reach each other on every port (a security group that names itself), and set {interface} to the interface "
            "of the nodes' addresses (`ip -brief address`)"
        )
        if group.backend == "nccl":
            remedy += "; NCCL_DEBUG=INFO tells which way it tried"
        return Finding("all-reduce", "failed", f"{group.backend}, {where}: {words}", remedy)
    seconds, size = max(outcome["seconds"] for outcome in outcomes), outcomes[0]["bytes"]
    rate = 2 * (group.world - 1) / group.world * size / seconds / 1e9
    found = f"{group.backend}, {where}: {rate:,.2f} GB/s"
    if rate < SLOW_GB_PER_SECOND and nodes > 1:
        remedy = f"several ranks a candidate will wait for the line: keep a gang on one node, or mend it ({interface}; EFA; one zone)"
        return Finding("all-reduce", "warning", found, remedy)
    return Finding("all-reduce", "ok", found)


def main(backend: str, timeout_seconds: float) -> None:
    """One rank: warm up, then the mean of some rounds."""
    from datetime import timedelta

    import torch
    import torch.distributed as distributed

    device = torch.device("cpu")
    if backend == "nccl":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    torch.set_num_threads(1)
    distributed.init_process_group(backend, init_method="env://", timeout=timedelta(seconds=timeout_seconds))
    rank, world = distributed.get_rank(), distributed.get_world_size()
    values = torch.ones(_MEGABYTES[backend] * 250_000, device=device)
    for round_number in range(_ROUNDS + 1):
        if round_number == 1:
            _synchronize(device)
            began = time.perf_counter()
        distributed.all_reduce(values)
    _synchronize(device)
    seconds = (time.perf_counter() - began) / _ROUNDS
    expected = float(world) ** (_ROUNDS + 1)
    if not torch.allclose(values, torch.full_like(values, expected), rtol=1e-3):
        raise RuntimeError(f"the sum is wrong: expected {expected}")
    print(json.dumps({"rank": rank, "seconds": seconds, "bytes": values.numel() * values.element_size()}), flush=True)
    distributed.barrier()
    os._exit(0)  # rank 0 keeps the store until all have passed the barrier, and no tear-down can hang


def _synchronize(device: Any) -> None:
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
