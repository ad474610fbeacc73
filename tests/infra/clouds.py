"""Terraform, the provider's plugin folder, an interpreter with a tool, and the fake of AWS as the tests see it."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PROVIDER = Path("registry.terraform.io/hashicorp/aws")


def plugin_folder() -> Path | None:
    """A folder in the layout of a file-system mirror that holds the AWS provider."""
    home = Path.home()
    named = [Path(os.environ[key]) for key in ("TF_PLUGIN_DIR", "TF_PLUGIN_CACHE_DIR") if os.environ.get(key)]
    standard = [home / ".terraform.d/plugins", home / ".local/share/terraform/plugins"]
    standard += [Path(root) / "terraform/plugins" for root in ("/usr/local/share", "/usr/share")]
    software = [folder for root in ("/opt", "/usr/local", "/srv") if Path(root).is_dir() for folder in sorted(Path(root).iterdir())]
    return next((folder for folder in (*named, *standard, *software) if (folder / PROVIDER).is_dir()), None)


def tool_python(module: str) -> str:
    """An interpreter that has `module`: this one, or that of GROVER_INFRA_PYTHON or .venv-infra (the extra `infra`)."""
    if importlib.util.find_spec(module):
        return sys.executable
    for candidate in _tool_interpreters():
        if subprocess.run([candidate, "-c", f"import {module}"], capture_output=True).returncode == 0:
            return candidate
    pytest.skip(f"no interpreter with {module}: make .venv-infra with the extra `infra`, or set GROVER_INFRA_PYTHON")


def tool(name: str) -> str:
    """A command from the PATH, or from beside the interpreters of `tool_python`."""
    folders = [str(Path(candidate).parent) for candidate in _tool_interpreters()]
    found = shutil.which(name) or shutil.which(name, path=os.pathsep.join(folders))
    if found is None:
        pytest.skip(f"no {name}: make .venv-infra with the extra `infra`, or set GROVER_INFRA_PYTHON")
    return found


def _tool_interpreters() -> list[str]:
    places = (REPOSITORY / ".venv-infra/bin/python", REPOSITORY / ".venv-checkov/bin/python")
    candidates = (os.environ.get("GROVER_INFRA_PYTHON"), os.environ.get("GROVER_CHECKOV_PYTHON"), *places)
    return [str(candidate) for candidate in candidates if candidate and Path(candidate).is_file()]


def environment_names() -> set[str]:
    """Names that main.tf writes into node.env."""
    text = (REPOSITORY / "infra/main.tf").read_text()
    return set(re.findall(r"^\s+(GROVER_\w+)\s+=", text, re.MULTILINE)) | {"GROVER_ROLE"}


@dataclass(frozen=True)
class Terraform:
    """Terraform in one folder, with its own CLI configuration."""

    folder: Path
    environment: Mapping[str, str]

    def run(self, *arguments: str, codes: tuple[int, ...] = (0,), seconds: int = 400) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["terraform", f"-chdir={self.folder}", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
        assert done.returncode in codes, f"terraform {' '.join(arguments)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments).stdout)

    def at(self, folder: str) -> Terraform:
        return Terraform(self.folder / folder, self.environment)


@dataclass(frozen=True)
class Fake:
    url: str

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            return json.load(answer)

    def unknown_calls(self) -> list[str]:
        return self.get("/fake/unknown-calls")

    def left(self) -> dict[str, int]:
        """How much of what a cluster consists of the fake still holds."""
        return self.get("/fake/left")

    def call(self, service: str, action: str, body: dict[str, Any]) -> Any:
        """One call of a JSON service."""
        headers = {
            "X-Amz-Target": f"{service}.{action}",
            "Content-Type": "application/x-amz-json-1.1",
            "Authorization": f"AWS4-HMAC-SHA256 Credential=fake/20260101/us-east-1/{service}/aws4_request",
        }
        request = urllib.request.Request(self.url, data=json.dumps(body).encode(), headers=headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)


@contextmanager
def fake_server(folder: Path, host: str = "127.0.0.1") -> Iterator[Fake]:
    """The fake of AWS on a free port of `host`; its words go to a log in `folder`."""
    python = tool_python("moto")
    with socket.socket() as free:
        free.bind((host, 0))
        port = free.getsockname()[1]
    log = folder / "fake.log"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    with log.open("w") as words:
        command = [python, str(Path(__file__).with_name("fake_aws.py")), str(port), host]
        process = subprocess.Popen(command, stdout=words, stderr=words, env=environment)
    found = Fake(f"http://{host}:{port}")
    try:
        for _ in range(240):
            try:
                found.unknown_calls()
                break
            except OSError:
                assert process.poll() is None, log.read_text()
                time.sleep(0.5)
        yield found
    finally:
        process.terminate()
        process.wait(timeout=20)
