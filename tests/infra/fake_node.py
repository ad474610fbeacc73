"""A node without a machine: a copy-on-write view of this one in a network, mount and process namespace of its own.

systemd and the metadata service are small stand-ins; the node script, cloud-init's files, Ray and the AWS command line are real.
"""

from __future__ import annotations

import http.server
import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Reads the unit files that cloud-init wrote. A started unit is a session of its own, so that a stop ends the whole of it.
SYSTEMCTL = r"""#!/bin/bash
echo "$*" >> /var/log/systemctl-calls
value() { sed -n "s/^$1=//p" "/etc/systemd/system/$2" | head -n 1; }
case $1 in
  enable)
    shift 2
    for unit in "$@"; do
      command=$(value ExecStart "$unit") user=$(value User "$unit")
      log=$(value StandardOutput "$unit"); log=${log#append:}
      touch "$log"; chmod 666 "$log"
      if [ -n "$user" ]; then command="runuser -u $user -- $command"; fi
      setsid bash -c "$command" >> "$log" 2>&1 < /dev/null &
      echo $! > "/run/$unit.pid"
    done ;;
  stop) kill -TERM -- "-$(cat "/run/$2.pid")"; while kill -0 "$(cat "/run/$2.pid")" 2> /dev/null; do sleep 0.2; done ;;
  poweroff) touch /run/powered-off ;;
esac
"""

# The command line of AWS itself, with a list of its calls.
AWS = """#!/bin/sh
echo "$*" >> /var/log/aws-calls
export AWS_ACCESS_KEY_ID=fake AWS_SECRET_ACCESS_KEY=fake
exec {aws} "$@"
"""

BOOT = """set -e
mount -t tmpfs -o size=6g tmpfs {place}
mkdir -p {place}/upper {place}/work {place}/root
mount -t overlay -o lowerdir=/,upperdir={place}/upper,workdir={place}/work overlay {place}/root
cd {place}/root
mount --rbind /dev dev
mount -t tmpfs tmpfs dev/shm
mount -t proc proc proc
mount --rbind /sys sys
mount -t tmpfs tmpfs tmp
mount -t tmpfs tmpfs run
chmod 1777 tmp dev/shm
ip link set lo up
exec chroot {place}/root /bin/sleep infinity
"""


class Metadata:
    """IMDSv2 of one node. `notice` is the spot notice, or None."""

    def __init__(self, address: str, instance: str) -> None:
        self.values: dict[str, str | None] = {
            "instance-id": instance,
            "spot/instance-action": None,
            "autoscaling/target-lifecycle-state": "InService",
        }
        node = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                self.answer("session" if self.path == "/latest/api/token" else None)

            def do_GET(self) -> None:
                allowed = self.headers.get("X-aws-ec2-metadata-token") == "session"
                self.answer(node.values.get(self.path.removeprefix("/latest/meta-data/")) if allowed else None)

            def answer(self, text: str | None) -> None:
                self.send_response(404 if text is None else 200)
                self.end_headers()
                self.wfile.write((text or "").encode())

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer((address, 0), Handler)
        self.url = f"http://{address}:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class Bridge:
    """A network of this machine alone: the outside is its first address, the nodes have the next ones."""

    def __init__(self) -> None:
        number = os.getpid() % 200 + 20
        self.name = f"grover{os.getpid() % 100_000}"
        self.prefix = f"10.213.{number}"
        self.outside = f"{self.prefix}.1"
        run(f"ip link add {self.name} type bridge")
        run(f"ip addr add {self.outside}/24 dev {self.name}")
        run(f"ip link set {self.name} up")
        self.spaces: list[str] = []

    def space(self, label: str, last: int) -> str:
        """A network namespace with the address PREFIX.last; returns its name."""
        space, outer = f"{self.name}-{label}", f"g{os.getpid() % 100_000}{label[0]}"
        run(f"ip netns add {space}")
        self.spaces.append(space)
        run(f"ip link add {outer} type veth peer name eth0 netns {space}")
        run(f"ip link set {outer} master {self.name} up")
        run(f"ip -n {space} addr add {self.prefix}.{last}/24 dev eth0")
        run(f"ip -n {space} link set eth0 up")
        return space

    def close(self) -> None:
        for space in self.spaces:
            subprocess.run(["ip", "netns", "del", space], check=False)
        subprocess.run(["ip", "link", "del", self.name], check=False)


class Node:
    def __init__(self, bridge: Bridge, label: str, last: int, place: Path) -> None:
        self.address = f"{bridge.prefix}.{last}"
        self.metadata = Metadata(bridge.outside, f"i-{last:017x}")
        place.mkdir()
        command = ["ip", "netns", "exec", bridge.space(label, last)]
        command += ["unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "sh", "-c", BOOT.format(place=place)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.inside = self._first_inside()
        aws = shutil.which("aws")
        for path, text, mode in (
            ("/usr/local/bin/aws", AWS.format(aws=aws), 0o755),
            ("/usr/local/bin/systemctl", SYSTEMCTL, 0o755),
            # The package manager would fetch from the outside; a node whose image holds the packages has nothing to do.
            ("/usr/local/bin/dnf", "#!/bin/sh\nexit 0\n", 0o755),
        ):
            self.write(path, text, mode)
        # The base interpreter may stand in root's home, and Ray runs as another user.
        self.shell("chmod 755 /root; touch /var/log/aws-calls; chmod 666 /var/log/aws-calls")
        self.shell("rm -rf /etc/grover /var/log/grover /opt/grover; mkdir -p /opt/grover")

    def _first_inside(self) -> int:
        """The process number, out here, of the node's first process, once its root is its own."""
        for _ in range(100):
            assert self.process.poll() is None, self.process.stdout.read()
            found = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True).stdout.split()
            if found and (Path("/proc") / found[0] / "comm").read_text().strip() == "sleep":
                return int(found[0])
            time.sleep(0.1)
        raise AssertionError("the node's namespace did not come up")

    def command(self, text: str) -> list[str]:
        return [
            *f"nsenter -t {self.inside} -m -n -p -u -i -r -w".split(),
            "env",
            "-i",
            "HOME=/root",
            f"PATH={os.defpath}:/usr/local/bin:/usr/local/sbin:/usr/sbin:/sbin",
            "bash",
            "-c",
            text,
        ]

    def shell(self, text: str, *, seconds: int = 120, check: bool = True) -> str:
        done = subprocess.run(self.command(text), capture_output=True, text=True, timeout=seconds)
        assert not check or done.returncode == 0, f"{text}\nended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def write(self, path: str, text: str, mode: int) -> None:
        subprocess.run(
            self.command(f"mkdir -p {shlex.quote(str(Path(path).parent))}; cat > {shlex.quote(path)}; chmod {mode:o} {shlex.quote(path)}"),
            input=text,
            text=True,
            check=True,
        )

    def read(self, path: str) -> str:
        return self.shell(f"cat {path} 2> /dev/null", check=False)

    def cloud_init(self, user_data: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        """What cloud-init does with our two keys: write the files, run the command."""
        for file in user_data["write_files"]:
            self.write(file["path"], file["content"], int(file["permissions"], 8))
        (words,) = user_data["runcmd"]
        return subprocess.run(self.command(shlex.join(words)), capture_output=True, text=True, timeout=300)

    def api(self, path: str, token: str | None, body: dict[str, Any] | None = None) -> tuple[int, str]:
        """A call to the dashboard from inside this node: status and body."""
        header = f"-H 'Authorization: Bearer {token}'" if token else ""
        data = f"-X POST -H 'Content-Type: application/json' -d {shlex.quote(json.dumps(body))}" if body else ""
        text = self.shell(f"curl -s -m 20 -w '\\n%{{http_code}}' {header} {data} http://127.0.0.1:8265{path}", check=False)
        answer, _, status = text.rpartition("\n")
        return int(status or 0), answer

    def close(self) -> None:
        self.metadata.close()
        self.process.kill()  # --kill-child ends the first process inside, and with it every other
        self.process.wait(timeout=20)


def run(command: str) -> None:
    done = subprocess.run(command.split(), capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stderr}"


def until(condition: Callable[[], Any], *, seconds: int, what: str) -> Any:
    """The condition's first true value; an AssertionError naming `what` when it stays away."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(1)
    raise AssertionError(f"{what}: not within {seconds} s")


def can_make_nodes() -> str | None:
    """None, or why nodes cannot be made here."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "nodes need root on Linux"
    missing = [tool for tool in ("ip", "unshare", "nsenter", "chroot", "pgrep", "aws", "curl", "runuser") if shutil.which(tool) is None]
    if missing:
        return f"nodes need {', '.join(missing)}"
    tried = subprocess.run(["unshare", "--mount", "--net", "--pid", "--fork", "true"], capture_output=True, text=True)
    return None if tried.returncode == 0 else f"no namespaces here: {tried.stderr.strip()}"
