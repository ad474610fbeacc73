from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grover_dist.cluster.schedule import Job, next_jobs, run_jobs
from grover_dist.errors import UserError


def _job(name, cpus=1.0, gpus=0.0, cost=1.0, run=lambda: None):
    return Job(name, run, cpus, gpus, cost)


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(0, 2), st.integers(0, 9)), max_size=12),
    st.integers(0, 8),
    st.integers(0, 4),
    st.integers(0, 5),
)
def test_what_starts_fits_and_nothing_that_fits_is_left_waiting(sizes, cpus, gpus, places):
    jobs = [_job(str(i), c, g, cost) for i, (c, g, cost) in enumerate(sizes)]
    chosen = next_jobs(jobs, cpus, gpus, places)
    free_cpus, free_gpus = cpus - sum(j.cpus for j in chosen), gpus - sum(j.gpus for j in chosen)
    assert free_cpus >= 0 and free_gpus >= 0 and len(chosen) <= places
    if len(chosen) < places:
        assert not [j for j in jobs if j not in chosen and j.cpus <= free_cpus and j.gpus <= free_gpus]


def test_dearest_first_then_freed_room_goes_to_the_next():
    started, gate = [], threading.Barrier(2, timeout=20)

    def work(name):
        def run():
            started.append(name)
            if len(started) <= 2:
                gate.wait()
            return name

        return run

    jobs = [_job(str(cost), cost=cost, run=work(str(cost))) for cost in (1, 3, 2, 4)]
    outcome = run_jobs(jobs, cpus=2, gpus=0)
    assert set(started[:2]) == {"4", "3"} and started[2:] in (["2", "1"], ["1", "2"])
    assert outcome.results == {name: name for name in "1234"} and not outcome.failures


def test_never_more_at_once_than_there_is_room_for():
    lock, now, most = threading.Lock(), [0], [0]

    def run():
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.01)
        with lock:
            now[0] -= 1

    run_jobs([_job(str(i), run=run) for i in range(12)], cpus=3, gpus=0)
    assert most[0] == 3
    most[0] = 0
    run_jobs([_job(str(i), run=run) for i in range(6)], cpus=3, gpus=0, places=2)
    assert most[0] == 2


def test_a_failure_harms_no_other():
    def fail():
        raise UserError("bad")

    outcome = run_jobs([_job("a", run=fail), _job("b", run=lambda: 7)], cpus=1, gpus=0)
    assert outcome.results == {"b": 7} and str(outcome.failures["a"]) == "bad."


def test_a_job_that_can_never_fit_is_refused_before_anything_starts():
    started = []
    with pytest.raises(UserError, match="more than the whole cluster"):
        run_jobs([_job("small", run=lambda: started.append(1)), _job("large", gpus=8)], cpus=4, gpus=4)
    assert not started
