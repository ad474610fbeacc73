"""A simulated cluster of several nodes on this machine: one is killed in the middle of a sweep; metrics of a gang at work."""

from __future__ import annotations

import json
import re
import threading
import time
import urllib.request
from types import SimpleNamespace

import psutil
import pytest

pytestmark = [pytest.mark.ray, pytest.mark.distributed, pytest.mark.slow, pytest.mark.timeout(900)]

import ray  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402

from grover_dist.cluster.gangs import Call, run_gang  # noqa: E402
from grover_dist.cluster.pipeline import pipeline_session  # noqa: E402
from grover_dist.config import config_from  # noqa: E402
from grover_dist.corpus.build import build_corpus  # noqa: E402
from grover_dist.genome.stage import build_genome  # noqa: E402
from grover_dist.run_dir import RunDir  # noqa: E402
from grover_dist.selection.baselines import build_baselines  # noqa: E402
from grover_dist.selection.decide import decide  # noqa: E402
from grover_dist.selection.ladder import climb  # noqa: E402
from grover_dist.selection.scores import compare_evaluations  # noqa: E402
from grover_dist.selection.task import build_task  # noqa: E402
from grover_dist.selection.trial import run_trial  # noqa: E402
from grover_dist.training.ranks import Ranks  # noqa: E402

CHECKPOINT_STEPS = 15


def sweep_config(path, **resources):
    return config_from(
        {
            "run": {"dir": str(path)},
            "genome": {"synthetic": {"length_bp": 150_000, "contigs": 2, "promoters": 20, "ctcf_sites": 20, "tandem_repeats": 5}},
            "bpe": {"cycles": 60},
            "split": {"block_bp": 10_000},
            "windows": {"max_tokens": 62},
            "model": {"layers": 1, "heads": 2, "hidden": 32, "feed_forward": 64, "positions": 64, "dropout": 0.0},
            "pretrain": {
                "candidates": [20, 40, 60],
                "budget_bases": 150_000,
                "batch_windows": 16,
                "micro_batch_windows": 16,
                "evaluate_windows": 16,
                "evaluations": 1,
                "checkpoint_every_steps": CHECKPOINT_STEPS,
            },
            "selection": {
                "ks": [2],
                "train_positions": 200,
                "evaluate_positions": 200,
                "forest_positions": 100,
                "forest_trees": 3,
                "bootstrap_samples": 100,
            },
            "resources": {"max_failures": 2, **resources},
            "tracking": {"log_every_steps": 1, "tensorboard": False},
        }
    )


@pytest.fixture
def cluster():
    """A head without CPUs, which holds the driver, and two nodes of one CPU. Ports are the system's choice."""
    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 80_000_000}
    made = Cluster(initialize_head=True, head_node_args=head)
    nodes = [made.add_node(num_cpus=1, object_store_memory=80_000_000) for _ in range(2)]
    made.wait_for_nodes()
    yield SimpleNamespace(cluster=made, address=made.address, nodes=nodes)
    ray.shutdown()
    made.shutdown()


def decision_without_ray(path):
    """The same sweep in this process, one candidate after the other."""
    config = sweep_config(path)
    run, ranks = RunDir.open(config), Ranks.join()
    genome = build_genome(config, run)
    task, corpus = build_task(config, run, genome), build_corpus(config, run, genome)

    def train(rung, alive, before):
        shared = {"corpus": corpus, "task": task, "budget_bases": rung.budget_bases, "ranks": ranks}
        return {cycles: run_trial(config, run, cycles=cycles, **shared) for cycles in alive}

    def parts(found):
        return [{cycles: item[stage] for cycles, item in found.items()} for stage in ("kmer", "pretrain")]

    state = climb(
        config.selection.ladder,
        config.pretrain.budget_bases,
        config.pretrain.candidates,
        train=train,
        compare=lambda found: compare_evaluations(config, *parts(found)),
    )
    decided = decide(
        config, run, *parts(state.found), build_baselines(config, run, genome, task), reached=state.reached, verdicts=state.verdicts
    )
    return run, decided


def holder_of(nodes, folder):
    """The node whose worker holds the lock of the stage's folder, and the worker."""
    lock = folder.name.removesuffix(".partial") + ".lock"
    for node in nodes:
        (raylet,) = node.all_processes["raylet"]
        for worker in psutil.Process(raylet.process.pid).children(recursive=True):
            try:
                if any(file.path.endswith(lock) for file in worker.open_files()):
                    return node
            except psutil.Error:
                continue
    return None


def kill_node_in_the_middle(cluster, run, seen):
    """Kill the node, workers first, of the first candidate that has written two checkpoints."""
    while True:
        for folder in (run.path / "pretrain").glob(".c*.partial"):
            node = holder_of(cluster.nodes, folder) if len(list(folder.glob("checkpoints/step-*"))) >= 2 else None
            if node is None:
                continue
            (raylet,) = node.all_processes["raylet"]
            for worker in psutil.Process(raylet.process.pid).children(recursive=True):
                worker.kill()
            cluster.cluster.remove_node(node, allow_graceful=False)
            name = folder.name[1:].partition("-")[0]
            lines = (run.logs / f"pretrain-{name}.jsonl").read_text().splitlines()
            seen |= {"name": name, "step": json.loads(lines[-1])["step"], "killed": time.time()}
            return
        time.sleep(0.01)


def test_a_node_killed_in_the_middle_of_a_sweep_costs_a_few_steps_and_changes_no_decision(cluster, tmp_path):
    expected_run, expected = decision_without_ray(tmp_path / "alone")
    config = sweep_config(tmp_path / "run", ray_address=cluster.address)
    run, said, seen = RunDir.open(config), [], {}
    with pipeline_session(config, run, say=said.append) as pipeline:
        pipeline.task(), pipeline.corpus()
        killer = threading.Thread(target=kill_node_in_the_middle, args=(cluster, run, seen), daemon=True)
        killer.start()
        decided = pipeline.selection()
        killer.join(timeout=60)
    assert seen, "no node was killed"
    resumed = re.findall(r"\[(c\d+)\] pretrain c\d+: goes on from step (\d+) of", "\n".join(said))
    assert [name for name, _ in resumed] == [seen["name"]]
    redone = seen["step"] - int(resumed[0][1])
    print(f"the killed node cost {redone} steps of {seen['name']} (checkpoints every {CHECKPOINT_STEPS})")
    assert 0 <= redone <= CHECKPOINT_STEPS
    assert decided.file("decision.json").read_bytes() == expected.file("decision.json").read_bytes()
    for cycles in config.pretrain.candidates:
        found, alone = run.latest("pretrain", f"c{cycles}"), expected_run.latest("pretrain", f"c{cycles}")
        assert found.manifest["files"]["model/model.safetensors"] == alone.manifest["files"]["model/model.safetensors"]


def scrape(node) -> str:
    with urllib.request.urlopen(f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics", timeout=5) as answer:
        return answer.read().decode()


def test_prometheus_finds_a_gangs_figures_and_a_gang_that_always_dies_is_reported_at_the_end(cluster, tmp_path):
    config = sweep_config(tmp_path / "run", ray_address=cluster.address, max_failures=1)
    run, said = RunDir.open(config), []
    with pipeline_session(config, run, say=said.append) as pipeline:

        def watch():
            while not any("grover_step" in text for text in texts):
                texts[:] = [scrape(node) for node in ray.nodes() if node["Alive"] and node["MetricsExportPort"]]
                time.sleep(0.5)
            (run.logs / "seen").touch()

        texts: list[str] = []
        threading.Thread(target=watch, daemon=True).start()
        calls = [
            Call(f"tests.cluster.functions:{function}", config, run, name, {})
            for name, function in (("gauge", "report_progress"), ("dies", "die_always"))
        ]
        jobs = pipeline._gang_jobs([(call, 1.0) for call in calls], auto=False)
        with pytest.raises(Exception, match=r"(?i)worker|train"):
            pipeline._run(jobs)
        assert (run.logs / "starts").read_text().count("start") == 2  # once, and once again
        assert run_gang(calls[0], config.resources) == {}  # known, and not started again
    assert any(line.startswith("dies failed") for line in said) and not any(line.startswith("gauge failed") for line in said)
    text = "\n".join(texts)
    for name, value in (("step", 7), ("steps", 9), ("bases", 70_000), ("loss_nats_per_token", 4.25)):
        (line,) = [line for line in text.splitlines() if line.startswith(f"ray_grover_{name}{{")]
        assert 'candidate="gauge"' in line and 'run="run"' in line and float(line.split()[-1]) == value
