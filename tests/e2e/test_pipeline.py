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
TINY = """
run: {{name: tiny, dir: {run}}}
genome: {{synthetic: {{length_bp: 150000, contigs: 2, promoters: 40, ctcf_sites: 40, tandem_repeats: 5}}}}
bpe: {{cycles: 60}}
split: {{block_bp: 5000}}
windows: {{max_tokens: 62}}
model: {{layers: 1, heads: 2, hidden: 32, feed_forward: 64, positions: 64, dropout: 0.0}}
pretrain:
  candidates: [20, 60]
  budget_bases: 200000
  batch_windows: 16
  micro_batch_windows: 16
  evaluate_windows: 16
  evaluations: 2
  checkpoint_every_steps: 5
  optimizer: {{learning_rate: 1.0e-3}}
selection: {{ks: [2, 3], train_positions: 300, evaluate_positions: 200, forest_positions: 200, forest_trees: 5, bootstrap_samples: 200}}
finetune: {{tasks: [{{name: promoter, planted: promoter, head: {{epochs: 1}}}}]}}
analysis: {{windows: 16}}
tracking: {{log_every_steps: 1}}
"""
# What must not depend on when the driver was killed. Figures' files hold no clock either, but the report quotes run times.
SAME_FILES = ("merges.txt", "vocabulary.json", "table.arrow", "decision.json", "predictions.arrow", "model.safetensors", "tokenizer.json")


def write_config(folder: Path, run: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tiny.yaml"
    path.write_text(TINY.format(run=run))
    return path


def environment(home: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    return kept | {"HOME": str(home), "RAY_AUTH_MODE": "disabled", "DS_ACCELERATOR": "cpu", "PYTHONPATH": str(REPOSITORY)}


def start(config: Path, home: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "grover_dist", "run", str(config)],
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
    process = start(write_config(home, run), home)
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
    process = start(run.parent / "tiny.yaml", run.parent)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert {path: path.stat().st_mtime_ns for path in run.rglob("manifest.json")} == before
    assert "pretrain c20: complete already" not in output  # not even a gang was started to find that


def test_a_driver_killed_in_the_middle_of_each_stage_ends_with_the_same_files(uninterrupted, tmp_path):
    """SIGKILL of the driver as soon as a stage has begun to write, for one stage after the other, in one folder."""
    expected = results(uninterrupted[0])
    assert {name.split("/")[0] for name in expected} >= {"learn", "pretrain", "kmer", "selection", "finetune", "export"}
    run, killed = tmp_path / "run", []
    config = write_config(tmp_path, run)
    for stage in ("genome", "learn", "kmer-task", "pretrain", "kmer", "finetune", "analysis", "export", "report"):
        process = start(config, tmp_path)
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
    process = start(config, tmp_path)
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
        f"--temp-dir={temporary}",
    ]
    head = subprocess.Popen(command, env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    yield f"http://127.0.0.1:{dashboard}"
    head.terminate()
    head.communicate(timeout=60)
    shutil.rmtree(temporary, ignore_errors=True)


def submit(address: str, command: list[str], home: Path) -> subprocess.CompletedProcess:
    """Try until the dashboard answers."""
    deadline = time.monotonic() + 120
    while True:
        done = subprocess.run(
            command, cwd=REPOSITORY, env=environment(home) | {"RAY_ADDRESS": address}, capture_output=True, text=True, timeout=900
        )
        if done.returncode == 0 or time.monotonic() > deadline or "connect" not in (done.stdout + done.stderr).lower():
            return done
        time.sleep(1)


def test_ray_job_submit_runs_the_pipeline_to_the_report(ray_head, tmp_path, uninterrupted):
    run = tmp_path / "run"
    config = write_config(REPOSITORY / "runs" / f"job-{os.getpid()}", run)  # inside the working folder that is uploaded
    try:
        relative = str(config.relative_to(REPOSITORY))
        ray = str(Path(sys.executable).parent / "ray")
        excludes = json.dumps({"excludes": [".git", ".venv", "/infra", "/tests", "/docs"]})
        command = [ray, "job", "submit", "--working-dir", ".", "--runtime-env-json", excludes]
        done = submit(ray_head, [*command, "--", sys.executable, "-m", "grover_dist", "run", relative], tmp_path)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
        assert RunDir.existing(run).latest("report").file("report.html").is_file()
        assert results(run) == results(uninterrupted[0])
        again = submit(ray_head, [sys.executable, "-m", "grover_dist", "submit", relative, "--address", ray_head], tmp_path)
        assert again.returncode == 0, again.stdout[-4000:] + again.stderr[-2000:]
        assert "complete already" in again.stdout and "succeeded" in again.stdout
    finally:
        shutil.rmtree(config.parent, ignore_errors=True)
