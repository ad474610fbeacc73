"""Real Ray processes on this machine: the learner's actors, gangs of ranks, tasks."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

import ray  # noqa: E402

from grover_dist.bpe.learn import WorkerLost  # noqa: E402
from grover_dist.cluster.console import following  # noqa: E402
from grover_dist.cluster.gangs import Call, run_gang, run_task  # noqa: E402
from grover_dist.cluster.learners import LearnerActor, call_actors, learn_on_ray  # noqa: E402
from grover_dist.cluster.pipeline import Pipeline  # noqa: E402
from grover_dist.cluster.session import ray_session  # noqa: E402
from grover_dist.config import config_from  # noqa: E402
from grover_dist.corpus.build import build_corpus  # noqa: E402
from grover_dist.errors import UserError  # noqa: E402
from grover_dist.genome.stage import build_genome  # noqa: E402
from grover_dist.run_dir import RunDir  # noqa: E402
from tests.training.toy_objective import plain_torch, toy_plan  # noqa: E402


def tiny_config(path, **resources):
    return config_from(
        {
            "run": {"dir": str(path)},
            "genome": {"synthetic": {"length_bp": 150_000, "contigs": 2, "promoters": 20, "ctcf_sites": 20, "tandem_repeats": 5}},
            "bpe": {"cycles": 60},
            "split": {"block_bp": 10_000},
            "windows": {"max_tokens": 62},
            "model": {"layers": 1, "heads": 2, "hidden": 32, "feed_forward": 64, "positions": 64, "dropout": 0.0},
            "pretrain": {
                "candidates": [20, 60],
                "budget_bases": 100_000,
                "batch_windows": 16,
                "micro_batch_windows": 8,
                "evaluate_windows": 16,
                "evaluations": 1,
                "checkpoint_every_steps": 5,
                "optimizer": {"learning_rate": 1e-3},
            },
            "resources": resources,
            "tracking": {"log_every_steps": 1, "tensorboard": False},
        }
    )


@pytest.fixture(scope="module")
def room():
    with ray_session(tiny_config("unused").resources) as found:
        yield found


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A run that is learned in this process, without Ray."""
    config = tiny_config(tmp_path_factory.mktemp("learned") / "run")
    run = RunDir.open(config)
    genome = build_genome(config, run)
    return run, genome, build_corpus(config, run, genome)


def copy_of(learned, path):
    """A run folder of its own with the same genome and corpus."""
    shutil.copytree(learned[0].path, path)
    return RunDir(path)


def test_actors_write_the_same_files_as_one_process(room, learned, tmp_path):
    config = tiny_config(tmp_path / "run")
    run = RunDir.open(config)
    corpus = learn_on_ray(config, run, build_genome(config, run), room, print)
    assert corpus.manifest["files"] == learned[2].manifest["files"] and corpus.digest == learned[2].digest


def test_a_fault_inside_an_actor_comes_back_in_its_own_words(room, learned, tmp_path):
    run, genome, _ = learned
    actor = ray.remote(LearnerActor).remote(run, replace(genome, path=tmp_path / "no-genome"), 0, 10)
    with pytest.raises(FileNotFoundError, match="no-genome"):
        call_actors([actor], "start", [()])
    ray.kill(actor)


@ray.remote(num_cpus=0.5)
class MortalWorker(LearnerActor):
    def process_id(self) -> int:
        return os.getpid()


def test_killed_actors_are_rebuilt_and_the_files_are_the_same(room, learned, tmp_path):
    """SIGKILL of one actor in an early round, of both at once in a later one, and of one while it writes the store."""
    config = tiny_config(tmp_path / "run")
    run = RunDir.open(config)
    genome = build_genome(config, run)
    handles, calls, lost = [], [], []

    def make_workers(_path, row_ranges):
        made = [MortalWorker.remote(run.absolute(), genome, start, stop, 2) for start, stop in row_ranges]
        handles[:] = made if len(made) > 1 else [*handles, *made]
        return made

    def call(workers, method, args):
        calls.append(method)
        victims = {3: workers[:1], 7: workers[:2]}.get(calls.count("round"), []) if method == "round" else []
        if method == "write_parts" and calls.count("write_parts") == 1:
            victims = workers[-1:]
        for worker in victims:
            os.kill(ray.get(worker.process_id.remote()), signal.SIGKILL)
        try:
            return call_actors(workers, method, args)
        except WorkerLost as error:
            lost.append(error.indices)
            raise

    corpus = build_corpus(config, run, genome, n_workers=2, make_workers=make_workers, call=call)
    for handle in handles:
        ray.kill(handle)
    assert len(lost) >= 3 and (0, 1) in lost
    assert corpus.manifest["files"] == learned[2].manifest["files"]


def losses(artifact) -> list[float]:
    records = [json.loads(line) for line in artifact.file("metrics.jsonl").read_text().splitlines()]
    return [record["loss"] for record in records if "loss" in record]


def pretrain_call(function, config, run, corpus):
    return Call(f"tests.cluster.functions:{function}", config, run, function, {"corpus": corpus, "cycles": 60})


@pytest.fixture(scope="module")
def plain(learned, tmp_path_factory):
    """The candidate trained by a plain process of one rank."""
    run = copy_of(learned, tmp_path_factory.mktemp("plain") / "run")
    config = tiny_config(run.path)
    (run.path.parent / "config.yaml").write_text(config.to_yaml())
    command = [sys.executable, "-m", "grover_dist.pretrain", str(run.path.parent / "config.yaml"), "--cycles", "60"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=300)
    return run.latest("pretrain", "c60")


@pytest.mark.distributed
def test_a_ray_gang_of_two_trains_to_the_same_losses_as_a_plain_process(room, learned, plain, tmp_path):
    run = copy_of(learned, tmp_path / "run")
    config = tiny_config(run.path, ranks_per_candidate=2)
    gang = run_gang(pretrain_call("pretrain", config, run, learned[2]), config.resources)["pretrain"]
    assert losses(gang) == pytest.approx(losses(plain), rel=2e-5) and len(losses(plain)) > 5
    assert losses(gang)[-1] < losses(gang)[0]


@pytest.mark.distributed
def test_a_ray_gang_of_two_gives_the_losses_of_plain_torch_at_every_stage(room, tmp_path):
    config = tiny_config(tmp_path / "run", ranks_per_candidate=2)
    run = RunDir.open(config)
    run_gang(Call("tests.cluster.functions:every_stage", config, run, "stages", {}), config.resources)
    oracle, _ = plain_torch(toy_plan())
    for losses_of_stage in json.loads((run.logs / "losses.json").read_text()):
        assert losses_of_stage == pytest.approx(oracle, rel=1e-5)


@pytest.mark.distributed
@pytest.mark.parametrize("n_ranks", [1, 2])
def test_a_killed_rank_brings_the_gang_back_and_ends_with_the_same_weights(room, learned, plain, tmp_path, n_ranks):
    run = copy_of(learned, tmp_path / "run")
    config = tiny_config(run.path, ranks_per_candidate=n_ranks)
    gang = run_gang(pretrain_call("die_once", config, run, learned[2]), config.resources)["pretrain"]
    assert (run.logs / "died").exists()
    if n_ranks == 1:
        assert gang.manifest["files"]["model/model.safetensors"] == plain.manifest["files"]["model/model.safetensors"]
    assert losses(gang) == pytest.approx(losses(plain), rel=2e-5)


def test_a_process_that_trained_one_candidate_trains_the_next_to_the_same_weights(room, learned, plain, tmp_path):
    """A gang of one is given a worker that an earlier one may have used."""
    used, run = copy_of(learned, tmp_path / "used"), copy_of(learned, tmp_path / "run")
    call = pretrain_call("pretrain_again", tiny_config(run.path), run, learned[2])
    call.arguments["used"] = str(used.path)
    gang = run_gang(call, call.config.resources)["pretrain"]
    assert used.latest("pretrain", "c60").digest == gang.digest
    assert gang.manifest["files"]["model/model.safetensors"] == plain.manifest["files"]["model/model.safetensors"]


def test_a_known_outcome_starts_no_processes(room, learned, plain, tmp_path):
    run = copy_of(learned, tmp_path / "run")
    config = tiny_config(run.path)
    call = pretrain_call("pretrain", config, run, learned[2])
    path = run.logs / "outcomes" / f"pretrain-{call.key[:8]}.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"key": call.key, "artifacts": {"pretrain": str(plain.path)}}))
    assert run_gang(call, config.resources)["pretrain"].digest == plain.digest
    assert not (run.logs / "ray-train").exists()


def test_a_user_error_in_a_gang_is_told_once_and_not_retried(room, tmp_path):
    config = tiny_config(tmp_path / "run")
    run = RunDir.open(config)
    with pytest.raises(UserError, match=r"matches nowhere.*Where: motif.meme.*give another"):
        run_gang(Call("tests.cluster.functions:fail_as_user", config, run, "fails", {}), config.resources)
    assert (run.logs / "starts").read_text().count("start") == 1


def test_a_task_returns_its_value_and_its_words_are_followed(room, tmp_path):
    config = tiny_config(tmp_path / "run")
    run = RunDir.open(config)
    heard: list[str] = []
    with following(run, heard.append):
        assert run_task(Call("tests.cluster.functions:double", config, run, "doubler", {"number": 21})) == 42
    assert heard == ["[doubler] doubling 21"]


def test_a_rung_below_one_step_is_refused_before_any_gang_starts(room, learned, tmp_path):
    """16 windows of about 51 tokens at the largest candidate's bases a token are some 1,500 bases."""
    run = copy_of(learned, tmp_path / "run")
    config = tiny_config(run.path)
    pretrain = config.pretrain.model_copy(update={"budget_bases": 8_000})
    ladder = config.selection.ladder.model_copy(update={"kind": "halving", "first_fraction": 0.01})
    selection = config.selection.model_copy(update={"ladder": ladder, "train_positions": 100, "evaluate_positions": 100})
    pipeline = Pipeline(config.model_copy(update={"pretrain": pretrain, "selection": selection}), run, room, print)
    with pytest.raises(UserError, match=r"shorter than one optimizer step.*Got: 80 bases.*first_fraction"):
        pipeline.candidates()
    assert not (run.path / "pretrain").exists()
