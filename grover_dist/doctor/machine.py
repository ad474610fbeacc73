"""Checks of one machine that move no data: Python and packages, open files, GPUs, the token."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import resource
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path

from grover_dist.doctor.findings import Finding

PRODUCT = "grover_dist"
OLDEST_PYTHON = (3, 11)
OPEN_FILES_LEAST, OPEN_FILES_WANTED = 1_024, 4_096
_PROBE = "import json, torch; print(json.dumps([torch.cuda.device_count(), torch.version.cuda]))"


def requirements() -> list[str]:
    """What the installed product asks for, extras left out. Raises PackageNotFoundError where it runs from a bare folder."""
    return [line for line in metadata.requires(PRODUCT) or [] if "extra ==" not in line]


def check_python() -> Iterator[Finding]:
    version, wanted = sys.version_info[:2], ".".join(map(str, OLDEST_PYTHON))
    found = f"{platform.python_version()} at {sys.executable}"
    if version < OLDEST_PYTHON:
        yield Finding("python", "failed", found, f"make the environment with Python {wanted} or later")
    else:
        yield Finding("python", "ok", found)


def check_packages(wanted: Sequence[str] | None = None) -> Iterator[Finding]:
    """wanted: requirements in pip's notation; None takes the product's own."""
    try:
        wanted = requirements() if wanted is None else wanted
    except metadata.PackageNotFoundError:
        remedy = f"install the product's wheel into {sys.prefix}"
        yield Finding("packages", "warning", f"{PRODUCT} is not installed here; what it needs was not compared", remedy)
        return
    faults = 0
    for line in wanted:
        name, version, fits = _installed(line)
        if version is None:
            faults += 1
            yield Finding("packages", "failed", f"{name} is missing", f"{sys.executable} -m pip install '{line}'")
        elif not fits:
            faults += 1
            yield Finding("packages", "failed", f"{name} {version}, and {line} is needed", f"{sys.executable} -m pip install '{line}'")
    if not faults:
        yield Finding("packages", "ok", f"{len(wanted)} packages are there in versions that fit")


def _installed(requirement: str) -> tuple[str, str | None, bool]:
    """Name, installed version or None, and whether the version fits."""
    try:
        from packaging.requirements import Requirement

        parsed = Requirement(requirement)
        name, fits = parsed.name, lambda version: parsed.specifier.contains(version, prereleases=True)
    except ImportError:  # judge presence alone
        name, fits = re.split(r"[\s\[<>=!~;]", requirement)[0], lambda _: True
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return name, None, False
    return name, version, fits(version)


def facts() -> dict[str, str]:
    """What must be equal on every node."""
    found = {"python": platform.python_version(), "product": product_digest()}
    try:
        lines = requirements()
    except metadata.PackageNotFoundError:
        lines = []
    for line in lines:
        name, version, _ = _installed(line)
        found[f"package {name}"] = version or "missing"
    return found


def product_digest() -> str:
    """Of the product's Python files: two nodes with one version number may still hold different code."""
    package = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def check_open_files() -> Iterator[Finding]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = f"{soft:,} (this process may raise it to {hard:,})"
    remedy = "`ulimit -n 65536` before `ray start`; for good LimitNOFILE=65536 in the unit, or nofile in /etc/security/limits.conf"
    state = "failed" if soft < OPEN_FILES_LEAST else "warning" if soft < OPEN_FILES_WANTED else "ok"
    yield Finding("open files", state, found, "" if state == "ok" else remedy)


def check_gpus(expected: float) -> Iterator[Finding]:
    """expected: how many the settings or Ray count on here."""
    smi = shutil.which("nvidia-smi")
    if smi is None:
        if expected > 0:
            remedy = "take an instance type and an image with NVIDIA's driver, or set resources.gpus_per_rank=0"
            yield Finding("GPU", "failed", f"no nvidia-smi, and {expected:g} GPUs are counted on", remedy)
        else:
            yield Finding("GPU", "ok", "none, and none asked for")
        return
    query = [smi, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    asked = subprocess.run(query, capture_output=True, text=True, timeout=30)
    devices = [line.strip() for line in asked.stdout.splitlines() if line.strip()]
    if asked.returncode != 0 or not devices:
        said = " ".join((asked.stdout + asked.stderr).split())[:200]
        remedy = "the driver does not answer: load it (`modprobe nvidia`), or replace the node"
        yield Finding("GPU", "failed" if expected > 0 else "warning", f"nvidia-smi: {said}", remedy)
        return
    found = "; ".join(f"{devices.count(device)} x {device}" for device in dict.fromkeys(devices))
    if len(devices) < expected:
        yield Finding("GPU", "failed", f"{found}, and {expected:g} are counted on", "a device fell out: reboot or replace the node")
        return
    visible, cuda = _torch_devices()
    if visible < len(devices):
        driver = devices[0].split(",")[1].strip()
        remedy = f"install a torch whose CUDA the driver {driver} carries, from the index that pytorch.org names for it"
        yield Finding("GPU", "failed", f"{found}, and torch (CUDA {cuda or 'none'}) sees {visible}", remedy)
        return
    yield Finding("GPU", "ok", f"{found}; torch with CUDA {cuda}")


def _torch_devices() -> tuple[int, str | None]:
    """Asked in a process of its own: Ray hides GPUs from a worker that reserved none, and a CUDA context would stay."""
    environment = {key: value for key, value in os.environ.items() if key != "CUDA_VISIBLE_DEVICES"}
    done = subprocess.run([sys.executable, "-c", _PROBE], env=environment, capture_output=True, text=True, timeout=50)
    if done.returncode != 0:
        return 0, None
    count, cuda = json.loads(done.stdout.splitlines()[-1])
    return count, cuda


def check_token(environment: Mapping[str, str], *, cluster: bool) -> Iterator[Finding]:
    """Ray's token. environment: of the process that Ray was started with, or of this one."""
    mode = environment.get("RAY_AUTH_MODE")
    set_mode = "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH on every node and every client"
    if mode != "token":
        if not cluster:
            yield Finding("token", "ok", f"mode {mode or 'not set'}; a Ray that ends with the command needs none")
        else:
            said = f"mode {mode or 'not set'}: whoever reaches Ray's ports may run code"
            yield Finding("token", "warning", said, f"{set_mode}; without it let no other machine reach the nodes")
        return
    if environment.get("RAY_AUTH_TOKEN"):
        yield Finding("token", "ok", "mode token, from RAY_AUTH_TOKEN")
        return
    named = environment.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else Path(environment.get("HOME", "~")).expanduser() / ".ray" / "auth_token"
    try:
        empty, mode_bits = not path.read_text().strip(), stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        yield Finding("token", "failed", f"mode token, and {path} cannot be read ({error.strerror})", set_mode)
        return
    if empty:
        yield Finding("token", "failed", f"mode token, and {path} is empty", "write the cluster's token into it, mode 0400")
    elif mode_bits & 0o077:
        yield Finding("token", "warning", f"{path} has mode {mode_bits:04o}", f"chmod 0400 {path}")
    else:
        yield Finding("token", "ok", f"mode token, from {path}")
