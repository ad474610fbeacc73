"""Real ranks: one launch does many jobs, because starting processes is the dearest part."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.gang_worker import do
from tests.training.toy_objective import BATCH

REPOSITORY = Path(__file__).resolve().parents[2]
STAGES = (0, 1, 2, 3)
EVERY = {"checkpoint_every_steps": 5}
pytestmark = pytest.mark.distributed


def launch(jobs, out: Path, world: int) -> subprocess.Popen:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={world}"]
    command += ["-m", "tests.training.gang_worker", json.dumps(jobs), str(out)]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def gang(jobs, out: Path, world: int = 2) -> list[dict]:
    process = launch(jobs, out, world)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return json.loads(out.read_text())


@pytest.fixture(scope="module")
def alone(one_rank):
    return [do({"stage": stage}, one_rank) for stage in STAGES]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return tmp_path_factory.mktemp("gang")


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
    ]
    outcomes = gang(jobs + faults, folders / "two.json")
    return {"whole": outcomes[:4], "resumed": outcomes[4:8], "faults": outcomes[12:]}


@pytest.mark.parametrize("stage", STAGES)
def test_two_ranks_give_the_losses_of_one(alone, of_two, stage):
    one, two = alone[stage], of_two["whole"][stage]
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-5)
    assert two["evaluation"] == pytest.approx(one["evaluation"], rel=1e-4)
    assert two["samples"] == one["samples"] == list(range(10 * BATCH))


@pytest.mark.parametrize("stage", STAGES)
def test_a_checkpoint_of_one_rank_goes_on_with_two(alone, of_two, stage):
    resumed = of_two["resumed"][stage]
    assert resumed["first_step"] == 5
    assert resumed["losses"] == pytest.approx(alone[stage]["losses"][5:], rel=1e-5)
    assert any("converted for 2" in line for line in resumed["said"]) == (stage > 0)


FAULTS = ["not a finite number", "other settings", "not given the same work", "cannot share a batch of 7"]


@pytest.mark.parametrize(("index", "words"), list(enumerate(FAULTS)), ids=FAULTS)
def test_a_fault_that_one_rank_sees_ends_all_ranks_with_the_same_words(of_two, index, words):
    first, second = of_two["faults"][index]["errors"]
    assert first == second and words in first
    assert index > 0 or "step 4, rank 1" in first


@pytest.mark.parametrize("stage", STAGES)
def test_a_checkpoint_of_two_ranks_goes_on_with_one(alone, of_two, one_rank, folders, stage):
    folder = folders / f"two-{stage}"
    resumed = do({"stage": stage, "folder": str(folder), "plan": EVERY}, one_rank)
    assert resumed["first_step"] == 5
    assert resumed["losses"] == pytest.approx(alone[stage]["losses"][5:], rel=1e-5)
    assert sorted(path.name for path in folder.iterdir()) == ["step-00000005"]


KILLED = {"one rank": {"kill_step": 9, "only_rank": 1}, "all ranks": {"kill_step": 3}}
DROPOUT = {"dropout": 0.2}
LONG = {"checkpoint_every_steps": 2, "total_steps": 12}


@pytest.fixture(scope="module")
def after_kills(folders):
    """Gangs of two that get SIGKILL in the middle of a step; then one launch resumes them, and makes a run that nothing disturbs."""
    for name, kill in KILLED.items():
        objective = {**DROPOUT, "kill_step": kill["kill_step"]}
        rank = {key: value for key, value in kill.items() if key == "only_rank"}
        job = {"stage": 1, "folder": str(folders / name), "objective": objective, "plan": LONG, **rank}
        process = launch([job], folders / "never.json", 2)
        process.communicate(timeout=300)
        assert process.returncode != 0
    resume = [{"stage": 1, "folder": str(folders / name), "objective": DROPOUT, "plan": LONG} for name in KILLED]
    *resumed, whole = gang([*resume, {"stage": 1, "objective": DROPOUT, "plan": LONG}], folders / "resumed.json")
    return dict(zip(KILLED, resumed, strict=True)), whole


@pytest.mark.parametrize("name", KILLED)
def test_a_killed_gang_ends_with_the_weights_of_one_left_alone(after_kills, name):
    """To the last bit, with dropout on: its randomness is resumed too."""
    resumed, whole = after_kills
    first_step = KILLED[name]["kill_step"] // 2 * 2
    assert resumed[name]["first_step"] == first_step
    assert resumed[name]["losses"] == whole["losses"][first_step:]
    assert resumed[name]["weights"] == whole["weights"]
    assert resumed[name]["samples"] == whole["samples"][first_step * BATCH :]
