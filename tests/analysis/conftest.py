from __future__ import annotations

import pytest

from tests.synthetic_run import build


@pytest.fixture(scope="package")
def small_run(tmp_path_factory: pytest.TempPathFactory):
    return build(tmp_path_factory.mktemp("analysis"))
