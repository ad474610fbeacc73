"""Shared fixtures. Real data is read from GROVER_DATA or ../shared/data, and a test that needs it is skipped without it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent

# Set before torch or Ray are imported anywhere: the CPU accelerator of DeepSpeed, and no token file from a local Ray.
os.environ.setdefault("DS_ACCELERATOR", "cpu")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    path = Path(os.environ.get("GROVER_DATA", REPOSITORY.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no real data at {path}; set GROVER_DATA")
    return path


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory):
    """A run on a small synthetic genome for the tests of analysis and report; see tests/synthetic_run.py. Read it, do not change it."""
    from tests.synthetic_run import build

    return build(tmp_path_factory.mktemp("small"))
