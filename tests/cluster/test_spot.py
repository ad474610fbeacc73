"""A spot notice, from the metadata service to the checkpoint and on to another node. The watch is the one that real nodes run."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.raylets import REPOSITORY, Nodes
from tests.infra.clouds import environment_names
from tests.infra.fake_node import Metadata, until

pytestmark = [
    pytest.mark.ray,
    pytest.mark.distributed,
    pytest.mark.slow,
    pytest.mark.timeout(2400),
    pytest.mark.skipif(not all(map(shutil.which, ("bash", "curl", "pgrep"))), reason="the node script needs bash, curl and pgrep"),
]


def start_watch(folder: Path, nodes: Nodes, metadata: Metadata) -> subprocess.Popen:
    """`grover-node watch` of a worker, with a systemctl that ends this worker's `ray start`."""
    (folder / "bin").mkdir()
    systemctl = folder / "bin/systemctl"
    systemctl.write_text(f'#!/bin/sh\necho "$*" >> {folder}/systemctl-calls\nkill -TERM {nodes.processes["worker1"].pid}\n')
    systemctl.chmod(0o755)
    values = {name: "unused" for name in environment_names()} | {
        "GROVER_ROLE": "worker",
        "GROVER_REGION": "us-east-1",
        "GROVER_HEAD_ADDRESS": "127.0.0.1",
        "GROVER_IMDS": metadata.url,
        "GROVER_HEAD_PORT": nodes.gcs_port,
        "RAY_AUTH_MODE": "disabled",
        "GROVER_STATE": folder,
        "GROVER_VENV": sys.prefix,
        "GROVER_PATH": f"{folder}/bin:{os.defpath}",
        "GROVER_WATCH_SECONDS": 1,
    }
    (folder / "node.env").write_text("".join(f"{key}={value}\n" for key, value in values.items()))
    return subprocess.Popen(
        ["bash", str(REPOSITORY / "infra/scripts/grover-node.sh"), "watch"],
        env={"GROVER_NODE_ENV": str(folder / "node.env")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def steps_made(run: Path) -> int:
    lines = [line for path in run.glob("pretrain/.*.partial/**/metrics.jsonl") for line in path.read_text().splitlines()]
    return max((json.loads(line)["step"] for line in lines if line.endswith("}")), default=0)


def test_a_notice_leads_to_a_checkpoint_and_the_run_goes_on_on_another_node(tmp_path):
    run, state = tmp_path / "run", tmp_path / "worker1"
    state.mkdir()
    metadata = Metadata("127.0.0.1", "i-1")
    nodes = Nodes(tmp_path)
    driver = watch = None
    try:
        nodes.start_head(cpus=1)
        nodes.start_worker(1, cpus=2, environment={"GROVER_STOP_FILE": str(state / "leaving")})
        watch = start_watch(state, nodes, metadata)
        # No checkpoint of its own accord; the gang's two CPUs are on the worker alone.
        settings = ["pretrain.candidates=[60]", "pretrain.budget_bases=60000000", "pretrain.checkpoint_every_steps=1000000"]
        settings += ["resources.cpus_per_rank=2", "resources.max_failures=0", "resources.wait_for_room_minutes=5"]
        command = [sys.executable, "-m", "grover_dist", "pretrain", "configs/smoke.yaml", f"run.dir={run}", *settings]
        with open(tmp_path / "driver.log", "w") as log:
            driver = subprocess.Popen(
                command, cwd=REPOSITORY, env=nodes.environment | {"RAY_ADDRESS": nodes.address}, stdout=log, stderr=log, text=True
            )
        words = (tmp_path / "driver.log").read_text
        until(lambda: driver.poll() is not None or steps_made(run) >= 5, seconds=900, what="five steps")
        assert driver.poll() is None, words()

        metadata.values["spot/instance-action"] = json.dumps({"action": "terminate", "time": "2026-01-01T00:02:00Z"})
        told, _ = watch.communicate(timeout=200)
        assert "leaving: spot notice" in told and "Ray ends here" in told, told
        assert (state / "systemctl-calls").read_text().strip() == "stop grover-ray.service"
        saved = re.search(r"told to stop after step (\d+); saved", words())
        assert saved, f"{told}\n{words()}"

        nodes.start_worker(2, cpus=2)
        resumed = f"goes on from step {saved[1]} of"
        until(lambda: driver.poll() is not None or resumed in words(), seconds=500, what=resumed)
        until(lambda: driver.poll() is not None or steps_made(run) > int(saved[1]), seconds=120, what="a step after the resume")
        assert resumed in words() and driver.poll() is None, words()
    finally:
        for process in (driver, watch):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait(timeout=20)
        nodes.close()
        metadata.close()
