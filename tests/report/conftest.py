from __future__ import annotations

import pytest

from grover_dist.report.stage import write_report


@pytest.fixture(scope="package")
def report(small_run):
    return write_report(small_run.config, small_run.run, small_run.artifacts, say=lambda _: None)


@pytest.fixture(scope="package")
def html(report) -> str:
    return report.file("report.html").read_text()
