"""A real file system of a few megabytes that fills up while a stage is written. Needs root to mount one."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from grover_dist.corpus.build import build_corpus
from grover_dist.errors import UserError
from grover_dist.genome.stage import build_genome
from grover_dist.run_dir import RunDir, read_artifact


def quiet(_: str) -> None: ...


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small file system needs root")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path, leave_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    (folder / "ballast").write_bytes(bytes(free - leave_bytes))


@pytest.fixture
def half_a_megabase(tmp_path) -> Path:
    letters = np.random.default_rng(0).choice(np.frombuffer(b"ACGT", np.uint8), 500_000)
    (tmp_path / "g.fa").write_bytes(b">a\n" + letters.tobytes() + b"\n")
    return tmp_path / "g.fa"


def test_the_disk_fills_while_the_store_is_written(settings_for, half_a_megabase, small_disk):
    config = settings_for(small_disk / "run", half_a_megabase, bpe={"cycles": 8}, pretrain={"candidates": [8]})
    run = RunDir.open(config)
    genome = build_genome(config, run, say=quiet)
    fill(small_disk, 900_000)  # the store takes 3 bytes a base
    with pytest.raises(UserError, match=r"disk is full.*learn.*free some space"):
        build_corpus(config, run, genome, n_workers=2, say=quiet)
    assert run.latest("learn") is None
    assert not list((run.path / "learn").rglob("*.arrow")) and not list((run.path / "learn").rglob("*.tmp"))
    (small_disk / "ballast").unlink()
    said = []
    artifact = build_corpus(config, run, genome, n_workers=1, say=said.append)
    assert read_artifact(artifact.path, checksums=True)
    assert any("in the log" in line for line in said)  # the merges were kept


def test_the_disk_fills_while_the_genome_is_written(settings_for, half_a_megabase, small_disk):
    config = settings_for(small_disk / "run", half_a_megabase)
    run = RunDir.open(config)
    fill(small_disk, 200_000)
    with pytest.raises(UserError, match=r"disk is full.*genome"):
        build_genome(config, run, say=quiet)
    assert [path.name for path in (run.path / "genome").iterdir() if path.is_dir()] == []


def test_the_cache_of_a_run_in_a_bucket_fills(settings_for, half_a_megabase, small_disk, tmp_path, bucket):
    place = {"dir": f"{bucket}/run", "cache": str(tmp_path / "cache")}
    config = settings_for("unused", half_a_megabase, run=place)
    genome = build_genome(config, RunDir.open(config), say=quiet)
    elsewhere = RunDir.open(settings_for("unused", half_a_megabase, run={**place, "cache": str(small_disk)}))
    fill(small_disk, 200_000)
    with pytest.raises(UserError, match=r"disk is full"):
        elsewhere.here(genome)
    assert not list(elsewhere.path.rglob("*.arrow")) and not list(elsewhere.path.rglob("*.tmp"))
    (small_disk / "ballast").unlink()
    assert elsewhere.here(genome).manifest == genome.manifest
