"""Pieces of the page that the whole run does not reach."""

from __future__ import annotations

from grover_dist.config import config_from
from grover_dist.report.page import Column, interval, percent
from grover_dist.report.sections import health_rows
from grover_dist.run_dir import RunDir


def test_health_is_shown_where_it_was_measured(tmp_path) -> None:
    found = {
        "reverse_complement_closure": 0.5,
        "boundary_agreement": None,
        "resynchronisation_bp": {"p95": 12.0},
        "substitution_footprint_bp": None,
    }
    run = RunDir.open(config_from({"run": {"dir": str(tmp_path / "run")}, "genome": {"fasta": "genome.fa"}}))
    health = run.once("health", "vocabulary", lambda work: work.write_json("health.json", {"60": found}), settings={})
    rows = health_rows(health, [30, 60], 60)
    assert rows == [{"cycles": 60, "chosen": True, "closure": 0.5, "agreement": None, "resynchronisation": 12.0, "footprint": None}]
    assert health_rows(None, [30, 60], 60) == []


def test_what_is_not_known_is_a_dash() -> None:
    column = Column("share", "share", percent)
    assert [column.show({"share": value}) for value in (0.5, None, float("nan"))] == ["50.0 %", "\u2013", "\u2013"]
    assert interval(None, 0.2, percent) is None and interval(0.1, 0.2, percent) == "10.0 % to 20.0 %"
