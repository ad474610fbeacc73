"""Format, validity and the modules' own tests (`terraform test` with a mocked provider)."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.infra.clouds import REPOSITORY, Terraform, tool

INFRA = REPOSITORY / "infra"
VARIABLE = re.compile(r'^variable "(\w+)" \{\n(.*?)^\}', re.MULTILINE | re.DOTALL)


def test_format(terraform: Terraform) -> None:
    terraform.run("fmt", "-check", "-recursive")


@pytest.mark.e2e
@pytest.mark.parametrize("root", [".", "examples/minimal", "examples/gpu-sweep"])
def test_valid(terraform: Terraform, root: str) -> None:
    folder = terraform.at(root)
    folder.run("init", "-backend=false", "-input=false", "-lockfile=readonly")
    folder.run("validate")


@pytest.mark.e2e
def test_modules_with_a_mocked_provider(terraform: Terraform) -> None:
    terraform.run("init", "-backend=false", "-input=false", "-lockfile=readonly")
    assert "0 failed" in terraform.run("test", "-no-color").stdout


@pytest.mark.parametrize("path", sorted(INFRA.rglob("variables.tf")), ids=lambda path: str(path.relative_to(INFRA).parent))
def test_every_variable_has_a_type_and_a_description(path: Path) -> None:
    found = VARIABLE.findall(path.read_text())
    assert found
    assert [name for name, body in found if "type " not in body or "description " not in body] == []


def test_every_root_variable_with_a_choice_is_validated() -> None:
    free = {"tags", "nat", "interface_endpoints", "bucket_force_destroy", "protect", "require_gpus", "permissions_boundary_arn"}
    found = VARIABLE.findall((INFRA / "variables.tf").read_text())
    assert {name for name, body in found if "validation {" not in body} == free


def test_the_backend_locks_by_an_object() -> None:
    for path in INFRA.glob("examples/*/backend.tf.example"):
        text = path.read_text()
        assert "use_lockfile = true" in text and "encrypt      = true" in text and "dynamodb" not in text


@pytest.mark.e2e
def test_checkov_finds_nothing_that_is_not_argued_in_place() -> None:
    command = [tool("checkov"), "-d", str(INFRA), "--framework", "terraform", "--compact", "--quiet", "--skip-download"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0 and "Failed checks: 0" in done.stdout, done.stdout + done.stderr
    for path in INFRA.glob("modules/*/*.tf"):
        for reason in re.findall(r"#checkov:skip=CKV\w+:?(.*)", path.read_text()):
            assert len(reason) > 20, f"{path}: an exception without its reason"
