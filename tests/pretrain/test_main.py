"""The same command under three launchers gives the same losses."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from grover_dist.pretrain.__main__ import main
from tests.pretrain.small_run import CYCLES

MODULE = "grover_dist.pretrain"
pytestmark = pytest.mark.distributed


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def launchers(world_free_port: int) -> dict[str, list[str]]:
    return {
        "plain process": [sys.executable, "-m", MODULE],
        "deepspeed launcher, 2 ranks": [
            str(Path(sys.executable).with_name("deepspeed")), "--num_gpus", "2", "--master_port", str(world_free_port), "--module", MODULE,
        ],
        "torchrun, 2 ranks": [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", MODULE],
    }  # fmt: skip


@pytest.fixture(scope="module")
def losses(config, run, corpus, tmp_path_factory):
    """Loss of every step under each launcher. Without dropout, whose draws depend on the number of ranks."""
    folder = tmp_path_factory.mktemp("launchers")
    found = {}
    for number, (name, command) in enumerate(launchers(free_port()).items()):
        target = folder / str(number)
        shutil.copytree(run.path, target, ignore=shutil.ignore_patterns("pretrain", "export", "logs"))
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
        overrides = [f"run.dir={target}", "model.dropout=0", "pretrain.budget_bases=20000", "tracking.tensorboard=false"]
        done = subprocess.run(
            [*command, str(target / "config.yaml"), "--cycles", str(CYCLES), *overrides],
            capture_output=True, text=True, env=environment, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        (metrics,) = target.glob("pretrain/c*/metrics.jsonl")
        rows = [json.loads(line) for line in metrics.read_text().splitlines()]
        found[name] = [row["loss"] for row in rows if "loss" in row]
    return found


def test_three_launchers_one_curve(losses):
    plain = losses["plain process"]
    assert len(plain) > 5
    for name, curve in losses.items():
        assert curve == pytest.approx(plain, rel=1e-4), name


@pytest.fixture
def settings_file(config, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(config.to_yaml())
    return path


def test_without_a_vocabulary_the_user_is_told_what_to_run(settings_file, tmp_path, capsys):
    code = main([str(settings_file), "--cycles", "40", f"run.dir={tmp_path / 'empty'}"])
    assert code == 2 and "grover-dist learn" in capsys.readouterr().err


def test_unknown_setting_is_one_paragraph(settings_file, capsys):
    assert main([str(settings_file), "--cycles", "40", "--local_rank", "0", "model.layer=2"]) == 2
    assert "model.layer" in capsys.readouterr().err
