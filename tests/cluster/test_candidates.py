"""What `grover-dist status` says of candidates, from a run's files alone."""

from __future__ import annotations

import json
import os
import time

import pytest

from grover_dist.cluster.candidates import SILENT_SECONDS, describe_candidates, note_failure, note_rung, standings
from grover_dist.config import config_from
from grover_dist.run_dir import RunDir
from grover_dist.selection.ladder import plan_rungs

BUDGET = 1_000_000


@pytest.fixture
def run(tmp_path):
    raw = {
        "run": {"dir": str(tmp_path / "run")},
        "genome": {"fasta": "x.fa"},
        "pretrain": {"candidates": [100, 300, 600, 1000], "budget_bases": BUDGET},
        "selection": {"ladder": {"kind": "halving"}},
    }
    found = RunDir.open(config_from(raw))
    found.rungs = plan_rungs(config_from(raw).selection.ladder, BUDGET)
    return found


def publish(run, stage, cycles, **counts):
    with run.begin(stage, f"c{cycles}", settings=counts) as work:
        work.counts |= counts | {"cycles": cycles}


def progress(run, stage, cycles, *lines, age=0.0):
    path = run.logs / f"{stage}-c{cycles}.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 9')  # a line being written
    os.utime(path, (time.time() - age, time.time() - age))


def begun(run, stage, cycles):
    (run.path / stage / f".c{cycles}-12345678.partial").mkdir(parents=True)


def test_nothing_is_known_of_a_folder_without_settings(tmp_path):
    assert standings(RunDir(tmp_path)) == [] and list(describe_candidates(RunDir(tmp_path))) == []


def test_all_wait_before_anything_has_begun(run):
    assert [(one.cycles, one.state, one.rung, one.rungs) for one in standings(run)] == [(c, "waiting", 1, 3) for c in (100, 300, 600, 1000)]


def test_every_state_of_a_candidate_on_the_second_rung(run):
    second = run.rungs[1].budget_bases
    for cycles in (100, 300, 600, 1000):
        publish(run, "pretrain", cycles, budget_bases=run.rungs[0].budget_bases, steps=10, bases=100_000, bits_per_base=1.9)
        publish(run, "kmer", cycles)
    note_rung(run, run.rungs[1], [100, 300, 1000])
    begun(run, "pretrain", 100)
    line = {
        "budget_bases": second,
        "steps": 40,
        "step": 20,
        "bases": 222_000,
        "loss": 4.0,
        "seconds_per_step": 3.0,
        "bases_per_second": 5e3,
    }
    progress(run, "pretrain", 100, {**line, "step": 10, "held_out_bits_per_base": 1.87}, line)
    publish(run, "pretrain", 300, budget_bases=second, steps=41, bases=300_000, bits_per_base=1.85)
    begun(run, "kmer", 300)
    progress(run, "kmer", 300, {"done": 3, "of": 12})
    by_cycles = {one.cycles: one for one in standings(run)}
    at_work = by_cycles[100]
    assert (at_work.state, at_work.rung, at_work.step, at_work.steps, at_work.bases) == ("pretraining", 2, 20, 40, 222_000)
    assert (at_work.bits_per_base, at_work.bases_per_second, at_work.seconds_left) == (1.87, 5e3, 60.0)
    assert (by_cycles[300].state, by_cycles[300].rung, by_cycles[300].bits_per_base) == ("scoring", 2, 1.85)
    assert "head 3 of 12" in by_cycles[300].note
    assert (by_cycles[600].state, by_cycles[600].rung) == ("dropped", 1)
    assert (by_cycles[1000].state, by_cycles[1000].rung, by_cycles[1000].note) == ("waiting", 2, "rung 1 done")
    text = list(describe_candidates(run))
    assert len(text) == 5 and "20 of 40" in text[1] and "60 s" in text[1] and "1.8700" in text[1] and "222,000" in text[1]


def test_a_candidate_without_a_word_for_long_is_called_silent(run):
    begun(run, "pretrain", 100)
    progress(run, "pretrain", 100, {"step": 1, "steps": 2}, age=2 * SILENT_SECONDS)
    assert standings(run)[0].state == "silent"


def test_a_failure_is_shown_until_the_job_starts_again(run):
    note_failure(run, "c300", RuntimeError("the worker\ndied"))
    failed = standings(run)[1]
    assert (failed.state, failed.note) == ("failed", "RuntimeError: the worker died")
    note_failure(run, "c300", None)
    assert standings(run)[1].state == "waiting"


def test_the_chosen_candidate_is_named(run):
    for cycles in (100, 300, 600, 1000):
        publish(run, "pretrain", cycles, budget_bases=BUDGET, steps=10, bases=BUDGET, bits_per_base=1.9)
    with run.begin("selection", "decision", settings={}) as work:
        work.counts["chosen"] = 300
    assert [one.state for one in standings(run)] == ["scored", "chosen", "scored", "scored"]
