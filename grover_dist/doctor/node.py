"""One node examined: called in this process, or as an actor on each node of a cluster."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import replace

from grover_dist.doctor import machine, storage
from grover_dist.doctor.findings import NodeReport, Request, within
from grover_dist.doctor.network import RankGroup, run_ranks

CHECK_SECONDS = 60.0


class Examiner:
    """Keeps nothing between calls; a class so that one process of a node answers all of them."""

    def examine(self, node: str, request: Request) -> NodeReport:
        bucket = request.bucket or (f"s3://{os.environ['GROVER_BUCKET']}" if os.environ.get("GROVER_BUCKET") else None)
        found = within(
            CHECK_SECONDS,
            {
                "python": machine.check_python,
                "packages": machine.check_packages,
                "GPU": lambda: machine.check_gpus(request.gpus),
                "open files": machine.check_open_files,
                "storage": lambda: [*storage.check_disk(), *storage.check_run_folder(request.folder)],
                "bucket": lambda: storage.check_bucket(bucket),
                "token": lambda: machine.check_token(os.environ, cluster=request.cluster),
            },
        )
        return NodeReport(node, [replace(finding, node=node) for finding in found], machine.facts())

    def now(self) -> float:
        return time.time()

    def leave_mark(self, folder: str, token: str, name: str) -> None:
        storage.leave_mark(folder, token, name)

    def marks_missing(self, folder: str, token: str, names: list[str]) -> list[str]:
        return storage.marks_missing(folder, token, names)

    def remove_mark(self, folder: str, token: str, name: str) -> None:
        storage.remove_mark(folder, token, name)

    def free_port(self, address: str) -> int:
        with socket.socket() as free:
            free.bind((address, 0))
            return free.getsockname()[1]

    def run_ranks(self, group: RankGroup, first_rank: int, count: int, seconds: float) -> list[dict]:
        return run_ranks(group, first_rank, count, seconds)
