from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grover_dist.cluster.gangs import Call
from grover_dist.cluster.pipeline import Pipeline
from grover_dist.cluster.schedule import Job, doubling_speed, makespan_bound, next_jobs, pack, rank_numbers, run_jobs, simulated_starts
from grover_dist.cluster.session import Room
from grover_dist.config import config_from, load_config
from grover_dist.errors import UserError
from grover_dist.run_dir import RunDir
from grover_dist.training.plan import plan_candidate

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


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


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(0, 5)), min_size=1, max_size=12),
    st.integers(4, 9),
    st.integers(1, 6),
)
def test_the_simulation_starts_what_the_scheduler_starts(sizes, slots, places):
    """Against a slow simulation that asks `next_jobs` itself whenever something ends."""
    widths, seconds, order = zip(*sizes, strict=True)
    waiting, running, starts, now = [_job(str(i), cpus=w, cost=o) for i, (w, _, o) in enumerate(sizes)], {}, {}, 0
    while waiting or running:
        free = slots - sum(job.cpus for job in running)
        for job in next_jobs(waiting, free, 0, places - len(running)):
            waiting.remove(job)
            running[job], starts[int(job.name)] = now + seconds[int(job.name)], now
        now = min(running.values())
        running = {job: end for job, end in running.items() if end > now}
    assert simulated_starts(widths, seconds, order, slots, places) == tuple(starts[index] for index in range(len(sizes)))


works = st.lists(st.floats(0.01, 100.0), min_size=1, max_size=24)
numbers = st.sampled_from([(1,), (1, 2, 4, 8, 16, 32, 64), (1, 2, 3, 4, 6, 8, 12, 24), (2, 4, 8)])


@settings(max_examples=25, deadline=None)
@given(works, st.integers(1, 64), numbers, st.floats(0.6, 1.0), st.integers(1, 24))
def test_a_packing_never_exceeds_the_cluster_and_is_never_twice_the_bound(work, slots, widths, efficiency, places):
    """Two times is what list scheduling of the narrowest sufficient widths guarantees; the search may only be better."""
    speed = doubling_speed(efficiency)
    if min(widths) > slots:
        with pytest.raises(UserError, match="no number of ranks fits"):
            pack(work, slots, widths, speed)
        return
    packed = pack(work, slots, widths, speed, proposals=100)
    assert packed.makespan <= 2 * makespan_bound(work, slots, widths, speed) * (1 + 1e-6)
    narrow = pack(work, slots, widths, speed, places=places, proposals=100)
    for found, most in ((packed, len(work)), (narrow, places)):
        assert set(found.width) <= set(widths)
        assert found.seconds == pytest.approx([job / speed(width) for job, width in zip(work, found.width, strict=True)])
        for moment in found.start:
            at_work = [
                width
                for start, took, width in zip(found.start, found.seconds, found.width, strict=True)
                if start <= moment + 1e-9 < start + took - 1e-9
            ]
            assert sum(at_work) <= slots and len(at_work) <= most


@settings(max_examples=10, deadline=None)
@given(works, st.integers(1, 16), st.floats(0.6, 1.0))
def test_no_schedule_of_one_width_for_all_beats_a_packing(work, slots, efficiency):
    speed = doubling_speed(efficiency)
    found = pack(work, slots, (1, 2, 4, 8, 16), speed, proposals=100)
    for width in (width for width in (1, 2, 4, 8, 16) if width <= slots):
        assert found.makespan <= pack(work, slots, (width,), speed, proposals=0).makespan * (1 + 1e-9)


def test_small_sweeps_are_packed_as_one_would_by_hand():
    speed = doubling_speed(1.0)
    assert pack([4.0], 4, (1, 2, 4), speed).width == (4,)
    assert pack([4.0, 4.0], 2, (1, 2), doubling_speed(0.9)).width == (1, 1)
    assert pack([8.0, 4.0, 4.0], 4, (1, 2, 4), doubling_speed(0.9)).width == (2, 1, 1)
    assert pack([], 4, (1,), speed).makespan == 0.0


def test_a_sweep_of_the_papers_candidates_ends_near_the_bound_on_any_cluster():
    config = load_config(CONFIGS / "human-hg19.yaml")
    work = [
        plan_candidate(config, cycles, budget_bases=config.pretrain.budget_bases, world=1, flops_per_second=4e14).hours
        for cycles in config.pretrain.candidates
    ]
    widths, speed = rank_numbers(64), doubling_speed(config.resources.scaling_efficiency)
    for gpus in (1, 7, 16, 20, 24, 64):
        assert pack(work, gpus, widths, speed).makespan <= 1.1 * makespan_bound(work, gpus, widths, speed), gpus


def test_run_jobs_follows_a_packing(tmp_path):
    """What starts together in the packing starts together in the scheduler, whose room is never exceeded."""
    packed = pack([8.0, 5.0, 4.0, 3.0, 2.0, 1.0], 4, (1, 2, 4), doubling_speed(0.8))
    started, gate = [], threading.Event()

    def work(index):
        def run():
            started.append(index)
            gate.wait(timeout=20)

        return run

    jobs = [
        _job(str(index), cpus=width, cost=cost, run=work(index))
        for index, (width, cost) in enumerate(zip(packed.width, packed.priority, strict=True))
    ]
    first = {index for index, start in enumerate(packed.start) if start == 0.0}
    runner = threading.Thread(target=run_jobs, args=(jobs,), kwargs={"cpus": 4, "gpus": 0})
    runner.start()
    while len(started) < len(first):
        time.sleep(0.001)
    assert set(started) == first
    gate.set()
    runner.join(timeout=20)
    assert sorted(started) == list(range(6))


def test_numbers_of_ranks_share_every_batch():
    assert rank_numbers(64) == [1, 2, 4, 8, 16, 32, 64]
    assert rank_numbers(64, 48, 32) == [1, 2, 4, 8, 16]
    assert rank_numbers(12) == [1, 2, 3, 4, 6, 12]


@pytest.mark.parametrize(
    ("cpus", "gpus", "expected"), [(4, 2, "room for 1 rank.*ranks_per_candidate=1"), (4, 0, "not one rank fits.*gpus_per_rank=0")]
)
def test_a_candidate_that_the_cluster_cannot_hold_is_refused_with_what_would_fit(tmp_path, cpus, gpus, expected):
    raw = {"genome": {"fasta": "x.fa"}, "resources": {"ranks_per_candidate": 2, "cpus_per_rank": 2, "gpus_per_rank": 2}}
    config = config_from(raw)
    pipeline = Pipeline(config, RunDir(tmp_path), Room(1, cpus, gpus), print)
    call = Call("module:function", config, RunDir(tmp_path), "c100", {})
    with pytest.raises(UserError, match=expected):
        pipeline._gang_jobs([(call, 1.0)])


def test_auto_makes_gangs_of_the_packed_widths(tmp_path):
    raw = {"genome": {"fasta": "x.fa"}, "resources": {"gpus_per_candidate": "auto", "cpus_per_rank": 2}, "pretrain": {"batch_windows": 12}}
    config, said = config_from(raw), []
    pipeline = Pipeline(config, RunDir(tmp_path), Room(1, 8, 0), said.append)
    jobs = pipeline._gang_jobs([(Call("module:function", config, RunDir(tmp_path), f"c{cost}", {}), float(cost)) for cost in (80, 40, 40)])
    assert [job.cpus for job in jobs] == [4, 2, 2] and "c80 2, c40 1, c40 1" in said[0]
    lone = pipeline._gang_jobs([(Call("module:function", config, RunDir(tmp_path), "c1", {}), 1.0)])
    assert [job.cpus for job in lone] == [8]  # 4 ranks share batches of 12 and of 64


def test_gpus_of_a_candidate_become_ranks():
    def resources(**given):
        return config_from({"genome": {"fasta": "x.fa"}, "resources": given}).resources

    assert resources(gpus_per_candidate=4, gpus_per_rank=1).ranks_per_candidate == 4
    assert resources(gpus_per_candidate=2, gpus_per_rank=2).ranks_per_candidate == 1
    for wrong in (
        {"gpus_per_candidate": 3, "gpus_per_rank": 2},
        {"gpus_per_candidate": 2},
        {"gpus_per_candidate": 4, "gpus_per_rank": 1, "ranks_per_candidate": 2},
    ):
        with pytest.raises(UserError, match="gpus_per_candidate"):
            resources(**wrong)
