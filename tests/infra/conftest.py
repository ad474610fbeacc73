"""Terraform, the provider's plugin and the fake of AWS: found here, or the test is skipped with the reason."""

from __future__ import annotations

import os
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.infra.clouds import REPOSITORY, Fake, Terraform, fake_server, plugin_folder


@pytest.fixture(scope="session")
def terraform(tmp_path_factory: pytest.TempPathFactory) -> Terraform:
    """Terraform at a copy of infra/, beside a copy of what it reads from the repository."""
    if shutil.which("terraform") is None:
        pytest.skip("no terraform on the PATH")
    root = tmp_path_factory.mktemp("terraform")
    settings = root / "terraform.rc"
    plugins = plugin_folder()
    if plugins:
        settings.write_text(f'disable_checkpoint = true\nprovider_installation {{\n  filesystem_mirror {{ path = "{plugins}" }}\n}}\n')
    else:
        settings.write_text("disable_checkpoint = true\n")
    shutil.copytree(REPOSITORY / "infra", root / "infra", ignore=shutil.ignore_patterns(".terraform", "*.tfstate*", "terraform.tfvars"))
    shutil.copy(REPOSITORY / "constraints.txt", root)
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("TF_", "AWS_"))}
    found = Terraform(root / "infra", {**kept, "TF_CLI_CONFIG_FILE": str(settings), "TF_IN_AUTOMATION": "1", "HOME": str(root)})
    if plugins is None:
        try:
            found.run("init", "-backend=false", "-input=false", seconds=120)
        except (AssertionError, subprocess.TimeoutExpired) as error:
            pytest.skip(f"no folder with the AWS provider (set TF_PLUGIN_DIR), and no registry: {str(error)[-300:]}")
    return found


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stands for the product's wheel: Terraform uploads it and hashes it, and does not open it."""
    path = tmp_path_factory.mktemp("dist") / "grover_dist-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("grover_dist/__init__.py", "")
    return path


@pytest.fixture(scope="session")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fake]:
    with fake_server(tmp_path_factory.mktemp("fake")) as found:
        yield found


@pytest.fixture(scope="session")
def variables(fake: Fake, wheel: Path) -> list[str]:
    """The arguments that every plan of an example needs here."""
    values = {
        "region": "us-east-1",
        "aws_endpoint_url": fake.url,
        "product_wheel": wheel,
        "product_version": "0.1.0",
        "alert_email": "lab@example.org",
        "bucket_force_destroy": "true",
    }
    return [f"-var={key}={value}" for key, value in values.items()]
