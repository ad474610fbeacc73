"""Real ranks: one launch does many jobs, because starting processes is the dearest part."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from grover_dist.run_dir import RunDir
from tests.training.gang_worker import do
from tests.training.toy_objective import BATCH

REPOSITORY = Path(__file__).resolve().parents[2]
STAGES = (0, 1, 2, 3)
EVERY = {"checkpoint_every_steps": 5}
pytestmark = pytest.mark.distributed


def launch(jobs, out: Path, world: int, launcher: str = "torchrun") -> subprocess.Popen:
    commands = {
        "torchrun": [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={world}", "-m"],
        "deepspeed": [str(Path(sys.executable).with_name("deepspeed")), f"--num_gpus={world}", f"--master_port={free_port()}", "--module"],
    }
    command = [*commands[launcher], "tests.training.gang_worker", json.dumps(jobs), str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def gang(jobs, out: Path, world: int = 2, launcher: str = "torchrun") -> list[dict]:
    process = launch(jobs, out, world, launcher)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return json.loads(out.read_text())


@pytest.fixture(scope="module")
def alone(one_rank):
    return [do({"stage": stage}, one_rank) for stage in STAGES]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return tmp_path_factory.mktemp("gang")


def _artifact(folder: Path, text: str):
    return RunDir(folder).once("learn", "corpus", lambda work: work.write_json("store.json", text) or None, settings={})


@pytest.fixture(scope="module")
def of_two(one_rank, folders):
    """One launch of two ranks: every stage from the start, from a checkpoint of one rank, and to a stop for one rank to resume."""
    for stage in STAGES:
        do({"stage": stage, "folder": str(folders / f"one-{stage}"), "objective": {"stop_step": 7}, "plan": EVERY}, one_rank)
    jobs = [
        *({"stage": stage} for stage in STAGES),
        *({"stage": stage, "folder": str(folders / f"one-{stage}"), "plan": EVERY} for stage in STAGES),
        *({"stage": stage, "folder": str(folders / f"two-{stage}"), "objective": {"stop_step": 7}, "plan": EVERY} for stage in STAGES),
    ]
    faults = [
        {"stage": 1, "objective": {"spoil_step": 3}, "only_rank": 1},
        {"stage": 0, "folder": str(folders / "one-0"), "plan": {"hash": "other"}},
        {"stage": 0, "plans": [{"hash": "toy"}, {"hash": "another"}]},
        {"stage": 0, "plan": {"batch": 7}},
        {"inputs": [str(_artifact(folders / name, text).path) for name, text in (("here", "ACGT"), ("there", "ACGA"))]},
    ]
    outcomes = gang(jobs + faults, folders / "two.json")
    return {"whole": outcomes[:4], "resumed": outcomes[4:8], "faults": outcomes[12:]}


@pytest.mark.parametrize("stage", STAGES)
def test_two_ranks_give_the_losses_of_one(alone, of_two, stage):
    one, two = alone[stage], of_two["whole"][stage]
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-5)
    assert two["evaluation"] == pytest.approx(one["evaluation"], rel=1e-4)
    assert two["samples"] == one["samples"] == list(range(10 * BATCH))
    assert max(one["from_oracle"], two["from_oracle"]) < 2e-5


@pytest.fixture(scope="module")
def of_four(folders):
    """Every stage in one launch by the deepspeed launcher."""
    return gang([{"stage": stage} for stage in STAGES], folders / "four.json", 4, "deepspeed")


@pytest.mark.parametrize("stage", STAGES)
def test_four_ranks_under_the_deepspeed_launcher_give_the_losses_of_one(alone, of_four, stage):
    one, four = alone[stage], of_four[stage]
    assert four["losses"] == pytest.approx(one["losses"], rel=1e-5)
    assert four["samples"] == one["samples"] and four["from_oracle"] < 2e-5


@pytest.mark.parametrize("stage", STAGES)
def test_a_checkpoint_of_one_rank_goes_on_with_two(alone, of_two, stage):
    resumed = of_two["resumed"][stage]
    assert resumed["first_step"] == 5
    assert resumed["losses"] == pytest.approx(alone[stage]["losses"][5:], rel=1e-5)
    assert any("converted for 2" in line for line in resumed["said"]) == (stage > 0)


FAULTS = ["not a finite number", "other settings", "settings another", "cannot share a batch of 7", "input 'learn'"]


@pytest.mark.parametrize(("index", "words"), list(enumerate(FAULTS)), ids=FAULTS)
def test_a_fault_that_one_rank_sees_ends_all_ranks_with_the_same_words(of_two, index, words):
    first, second = of_two["faults"][index]["errors"]
    assert first == second and words in first
    assert index > 0 or "step 4, rank 1" in first
    assert index not in (2, 4) or "rank 1 on " in first


@pytest.mark.parametrize("stage", STAGES)
def test_a_checkpoint_of_two_ranks_goes_on_with_one(alone, of_two, one_rank, folders, stage):
    folder = folders / f"two-{stage}"
    resumed = do({"stage": stage, "folder": str(folder), "plan": EVERY}, one_rank)
    assert resumed["first_step"] == 5
    assert resumed["losses"] == pytest.approx(alone[stage]["losses"][5:], rel=1e-5)
    assert sorted(path.name for path in folder.iterdir()) == ["step-00000005"]


DROPOUT = {"dropout": 0.2}
LONG = {"checkpoint_every_steps": 2, "total_steps": 12}
STEP = random.Random(os.getpid()).randrange(3, 9)  # of the kill; every one must do
SLOW = {"pause_seconds": 0.4}  # a launcher's death is noticed while the toy trains
KILLED = {
    "one rank": {"kill_step": STEP, "only_rank": 1},
    "all ranks": {"kill_step": STEP},
    "torchrun": {"kill_step": STEP, "only_rank": 0, "kill_above": 1, **SLOW},
    "deepspeed by SIGTERM": {"kill_step": STEP, "only_rank": 0, "kill_above": 2, "kill_signal": signal.SIGTERM, **SLOW},
    "deepspeed": {"kill_step": STEP, "only_rank": 0, "kill_above": 2, **SLOW},
    "deepspeed on its host": {"kill_step": STEP, "only_rank": 0, "kill_above": 1, **SLOW},
}
SLOWER = ("deepspeed", "deepspeed on its host")  # the same death as by SIGTERM, seen from a rank


def until_gone(numbers) -> None:
    """Ranks whose launcher is dead save and leave; none may train on."""
    end = time.monotonic() + 60
    while any(Path(f"/proc/{number}").exists() and b"gang_worker" in _command(number) for number in numbers):
        assert time.monotonic() < end, f"ranks outlive their launcher: {numbers}"
        time.sleep(0.1)


def _command(number: int) -> bytes:
    try:
        return Path(f"/proc/{number}/cmdline").read_bytes()
    except OSError:
        return b""


def kill(folders, name) -> dict:
    """Start a gang of two that is killed in the middle of a step; what resumes it."""
    settings = dict(KILLED[name])
    rank = {"only_rank": settings.pop("only_rank")} if "only_rank" in settings else {}
    job, out = {"stage": 1, "folder": str(folders / name), "plan": LONG}, folders / f"{name}.json"
    process = launch([{**job, **rank, "objective": {**DROPOUT, **settings}}], out, 2, "deepspeed" if "deepspeed" in name else "torchrun")
    output, _ = process.communicate(timeout=300)
    # The deepspeed command takes a killed launcher of its host for success: the outcome tells.
    assert not out.exists() and (process.returncode != 0 or name == "deepspeed on its host"), output
    until_gone([int(path.read_text()) for path in folders.glob(f"{name}.json.pid-*")])
    return {**job, "objective": DROPOUT}


@pytest.fixture(scope="module")
def after_kills(folders):
    """One launch resumes them all, and makes a run that nothing disturbs."""
    names = [name for name in KILLED if name not in SLOWER]
    jobs = [kill(folders, name) for name in names]
    *resumed, whole = gang([*jobs, {"stage": 1, "objective": DROPOUT, "plan": LONG}], folders / "resumed.json")
    return {**dict(zip(names, resumed, strict=True)), "whole": whole}


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOWER else []) for name in KILLED])
def test_after_a_kill_the_run_ends_with_the_weights_of_one_left_alone(after_kills, folders, name):
    """To the last bit, with dropout on: its randomness is resumed too. Ranks that die lose the steps since the last checkpoint; ranks
    whose launcher dies save first.
    """
    if name in SLOWER:
        (resumed,) = gang([kill(folders, name)], folders / f"{name}-resumed.json")
    else:
        resumed = after_kills[name]
    first_step, whole = resumed["first_step"], after_kills["whole"]
    print(f"killed: {name} in step {STEP + 1}; resumed from step {first_step} of 12")
    assert STEP < first_step < 12 if "kill_above" in KILLED[name] else STEP - 3 <= first_step <= STEP and first_step % 2 == 0
    assert resumed["losses"] == whole["losses"][first_step:]
    assert resumed["weights"] == whole["weights"]
    assert resumed["samples"] == whole["samples"][first_step * BATCH :]


HANGS = {
    "asleep": ({"hang_step": 3}, "rank 1 at "),
    "stopped": ({"kill_step": 3, "kill_signal": signal.SIGSTOP}, "rank 1, which does not answer"),
}


@pytest.mark.parametrize("name", ["asleep", pytest.param("stopped", marks=pytest.mark.slow)])
def test_a_rank_that_hangs_is_named_and_every_rank_ends(folders, name):
    objective, words = HANGS[name]
    job = {"stage": 1, "only_rank": 1, "objective": objective, "plan": {"rank_timeout_seconds": 10}}
    process = launch([job], folders / "hang.json", 2)
    output, _ = process.communicate(timeout=300)
    assert process.returncode != 0, output
    assert f"toy, step 4; hangs: {words}" in output
    assert output.count("nothing has moved for") == 1
    assert output.count("most recent call first") >= 2 if name == "asleep" else 1
    assert name != "asleep" or "toy_objective.py" in output.partition("hangs: ")[2]
