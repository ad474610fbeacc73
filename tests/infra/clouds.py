"""Terraform, the provider's plugin folder, an interpreter with a tool, and the fake of AWS as the tests see it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
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
    for candidate in (os.environ.get("GROVER_INFRA_PYTHON"), REPOSITORY / ".venv-infra/bin/python"):
        if candidate and Path(candidate).is_file():
            found = subprocess.run([candidate, "-c", f"import {module}"], capture_output=True)
            if found.returncode == 0:
                return str(candidate)
    pytest.skip(f"no interpreter with {module}: make .venv-infra with the extra `infra`, or set GROVER_INFRA_PYTHON")


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
