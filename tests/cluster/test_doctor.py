"""doctor on two real nodes, one of which is broken on purpose."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from tests.cluster.raylets import REPOSITORY, Nodes

pytestmark = [pytest.mark.ray, pytest.mark.distributed, pytest.mark.timeout(300)]


def doctor(nodes: Nodes, *arguments: str, alive: int) -> subprocess.CompletedProcess:
    """Repeated until all nodes have joined."""
    deadline = time.monotonic() + 120
    command = [sys.executable, "-m", "grover_dist", "doctor", *arguments]
    while True:
        done = subprocess.run(
            command,
            cwd=REPOSITORY,
            env=nodes.environment | {"RAY_ADDRESS": nodes.address, "COLUMNS": "400"},
            capture_output=True,
            text=True,
            timeout=200,
        )
        if done.stdout.count("python ") >= alive or time.monotonic() > deadline:
            return done
        time.sleep(1)


def test_the_broken_node_of_two_is_named_with_its_remedies(tmp_path):
    other = tmp_path / "other" / "numpy-0.0.1.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 0.0.1\n")
    shared = tmp_path / "shared"
    shared.mkdir()
    nodes = Nodes(tmp_path)
    try:
        nodes.start_head()
        broken = {"PYTHONPATH": f"{other.parent}:{REPOSITORY}", "RAY_AUTH_MODE": "disabled", "GROVER_BUCKET": "nothing-there"}
        broken |= {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
        nodes.start_worker(1, environment=broken)
        began = time.monotonic()
        done = doctor(nodes, "configs/smoke.yaml", f"run.dir={shared}/runs/one", "--cluster", alive=2)
        words = " ".join(done.stdout.split())
        print(done.stdout, f"{time.monotonic() - began:.0f} s")
        assert done.returncode == 2 and "checks failed" in done.stderr, done.stdout + done.stderr + nodes.log.read_text()[-2000:]
        assert "numpy 0.0.1, and numpy>=" in words and "-m pip install 'numpy>=" in words
        assert "package numpy: 0.0.1 here," in words and "on this node, then restart Ray there" in words
        assert "s3://nothing-there" in words and "S3 is not reached" in words
        assert f"{shared}/runs/one is one folder for all 2 nodes" in words
        assert "of " in words and "on every node" in words and "gloo, 2 ranks on 2 nodes" in words
        assert list(shared.iterdir()) == [], "marks and test files are removed"
    finally:
        nodes.close()
