"""The node script, really executed: two nodes in namespaces boot, join with a token, hear a spot notice and stop when idle."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.infra.clouds import REPOSITORY, Fake, environment_names, fake_server, tool
from tests.infra.fake_node import Bridge, Node, can_make_nodes, until

SCRIPTS = REPOSITORY / "infra/scripts"
BUCKET = "grover-node-test"
VERSION = importlib.metadata.version("grover_dist")

e2e = [pytest.mark.e2e, pytest.mark.ray, pytest.mark.timeout(900), pytest.mark.xdist_group("nodes")]


def test_terraform_gives_every_value_that_the_scripts_need() -> None:
    text = "".join((SCRIPTS / name).read_text() for name in ("grover-node.sh", "fetch.sh"))
    used, with_default = set(re.findall(r"\$\{?(GROVER_\w+)", text)), set(re.findall(r"\$\{(GROVER_\w+):-", text))
    assert used - with_default == environment_names()


def test_shellcheck() -> None:
    shellcheck = tool("shellcheck")
    done = subprocess.run([shellcheck, *sorted(map(str, SCRIPTS.glob("*.sh")))], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_units_are_understood() -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze")
    done = subprocess.run(["systemd-analyze", "verify", *sorted(map(str, SCRIPTS.glob("*.service")))], capture_output=True, text=True)
    # It exits with 0 on unknown keys, so its words are read; that the script is not installed on this machine is expected.
    faults = [line for line in done.stderr.splitlines() if "grover-" in line and "not executable" not in line]
    assert faults == []


@pytest.fixture(scope="module")
def bridge() -> Iterator[Bridge]:
    reason = can_make_nodes()
    if reason:
        pytest.skip(reason)
    made = Bridge()
    yield made
    made.close()


@pytest.fixture(scope="module")
def cloud(bridge: Bridge, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fake]:
    """The fake on the bridge, with a bucket that holds the script, and a token."""
    with fake_server(tmp_path_factory.mktemp("fake-for-nodes"), host=bridge.outside) as fake:
        put(fake, "", b"")
        put(fake, "boot/grover-node.sh", (SCRIPTS / "grover-node.sh").read_bytes())
        put(fake, "boot/constraints.txt", b"")
        fake.call(
            "secretsmanager",
            "CreateSecret",
            {"Name": "node/ray-token", "SecretString": "a-token-for-these-two-nodes", "ClientRequestToken": "1" * 32},
        )
        yield fake


def put(fake: Fake, key: str, content: bytes) -> None:
    headers = {"Content-Type": "application/octet-stream"}
    request = urllib.request.Request(f"{fake.url}/{BUCKET}/{key}", data=content, headers=headers, method="PUT")
    urllib.request.urlopen(request, timeout=30).close()


def user_data(fake: Fake, node: Node, role: str, head: str, **changed: str) -> dict[str, Any]:
    """As infra/main.tf renders it (test_examples compares the two), for this machine."""
    script = (SCRIPTS / "grover-node.sh").read_bytes()
    values = {
        "GROVER_CLUSTER": "node",
        "GROVER_REGION": "us-east-1",
        "GROVER_BUCKET": BUCKET,
        "GROVER_TOKEN_SECRET": "node/ray-token",
        "GROVER_HEAD_ADDRESS": head,
        "GROVER_WORKERS_GROUP": "node-workers",
        "GROVER_METRIC_NAMESPACE": "GroverDist",
        "GROVER_HEAD_IDLE_MINUTES": "0",
        "GROVER_SHARED": "none",
        "GROVER_PYTHON": "python3.11",
        "GROVER_PACKAGES": "bucket",
        "GROVER_VERSION": VERSION,
        "GROVER_WHEEL_KEY": "boot/none.whl",
        "GROVER_WHEEL_SHA256": "0" * 64,
        "GROVER_CONSTRAINTS_KEY": "boot/constraints.txt",
        "GROVER_SCRIPT_KEY": "boot/grover-node.sh",
        "GROVER_SCRIPT_SHA256": hashlib.sha256(script).hexdigest(),
        "GROVER_ROLE": role,
    }
    assert set(values) == environment_names()
    # Of the test alone: the fakes instead of AWS, short waits, a small object store.
    values |= {
        "AWS_ENDPOINT_URL": fake.url,
        "GROVER_IMDS": node.metadata.url,
        "GROVER_RETRY_SECONDS": "0",
        "GROVER_WATCH_SECONDS": "2",
        "RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES": str(100 * 2**20),
        **changed,
    }
    files = [("/etc/grover/node.env", "0644", "".join(f"{key}={value}\n" for key, value in values.items()))]
    files += [("/usr/local/sbin/grover-fetch", "0755", (SCRIPTS / "fetch.sh").read_text())]
    files += [(f"/etc/systemd/system/{path.name}", "0644", path.read_text()) for path in SCRIPTS.glob("*.service")]
    return {
        "write_files": [{"path": path, "permissions": mode, "content": content} for path, mode, content in files],
        "runcmd": [["/usr/local/sbin/grover-fetch"]],
    }


def bake(node: Node) -> None:
    """An image that already holds the product: this very environment, read through the copy-on-write root."""
    if Path(sys.prefix).is_relative_to("/tmp"):
        pytest.skip(f"a node has a /tmp of its own, and this environment lies in it: {sys.prefix}")
    node.shell(f"ln -s {sys.prefix} /opt/grover/venv")


def alive(head: Node, token: str) -> int:
    status, text = head.api("/api/v0/nodes", token)
    if status != 200:
        return 0
    return sum(item["state"] == "ALIVE" for item in json.loads(text)["data"]["result"]["result"])


class TestTwoNodes:
    pytestmark = e2e

    def test_boot_join_spot_notice_idle(self, bridge: Bridge, cloud: Fake, tmp_path: Path) -> None:
        token = "a-token-for-these-two-nodes"
        head, worker = Node(bridge, "head", 10, tmp_path / "head"), Node(bridge, "worker", 11, tmp_path / "worker")
        try:
            for node, role in ((head, "head"), (worker, "worker")):
                bake(node)
                done = node.cloud_init(user_data(cloud, node, role, head.address))
                assert done.returncode == 0, done.stdout + done.stderr + node.read("/var/log/grover/bootstrap.log")
                assert f"ready: grover_dist {VERSION}" in node.read("/var/log/grover/bootstrap.log")
                assert node.shell("stat -c '%U %a' /etc/grover/ray-token").strip() == "grover 400"

            until(lambda: alive(head, token) == 2, seconds=180, what=f"two nodes; {worker.read('/var/log/grover/ray.log')[-800:]}")
            assert head.api("/api/v0/nodes", None)[0] == 401
            assert head.api("/api/v0/nodes", "another")[0] == 403
            # The dashboard listens on the head alone, and a node without the token cannot join.
            assert "refused" in worker.shell(f"curl -s -S -m 5 http://{head.address}:8265/ 2>&1", check=False).lower() or not worker.shell(
                f"curl -s -m 5 http://{head.address}:8265/", check=False
            )

            # A running job is no idleness.
            assert head.api("/api/jobs/", token, {"entrypoint": "sleep 15"})[0] == 200
            calls = len(head.read("/var/log/aws-calls").splitlines())
            until(
                lambda: "--metric-name Idle --value 0" in "\n".join(head.read("/var/log/aws-calls").splitlines()[calls:]),
                seconds=60,
                what="busy",
            )
            until(
                lambda: "--metric-name Idle --value 1" in head.read("/var/log/aws-calls").splitlines()[-1], seconds=120, what="idle again"
            )
            assert "set-desired-capacity" not in head.read("/var/log/aws-calls"), "GROVER_HEAD_IDLE_MINUTES 0 means never"

            worker.metadata.values["spot/instance-action"] = '{"action": "terminate", "time": "2026-01-01T00:00:00Z"}'
            until(lambda: "leaving: spot notice" in worker.read("/var/log/grover/watch.log"), seconds=30, what="the notice")
            until(lambda: alive(head, token) == 1, seconds=90, what="the worker is gone")
            until(lambda: "raylet" not in worker.shell("ps -e -o comm", check=False), seconds=90, what="the raylet ends")

            # The head's own end, with the idle minutes of a fresh watch.
            head.shell("kill -TERM -- -$(cat /run/grover-watch.service.pid)")
            head.shell("sed -i 's/^GROVER_HEAD_IDLE_MINUTES=.*/GROVER_HEAD_IDLE_MINUTES=1/' /etc/grover/node.env")
            watched = subprocess.Popen(
                head.command("exec /usr/local/sbin/grover-node watch"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            words, _ = watched.communicate(timeout=150)
            assert "workers to zero, then the head stops" in words
            assert "set-desired-capacity --auto-scaling-group-name node-workers --desired-capacity 0" in head.read("/var/log/aws-calls")
            assert head.shell("ls /run/powered-off").strip() == "/run/powered-off"
        finally:
            head.close()
            worker.close()

    def test_a_worker_without_a_head_goes_and_is_not_replaced(self, bridge: Bridge, cloud: Fake, tmp_path: Path) -> None:
        worker = Node(bridge, "lonely", 12, tmp_path / "lonely")
        try:
            bake(worker)
            nobody = f"{bridge.prefix}.99"
            done = worker.cloud_init(user_data(cloud, worker, "worker", nobody, GROVER_JOIN_SECONDS="1"))
            assert done.returncode == 0, done.stdout + done.stderr
            instance = worker.metadata.values["instance-id"]
            wanted = f"terminate-instance-in-auto-scaling-group --instance-id {instance} --should-decrement-desired-capacity"
            until(lambda: wanted in worker.read("/var/log/aws-calls"), seconds=60, what="the worker asks to go")
            assert f"the head {nobody}:6379 did not answer" in worker.read("/var/log/grover/ray.log")
        finally:
            worker.close()

    def test_a_failed_boot_says_why_and_marks_the_node(self, bridge: Bridge, cloud: Fake, tmp_path: Path) -> None:
        put(cloud, "boot/wrong.whl", b"not what was pinned")
        node = Node(bridge, "failing", 13, tmp_path / "failing")
        try:
            changed = {"GROVER_WHEEL_KEY": "boot/wrong.whl"}
            done = node.cloud_init(user_data(cloud, node, "worker", f"{bridge.prefix}.99", **changed))
            assert done.returncode != 0
            assert re.search(r"FAILED in step 'product' at line \d+ with exit code \d+", node.read("/var/log/grover/FAILED"))
            log, calls = node.read("/var/log/grover/bootstrap.log"), node.read("/var/log/aws-calls")
            assert "checksum did NOT match" in log and "marked unhealthy" in log
            assert f"set-instance-health --instance-id {node.metadata.values['instance-id']} --health-status Unhealthy" in calls
            assert "--metric-name BootstrapFailed --value 1" in calls
            assert "enable" not in node.read("/var/log/systemctl-calls"), "a node that failed must not join"
        finally:
            node.close()

    def test_the_pinned_wheel_is_installed_from_the_bucket(self, bridge: Bridge, cloud: Fake, tmp_path: Path) -> None:
        wheel = tmp_path / "grover_dist-7.8.9-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("grover_dist/__init__.py", '__version__ = "7.8.9"\n')
            info = "grover_dist-7.8.9.dist-info"
            archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: grover_dist\nVersion: 7.8.9\n")
            archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            archive.writestr(f"{info}/RECORD", "")
        put(cloud, f"boot/{wheel.name}", wheel.read_bytes())
        put(cloud, "boot/wheels/unused.txt", b"")
        node = Node(bridge, "pinned", 14, tmp_path / "pinned")
        try:
            changed = {
                "GROVER_VERSION": "7.8.9",
                "GROVER_WHEEL_KEY": f"boot/{wheel.name}",
                "GROVER_WHEEL_SHA256": hashlib.sha256(wheel.read_bytes()).hexdigest(),
                "GROVER_PYTHON": str(Path(sys.executable).resolve()),
                "GROVER_JOIN_SECONDS": "600",
            }
            done = node.cloud_init(user_data(cloud, node, "worker", f"{bridge.prefix}.99", **changed))
            assert done.returncode == 0, done.stdout + done.stderr + node.read("/var/log/grover/bootstrap.log")
            assert node.shell("/opt/grover/venv/bin/python -c 'import grover_dist; print(grover_dist.__version__)'").strip() == "7.8.9"
            assert "enable --now grover-ray.service grover-watch.service" in node.read("/var/log/systemctl-calls")
        finally:
            node.close()
