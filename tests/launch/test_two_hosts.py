"""The deepspeed launcher over two real hosts (see hosts.py): by pdsh and ssh, by Open MPI and ssh, and without ssh."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from grover_dist.corpus.build import build_corpus
from grover_dist.genome.stage import build_genome
from grover_dist.run_dir import RunDir
from tests.launch.hosts import Hosts, why_no_hosts
from tests.pretrain.small_run import CYCLES, small_config

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPT = REPOSITORY / "launch" / "deepspeed.sh"
SETTINGS = ("model.dropout=0", "pretrain.budget_bases=20000", "tracking.tensorboard=false", "engine.zero_stage=3")
pytestmark = [pytest.mark.distributed, pytest.mark.skipif(why_no_hosts() is not None, reason=str(why_no_hosts()))]


@pytest.fixture(scope="module")
def hosts(tmp_path_factory):
    made = Hosts(tmp_path_factory.mktemp("hosts"), 2)
    yield made
    made.close()


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    config = small_config(tmp_path_factory.mktemp("two-hosts") / "run")
    run = RunDir.open(config)
    build_corpus(config, run, build_genome(config, run, say=lambda line: None), say=lambda line: None)
    return run


def hostfile(folder: Path, *names: str) -> Path:
    path = folder / "hosts"
    path.write_text("".join(f"{name} slots=1\n" for name in names))
    return path


def copy_of(learned: RunDir, target: Path) -> list[str]:
    """Arguments of a run of its own."""
    shutil.copytree(learned.path, target, ignore=shutil.ignore_patterns("logs"))
    return [str(target / "config.yaml"), str(CYCLES), *SETTINGS, f"run.dir={target}"]


def losses(target: Path) -> list[float]:
    (metrics,) = target.glob("pretrain/c*/metrics.jsonl")
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


@pytest.fixture(scope="module")
def plain(learned, tmp_path_factory):
    target = tmp_path_factory.mktemp("plain") / "run"
    config, cycles, *overrides = copy_of(learned, target)
    command = [sys.executable, "-m", "grover_dist.pretrain", config, "--cycles", cycles, *overrides]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return losses(target)


def test_two_hosts_over_pdsh_and_ssh_give_the_losses_of_one_process(hosts, learned, plain, tmp_path):
    arguments = copy_of(learned, tmp_path / "run")
    launched = hosts.popen("node1", [SCRIPT, hostfile(tmp_path, "node1", "node2"), *arguments])
    output, _ = launched.communicate(timeout=300)
    assert launched.returncode == 0, output
    assert "on 2 ranks" in output and "node1: " in output and "node2: " in output
    assert losses(tmp_path / "run") == pytest.approx(plain, rel=1e-4) and len(plain) > 5


@pytest.mark.skipif(shutil.which("mpirun") is None, reason="no Open MPI (Debian: openmpi-bin)")
def test_two_hosts_over_open_mpi_give_the_losses_of_one_process(hosts, learned, plain, tmp_path):
    arguments = copy_of(learned, tmp_path / "run")
    as_root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    launched = hosts.popen("node1", [SCRIPT, hostfile(tmp_path, "node1", "node2"), *arguments], LAUNCHER="openmpi", **as_root)
    output, _ = launched.communicate(timeout=300)
    assert launched.returncode == 0, output
    assert "on 2 ranks" in output
    assert losses(tmp_path / "run") == pytest.approx(plain, rel=1e-4)


def test_two_hosts_without_ssh_give_the_losses_of_one_process(hosts, learned, plain, tmp_path):
    arguments = copy_of(learned, tmp_path / "run")
    file = hostfile(tmp_path, "node1", "node2")
    launched = [hosts.popen(f"node{rank + 1}", [SCRIPT, file, *arguments], NODE_RANK=str(rank)) for rank in range(2)]
    outputs = [process.communicate(timeout=300)[0] for process in launched]
    assert [process.returncode for process in launched] == [0, 0], outputs
    assert losses(tmp_path / "run") == pytest.approx(plain, rel=1e-4)


def test_an_unreachable_host_is_named_before_anything_starts(hosts, learned, tmp_path):
    began = time.monotonic()
    arguments = copy_of(learned, tmp_path / "run")
    launched = hosts.popen("node1", [SCRIPT, hostfile(tmp_path, "node1", "absent"), *arguments])
    output, _ = launched.communicate(timeout=60)
    assert launched.returncode == 2 and "absent" in output and "nothing was started" in output, output
    assert time.monotonic() - began < 60


def test_without_ssh_the_host_that_does_not_come_is_named(hosts, learned, tmp_path):
    arguments = [*copy_of(learned, tmp_path / "run"), "resources.start_timeout_seconds=10"]
    launched = hosts.popen("node1", [SCRIPT, hostfile(tmp_path, "node1", "node2"), *arguments], NODE_RANK="0")
    output, _ = launched.communicate(timeout=120)
    assert launched.returncode != 0
    assert "1 of 2 ranks did not come within 10 s" in output and "rank 1 (node2)" in output and "rank 0 on node1" in output, output
