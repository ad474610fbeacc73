"""A gang on a cluster of real Ray nodes on this machine, one of which is lost and comes back."""

from __future__ import annotations

import json
import threading
import time

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.distributed, pytest.mark.timeout(1500)]

from ray.cluster_utils import Cluster  # noqa: E402

from grover_dist.cluster.gangs import Call, run_gang  # noqa: E402
from grover_dist.cluster.session import ray_session  # noqa: E402
from grover_dist.run_dir import RunDir  # noqa: E402
from tests.cluster.functions import ELASTIC_STEPS  # noqa: E402
from tests.cluster.test_ray import tiny_config  # noqa: E402
from tests.training.toy_objective import BATCH, plain_torch, toy_plan  # noqa: E402


@pytest.fixture
def cluster(monkeypatch):
    # Ray first waits at the old size; the nodes take the variable over from this process.
    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "15")
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    yield made
    made.shutdown()


def until(condition, what):
    end = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < end, f"{what}: never"
        time.sleep(0.2)


def test_a_lost_node_shrinks_the_gang_and_a_new_one_lets_it_grow(cluster, tmp_path):
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    config = tiny_config(
        tmp_path / "run", ranks_per_candidate=2, min_ranks_per_candidate=1, resize_check_seconds=4, ray_address=cluster.address
    )
    run = RunDir.open(config)
    shown = run.logs / "shown"

    def worlds():
        return [int(line.split()[1]) for line in shown.read_text().splitlines()] if shown.exists() else []

    def steps_with(world):
        return worlds().count(world) // world

    failure = []

    def drive():
        try:
            run_gang(Call("tests.cluster.functions:toy", config, run, "toy", {}), config.resources)
        except BaseException as error:
            failure.append(error)

    with ray_session(config.resources):
        driver = threading.Thread(target=drive, daemon=True)
        driver.start()
        until(lambda: failure or steps_with(2) >= 8, "two ranks at work")
        cluster.remove_node(nodes[1], allow_graceful=False)
        until(lambda: failure or steps_with(1) >= 4, "one rank at work after a lost node")
        cluster.add_node(num_cpus=1)
        driver.join(600)
        assert not driver.is_alive() and not failure, failure
    sizes = [world for number, world in enumerate(worlds()) if number == 0 or worlds()[number - 1] != world]
    print(f"ranks in turn: {sizes}")
    assert sizes == [2, 1, 2]

    rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    plan = toy_plan(total_steps=ELASTIC_STEPS)
    assert [row["loss"] for row in rows if "loss" in row] == pytest.approx(plain_torch(plan)[0], rel=1e-4)
    seen: dict[int, set[int]] = {}
    for line in shown.read_text().splitlines():
        step, _, *samples = map(int, line.split())
        seen.setdefault(step, set()).update(samples)
    assert seen == {step: set(range(step * BATCH, (step + 1) * BATCH)) for step in range(ELASTIC_STEPS)}
