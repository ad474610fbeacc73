"""Shared fixtures. Real data is read from GROVER_DATA or ../shared/data, and a test that needs it is skipped without it."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

REPOSITORY = Path(__file__).resolve().parent.parent

# Set before torch or Ray are imported anywhere: no token file from a local Ray.
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# The first example of a test may wait for a kernel to be compiled.
hypothesis.settings.register_profile("grover", deadline=None)
hypothesis.settings.load_profile("grover")


def pytest_configure(config: pytest.Config) -> None:
    """Only `-m gpu` sees a GPU: all other tests give the same on every machine. Before torch is imported anywhere."""
    if "gpu" not in config.option.markexpr.replace("not gpu", ""):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        os.environ["DS_ACCELERATOR"] = "cpu"


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


@pytest.fixture(scope="session")
def s3_url(tmp_path_factory: pytest.TempPathFactory):
    """The URL of an S3 server; skipped without one. Use `bucket` to write to it."""
    from tests.s3_server import s3_server

    with s3_server(tmp_path_factory.mktemp("s3")) as url:
        yield url


@pytest.fixture
def bucket(s3_url: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """`s3://` and a new bucket; this process and those that it starts find the server by the AWS variables."""
    import hashlib

    from tests.s3_server import CREDENTIALS

    for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": s3_url}.items():
        monkeypatch.setenv(name, value)
    name = f"bucket-{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]}"
    from pyarrow.fs import S3FileSystem

    S3FileSystem(endpoint_override=s3_url, allow_bucket_creation=True).create_dir(name)
    return f"s3://{name}"
