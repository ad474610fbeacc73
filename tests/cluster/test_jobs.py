"""Jobs on a head and two workers as separate nodes; the head dies with everything on it, comes back, and the run goes on."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from grover_dist.cluster.submit import write_working_folder
from grover_dist.config import load_config
from grover_dist.run_dir import RunDir
from tests.cluster.raylets import REPOSITORY, Nodes
from tests.infra.fake_node import until

SMOKE = REPOSITORY / "configs/smoke.yaml"
LARGEST_BYTES = 2_000_000  # Ray refuses 500 MB, and every node fetches it


def test_the_working_folder_is_the_package_and_the_settings_and_nothing_else(tmp_path):
    write_working_folder(load_config(SMOKE, [f"run.dir={tmp_path / 'run'}"]), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"grover_dist", "config.yaml"}
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < LARGEST_BYTES
    assert {path.suffix for path in files} <= {".py", ".yaml", ".html", ".css", ".jaspar", ".js", ".json", ".txt", ".md"}
    assert not [path for path in tmp_path.rglob("*") if path.name in (".git", "runs", "data", "__pycache__")]
    assert load_config(tmp_path / "config.yaml").run.dir == tmp_path / "run"


def cli(nodes: Nodes, *arguments: str, seconds: int = 400) -> subprocess.CompletedProcess:
    """Repeated while the dashboard does not answer yet."""
    deadline = time.monotonic() + 150
    command = [sys.executable, "-m", "grover_dist", *arguments, "--address", nodes.dashboard]
    while True:
        done = subprocess.run(command, cwd=REPOSITORY, env=nodes.environment, capture_output=True, text=True, timeout=seconds)
        if "does not take the job" not in done.stderr or time.monotonic() > deadline:
            return done
        time.sleep(2)


def genome_and_corpus(run: Path) -> bool:
    return all(list((run / stage).glob("*-????????/manifest.json")) for stage in ("genome", "learn"))


@pytest.mark.ray
@pytest.mark.distributed
@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_the_head_is_killed_and_the_resubmitted_run_goes_on(tmp_path):
    run = tmp_path / "run"
    nodes = Nodes(tmp_path, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="of-this-test-alone")
    settings = [f"run.dir={run}", "selection.ks=[2]", "finetune.tasks=[]", "resources.wait_for_room_minutes=5"]
    try:
        nodes.start_head(cpus=1)
        nodes.start_worker(1)
        nodes.start_worker(2)
        # A gang of two ranks needs two CPUs at once beside the driver's own place: two nodes.
        first = cli(nodes, "submit", str(SMOKE), *settings, "resources.ranks_per_candidate=2", "--no-follow")
        assert first.returncode == 0 and "submit again to go on" in first.stdout, first.stdout + first.stderr
        until(lambda: genome_and_corpus(run) and list(run.glob("pretrain/.*.partial")), seconds=900, what="a candidate at work")
        nodes.kill("head")
        kept = {path: path.stat().st_mtime_ns for path in run.rglob("manifest.json")}
        assert kept and RunDir.existing(run).latest("report") is None

        nodes.stop()  # raylets end with their head; their machines start Ray again
        nodes.start_head(cpus=1)
        nodes.start_worker(1)
        nodes.start_worker(2)
        wrong = subprocess.run(
            [sys.executable, "-m", "grover_dist", "submit", str(SMOKE), *settings, "--address", nodes.dashboard],
            cwd=REPOSITORY,
            env=nodes.environment | {"RAY_AUTH_TOKEN": "another"},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert wrong.returncode != 0
        again = cli(nodes, "submit", str(SMOKE), *settings, "resources.ranks_per_candidate=2", seconds=900)
        assert again.returncode == 0 and "succeeded" in again.stdout, again.stdout[-4000:] + again.stderr[-2000:]
        assert "genome: complete already" in again.stdout
        assert {path: path.stat().st_mtime_ns for path in kept} == kept, "what was complete is not made again"
        assert RunDir.existing(run).latest("report").file("report.html").is_file()
        examined = cli(nodes, "doctor", str(SMOKE), f"run.dir={run}")
        assert "gloo, 3 ranks on 3 nodes" in examined.stdout and "is one folder" in examined.stdout, examined.stdout
    finally:
        nodes.close()
