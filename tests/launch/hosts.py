"""Hosts without machines: network, process, mount and name spaces of their own on this machine, with a real ssh daemon in each."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.infra.fake_node import Bridge

# ssh reads the configuration of the system, not that of a home folder: nothing is written where the user's own keys are.
SSH = """Host *
  IdentityFile {folder}/key
  UserKnownHostsFile {folder}/known_hosts
  StrictHostKeyChecking no
  LogLevel ERROR
"""
SSHD = """Port 22
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/key.pub
PermitRootLogin prohibit-password
PasswordAuthentication no
StrictModes no
UsePAM no
"""
BOOT = """set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir /run/sshd
mount -t tmpfs tmpfs /dev/shm
mount --bind {folder}/hosts /etc/hosts
mount --bind {folder}/ssh_config /etc/ssh/ssh_config
hostname {name}
ip link set lo up
exec {sshd} -D -e -f {folder}/sshd_config
"""


class Hosts:
    """node1, node2, ... reach each other by name and by ssh without a password; `absent` has an address and no host."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.bridge = folder, Bridge()
        self.processes: list[subprocess.Popen] = []
        self.inside: dict[str, int] = {}
        names = [f"node{number}" for number in range(1, count + 1)]
        for key in ("key", "host_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True)
        addresses = {name: f"{self.bridge.prefix}.{number}" for number, name in enumerate([*names, "absent"], 11)}
        (folder / "hosts").write_text("127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for name, address in addresses.items()))
        (folder / "ssh_config").write_text(SSH.format(folder=folder))
        (folder / "sshd_config").write_text(SSHD.format(folder=folder))
        try:
            for number, name in enumerate(names, 11):
                self._start(name, number)
        except BaseException:
            self.close()
            raise

    def _start(self, name: str, last: int) -> None:
        space = self.bridge.space(name[-1], last)
        boot = BOOT.format(folder=self.folder, name=name, sshd=shutil.which("sshd", path="/usr/sbin:/usr/bin"))
        command = ["ip", "netns", "exec", space, "unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc"]
        with open(self.folder / f"{name}.log", "wb") as log:
            process = subprocess.Popen([*command, "sh", "-c", boot], stdout=log, stderr=log)
        self.processes.append(process)
        for _ in range(100):
            found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
            if found and (Path("/proc") / found[0] / "comm").read_text().strip() == "sshd":
                self.inside[name] = int(found[0])
                return
            time.sleep(0.1)
        raise AssertionError((self.folder / f"{name}.log").read_text())

    def popen(self, name: str, command: list[str | Path], **environment: str) -> subprocess.Popen:
        """A command on a host, from this folder. Its process number is that of its counterpart out here."""
        given = {
            "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "DS_ACCELERATOR": "cpu",
            "OMP_NUM_THREADS": "1",
            "GLOO_SOCKET_IFNAME": "eth0",
            "HOME": str(self.folder),
            **environment,
        }
        inner = shlex.join(["env", "-i", *(f"{key}={value}" for key, value in given.items()), *map(str, command)])
        entered = ["nsenter", "-t", str(self.inside[name]), "-m", "-n", "-p", "-u", "-i"]
        return subprocess.Popen(
            [*entered, "bash", "-c", f"cd {shlex.quote(str(Path.cwd()))} && exec {inner}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def shell(self, name: str, text: str) -> str:
        process = self.popen(name, ["bash", "-c", text])
        return process.communicate(timeout=60)[0]

    def close(self) -> None:
        for process in self.processes:
            process.kill()  # --kill-child ends the first process inside, and with it every other
            process.wait(timeout=20)
        self.bridge.close()


def why_no_hosts() -> str | None:
    """None, or why hosts cannot be made here."""
    import os

    if sys.platform != "linux" or os.geteuid() != 0:
        return "hosts need root on Linux"
    missing = [tool for tool in ("ip", "unshare", "nsenter", "pgrep", "ssh", "ssh-keygen", "pdsh") if shutil.which(tool) is None]
    missing += [] if shutil.which("sshd", path="/usr/sbin:/usr/bin") else ["sshd"]
    if missing:
        return f"hosts need {', '.join(missing)} (Debian: openssh-server, pdsh, iproute2)"
    tried = subprocess.run("ip netns add grover-try && ip netns del grover-try", shell=True, capture_output=True, text=True)
    return None if tried.returncode == 0 else f"no network namespaces here: {tried.stderr.strip()}"
