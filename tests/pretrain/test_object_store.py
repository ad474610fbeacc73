"""Two ranks whose machines share no disk (each has a mount namespace of its own over the cache), killed and resumed from S3."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from grover_dist.config import config_from
from grover_dist.corpus.build import build_corpus
from grover_dist.genome.stage import build_genome
from grover_dist.run_dir import RunDir
from tests.pretrain.small_run import CYCLES, small_config
from tests.pretrain.test_main import free_port

pytestmark = [pytest.mark.distributed, pytest.mark.slow]
MOUNT = 'mount --make-rprivate / && mount --bind "$0" "$1" && shift && exec "$@"'


@pytest.fixture
def own_disks() -> None:
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("mount namespaces need root and `unshare`")


def start_ranks(settings: Path, folders: list[Path], cache: Path | None) -> list[subprocess.Popen]:
    """One rank for each folder, which takes the place of `cache` for that rank alone; with None they share the disk."""
    port, processes = free_port(), []
    for rank, folder in enumerate(folders):
        folder.mkdir(exist_ok=True)
        first = ["unshare", "-m", "sh", "-c", MOUNT, str(folder), str(cache)] if cache else []
        command = [*first, sys.executable, "-m", "grover_dist.pretrain", str(settings), "--cycles", str(CYCLES)]
        place = {"RANK": str(rank), "WORLD_SIZE": str(len(folders)), "LOCAL_RANK": "0" if cache else str(rank)}
        environment = {**os.environ, **place, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
        processes.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
    return processes


def finish(processes: list[subprocess.Popen]) -> str:
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), "\n".join(outputs)
    return "\n".join(outputs)


def test_ranks_without_a_shared_disk_go_on_from_the_object_store(own_disks, bucket, tmp_path):
    cache, settings = tmp_path / "cache", tmp_path / "settings.yaml"
    plain = small_config(tmp_path).model_dump(mode="json")
    config = config_from(plain | {"run": {"dir": f"{bucket}/run", "cache": str(cache)}, "engine": {"zero_stage": 1}})
    settings.write_text(config.to_yaml())
    run = RunDir.open(config)
    build_corpus(config, run, build_genome(config, run, say=lambda _: None), n_workers=2, say=lambda _: None)
    local = tmp_path / "local"
    shutil.copytree(run.path, local)
    shared_settings = tmp_path / "shared.yaml"
    shared_settings.write_text(config_from(config.model_dump(mode="json") | {"run": {"dir": str(local)}}).to_yaml())
    finish(start_ranks(shared_settings, [tmp_path / "a", tmp_path / "b"], None))
    expected = RunDir.existing(local).latest("pretrain").manifest

    killed = start_ranks(settings, [tmp_path / "one", tmp_path / "two"], cache)
    try:
        deadline = time.monotonic() + 240
        while not any(name.endswith("/checkpoint.json") for name in run.remote.sizes("pretrain")):
            assert all(process.poll() is None for process in killed) and time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        for process in killed:
            process.send_signal(signal.SIGKILL)
            process.communicate()
    assert all(list((tmp_path / machine).rglob("*_states.pt")) for machine in ("one", "two"))
    output = finish(start_ranks(settings, [tmp_path / "three", tmp_path / "four"], cache))
    assert "goes on from step" in output
    found = run.latest("pretrain").manifest
    weights = "model/model.safetensors"
    assert found["files"][weights] == expected["files"][weights]
    assert found["counts"] == expected["counts"]
    assert not any("checkpoints" in name for name in run.remote.sizes("pretrain"))
    for folder in ("three", "four"):  # each machine ends with a whole copy and nothing else
        (pretrain,) = (tmp_path / folder).glob("run-*/pretrain")
        assert [path.name for path in pretrain.iterdir() if path.is_dir()] == [run.latest("pretrain").path.name]
