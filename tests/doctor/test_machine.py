"""Things broken on purpose; each finding is read for what it says to do."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from grover_dist.doctor import machine

REPOSITORY = Path(__file__).resolve().parents[2]


def only(findings):
    (found,) = list(findings)
    assert bool(found.remedy) == (found.state in ("warning", "failed"))
    return found


def test_a_missing_package_and_an_old_one():
    missing, old = machine.check_packages(["numpy>=2", "no-such-package[extra]>=1.5", "pyyaml>=999"])
    assert missing.state == "failed" and missing.found == "no-such-package is missing"
    assert missing.remedy.endswith("-m pip install 'no-such-package[extra]>=1.5'")
    assert old.state == "failed" and old.found.startswith("pyyaml ") and "pyyaml>=999 is needed" in old.found
    assert only(machine.check_packages(["numpy>=2", "typer"])).state == "ok"


def test_this_environment_fits_and_its_facts_name_each_package():
    assert only(machine.check_packages()).state == "ok"
    facts = machine.facts()
    assert facts["package torch"] and facts["python"].startswith(f"{sys.version_info.major}.") and len(facts["product"]) == 12


def test_too_few_open_files():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        found = {}
        for soft in (512, 2_048, min(before[1], 8_192)):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, before[1]))
            found[soft] = only(machine.check_open_files())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert [finding.state for finding in found.values()] == ["failed", "warning", "ok"]
    assert found[512].found.startswith("512 ") and "ulimit -n 65536" in found[512].remedy and "LimitNOFILE" in found[512].remedy


def _smi(folder: Path, script: str, monkeypatch) -> None:
    path = folder / "nvidia-smi"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_gpus_that_are_counted_on_and_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert only(machine.check_gpus(0)).state == "ok"
    missing = only(machine.check_gpus(4))
    assert missing.state == "failed" and "4 GPUs are counted on" in missing.found and "gpus_per_rank=0" in missing.remedy


def test_a_driver_that_does_not_answer(tmp_path, monkeypatch):
    _smi(tmp_path, "echo 'NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver'; exit 9", monkeypatch)
    found = only(machine.check_gpus(1))
    assert found.state == "failed" and "could not communicate" in found.found and "modprobe nvidia" in found.remedy
    assert only(machine.check_gpus(0)).state == "warning"


def test_a_gpu_that_fell_out_and_one_that_torch_does_not_see(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "_torch_devices", lambda: (0, None))
    _smi(tmp_path, "echo 'NVIDIA L4, 550.54.15, 23034 MiB'", monkeypatch)
    assert "fell out" in only(machine.check_gpus(4)).remedy
    unseen = only(machine.check_gpus(1))
    assert unseen.state == "failed" and "torch (CUDA none) sees 0" in unseen.found and "550.54.15" in unseen.remedy


@pytest.mark.parametrize(
    ("content", "mode", "state", "remedy"),
    [
        (None, 0, "failed", "RAY_AUTH_TOKEN_PATH"),
        ("", 0o400, "failed", "mode 0400"),
        ("t", 0o644, "warning", "chmod 0400"),
        ("t", 0o400, "ok", ""),
    ],
)
def test_the_token(tmp_path, content, mode, state, remedy):
    path = tmp_path / "token"
    if content is not None:
        path.write_text(content)
        path.chmod(mode)
    found = only(machine.check_token({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path)}, cluster=True))
    assert (found.state, remedy in found.remedy) == (state, True)


def test_a_cluster_without_a_token_is_warned_of_and_this_machine_alone_is_not():
    assert only(machine.check_token({}, cluster=True)).state == "warning"
    assert only(machine.check_token({"RAY_AUTH_MODE": "disabled"}, cluster=False)).state == "ok"
    assert only(machine.check_token({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "x"}, cluster=True)).state == "ok"


def test_the_command_says_what_to_do_and_ends_with_2(tmp_path):
    """The product's own requirements, with one that nobody has: read from metadata that stands first on the path."""
    info = tmp_path / "grover_dist-9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: grover_dist\nVersion: 9\nRequires-Dist: no-such-package>=1\n")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{REPOSITORY}", "COLUMNS": "300"}
    command = [sys.executable, "-m", "grover_dist", "doctor"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "error: 1 check failed" in done.stderr
    assert "no-such-package is missing [1]" in done.stdout and "-m pip install 'no-such-package>=1'" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
