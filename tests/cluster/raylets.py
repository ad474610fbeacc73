"""A head and workers as separate nodes on this machine: `ray start` on loopback addresses of their own, ended by their process ids."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def free_ports(count: int, address: str = "127.0.0.1") -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for held in sockets:
            held.bind((address, 0))
        return [held.getsockname()[1] for held in sockets]
    finally:
        for held in sockets:
            held.close()


class Nodes:
    """`nodes[0]` is the head. Every node has a temporary folder and a session (process group) of its own."""

    def __init__(self, home: Path, **environment: str) -> None:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        self.environment = {
            **kept,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",  # a job's entry point is the `python` of its head
            "HOME": str(home),
            "RAY_AUTH_MODE": "disabled",
            "DS_ACCELERATOR": "cpu",
            "PYTHONPATH": str(REPOSITORY),
            "RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES": str(100 * 2**20),
            **environment,
        }
        self.folder = Path(tempfile.mkdtemp(prefix="nodes-"))  # short: Ray's sockets live below it
        self.log = home / "nodes.log"
        self.gcs_port, self.dashboard_port, self.client_port, self.metrics_port = free_ports(4)
        self.started: list[subprocess.Popen] = []
        self.processes: dict[str, subprocess.Popen] = {}

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.gcs_port}"

    @property
    def dashboard(self) -> str:
        return f"http://127.0.0.1:{self.dashboard_port}"

    def start_head(self, *, cpus: int = 1, environment: Mapping[str, str] | None = None) -> None:
        flags = ["--head", f"--port={self.gcs_port}", f"--dashboard-port={self.dashboard_port}", "--dashboard-host=127.0.0.1"]
        flags += [f"--ray-client-server-port={self.client_port}", f"--metrics-export-port={self.metrics_port}"]
        before = self._heads_up()
        self._start("head", [*flags, "--node-ip-address=127.0.0.1"], cpus, environment)
        deadline = time.monotonic() + 180
        while self._heads_up() == before:  # a worker that finds no head gives up; on a machine of its own systemd starts it again
            assert self.processes["head"].poll() is None and time.monotonic() < deadline, self.log.read_text()[-3000:]
            time.sleep(0.5)

    def _heads_up(self) -> int:
        return self.log.read_text().count("Ray runtime started") if self.log.exists() else 0

    def start_worker(self, number: int, *, cpus: int = 1, environment: Mapping[str, str] | None = None) -> None:
        """Joined on return. A raylet gives up when a busy machine is slow to start its helpers; as under systemd it is started again."""
        name, flags = f"worker{number}", [f"--address={self.address}", f"--node-ip-address=127.0.0.{1 + number}"]
        for _ in range(5):
            self._start(name, flags, cpus, environment)
            while self.processes[name].poll() is None:
                if any("Raylet of id" in path.read_text() for path in (self.folder / name).glob("session_*/logs/raylet.out")):
                    return
                time.sleep(0.5)
        raise AssertionError(self.log.read_text()[-3000:])

    def _start(self, name: str, flags: list[str], cpus: int, environment: Mapping[str, str] | None) -> None:
        command = [str(Path(sys.executable).parent / "ray"), "start", "--block", *flags, f"--num-cpus={cpus}", "--num-gpus=0"]
        command += ["--disable-usage-stats", "--dashboard-agent-listen-port=0", "--min-worker-port=0", "--max-worker-port=0"]
        command += [f"--temp-dir={self.folder / name}"]
        shutil.rmtree(self.folder / name, ignore_errors=True)
        with open(self.log, "a") as log:
            process = subprocess.Popen(
                command, env={**self.environment, **(environment or {})}, stdout=log, stderr=log, start_new_session=True
            )
        self.processes[name] = process
        self.started.append(process)

    def kill(self, name: str) -> None:
        """As a machine that loses its power: every process of the node at once."""
        process = self.processes.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=30)

    def stop(self) -> None:
        """All nodes, each by its own process."""
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(timeout=40)
            except subprocess.TimeoutExpired:
                process.kill()
        for process in self.started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # what outlived its `ray start`
        self.processes.clear()
        self.started.clear()

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
