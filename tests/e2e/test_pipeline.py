"""The whole pipeline as its user starts it: real Ray, real DeepSpeed, one folder; killed in every stage; as a Ray job."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from grover_dist.cluster.status import STAGES
from grover_dist.run_dir import RunDir

pytestmark = [pytest.mark.e2e, pytest.mark.ray, pytest.mark.distributed, pytest.mark.timeout(1500)]

REPOSITORY = Path(__file__).resolve().parents[2]
SMOKE = "configs/smoke.yaml"
# What must not depend on when the driver was killed. Figures' files hold no clock either, but the report quotes run times.
SAME_FILES = ("merges.txt", "vocabulary.json", "table.arrow", "decision.json", "predictions.arrow", "model.safetensors", "tokenizer.json")


def environment(home: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # a job's entry point is the `python` of its head
    return kept | {"PATH": path, "HOME": str(home), "RAY_AUTH_MODE": "disabled", "DS_ACCELERATOR": "cpu", "PYTHONPATH": str(REPOSITORY)}


def start(run: Path | str, home: Path, *more: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "grover_dist", "run", SMOKE, f"run.dir={run}", *more],
        cwd=REPOSITORY,
        env=environment(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def results(run: Path) -> dict[str, str]:
    """Checksums of the files that must be the same, by artefact and name."""
    found = {}
    for stage in STAGES:
        for manifest in sorted((run / stage).glob("*-????????/manifest.json")):
            for name, described in json.loads(manifest.read_text())["files"].items():
                if Path(name).name in SAME_FILES:
                    found[f"{stage}/{manifest.parent.name}/{name}"] = described["sha256"]
    return found


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    home = tmp_path_factory.mktemp("uninterrupted")
    run = home / "run"
    process = start(run, home)
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output
    return run, output


def test_one_command_goes_from_a_genome_to_a_report(uninterrupted):
    run, output = uninterrupted
    assert [stage for stage in STAGES if RunDir.existing(run).latest(stage) is None] == []
    report = Path(output.strip().splitlines()[-1].removeprefix("report: "))
    assert report.is_file() and "<html" in report.read_text()[:2000].lower()
    exported = RunDir.existing(run).latest("export")
    assert list(exported.path.rglob("model.safetensors")) and list(exported.path.rglob("tokenizer.json"))


def test_a_second_run_of_the_same_command_does_nothing_again(uninterrupted):
    run, _ = uninterrupted
    before = {path: path.stat().st_mtime_ns for path in run.rglob("manifest.json")}
    process = start(run, run.parent)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert {path: path.stat().st_mtime_ns for path in run.rglob("manifest.json")} == before
    assert "pretrain c20: complete already" not in output  # not even a gang was started to find that


def test_a_driver_killed_in_the_middle_of_each_stage_ends_with_the_same_files(uninterrupted, tmp_path):
    """SIGKILL of the driver as soon as a stage has begun to write, for one stage after the other, in one folder."""
    expected = results(uninterrupted[0])
    assert {name.split("/")[0] for name in expected} >= {"learn", "pretrain", "kmer", "selection", "finetune", "export"}
    run, killed = tmp_path / "run", []
    for stage in ("genome", "learn", "kmer-task", "pretrain", "kmer", "finetune", "analysis", "export", "report"):
        process = start(run, tmp_path)
        try:
            while process.poll() is None and not list((run / stage).glob(".*.partial/*")):
                if list((run / stage).glob("*-????????/manifest.json")):
                    break  # too quick to be caught
                time.sleep(0.005)
            else:
                killed.append(stage)
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=60)
    assert {"learn", "pretrain", "kmer", "finetune"} <= set(killed)
    process = start(run, tmp_path)
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output
    assert results(run) == expected


@pytest.fixture
def ray_head(tmp_path):
    """A head with a dashboard on free ports, started as a user starts it, and ended by its own process ids."""
    ports = []
    for _ in range(3):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    gcs, dashboard, client = ports
    temporary = Path(os.environ.get("TMPDIR", "/tmp")) / f"grover-ray-{os.getpid()}"
    command = [
        *(str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={gcs}"),
        *(f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}", "--num-cpus=2", "--disable-usage-stats"),
        # A Ray whose driver a test before this one has killed may hold the default port a while longer; without it the agent takes no jobs.
        "--dashboard-agent-listen-port=0",
        f"--temp-dir={temporary}",
    ]
    head = subprocess.Popen(command, env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    yield f"http://127.0.0.1:{dashboard}"
    head.terminate()
    head.communicate(timeout=60)
    shutil.rmtree(temporary, ignore_errors=True)


def submit(address: str, command: list[str], home: Path) -> subprocess.CompletedProcess:
    """Try until the dashboard answers and has an agent to run the job."""
    deadline = time.monotonic() + 120
    while True:
        done = subprocess.run(
            command, cwd=REPOSITORY, env=environment(home) | {"RAY_ADDRESS": address}, capture_output=True, text=True, timeout=900
        )
        said = (done.stdout + done.stderr).lower()
        if done.returncode == 0 or time.monotonic() > deadline or not ("connect" in said or "no available agent" in said):
            return done
        time.sleep(1)


def test_ray_job_submit_runs_the_pipeline_to_the_report(ray_head, tmp_path, uninterrupted):
    run = tmp_path / "run"
    ray = str(Path(sys.executable).parent / "ray")
    command = [ray, "job", "submit", "--working-dir", ".", "--runtime-env-json", json.dumps({"excludes": [".git"]})]
    done = submit(ray_head, [*command, "--", sys.executable, "-m", "grover_dist", "run", SMOKE, f"run.dir={run}"], tmp_path)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert RunDir.existing(run).latest("report").file("report.html").is_file()
    assert results(run) == results(uninterrupted[0])
    again = submit(ray_head, [sys.executable, "-m", "grover_dist", "submit", SMOKE, f"run.dir={run}", "--address", ray_head], tmp_path)
    assert again.returncode == 0, again.stdout[-4000:] + again.stderr[-2000:]
    assert "complete already" in again.stdout and "succeeded" in again.stdout
