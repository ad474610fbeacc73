import json
import os
import subprocess
import threading

import pytest
import torch

from grover_dist.config import EngineSettings
from grover_dist.errors import UserError
from grover_dist.training import checkpoint_write
from grover_dist.training.checkpoint import read_checkpoint
from grover_dist.training.checkpoint_write import DESCRIPTION
from grover_dist.training.loop import train
from tests.training.toy_objective import Stopped, ToyObjective, toy_plan

PLAN = toy_plan(engine=EngineSettings(zero_stage=0), checkpoint_every_steps=2, keep_checkpoints=2)


@pytest.fixture
def folder(one_rank, tmp_path):
    train(ToyObjective(), one_rank, PLAN, checkpoints=tmp_path)
    return tmp_path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_are_kept_and_describe_themselves(folder):
    assert names(folder) == ["step-00000006", "step-00000008"]
    found = read_checkpoint(folder / "step-00000008")
    assert (found.progress.step, found.world, found.zero_stage, found.hash) == (8, 1, 0, "toy")
    described = json.loads((folder / "step-00000008" / DESCRIPTION).read_text())
    assert described["files"].keys() == {str(p.relative_to(folder / "step-00000008")) for p in (folder / "step-00000008").glob("state/*")}


def _cut_short(path):
    file = next(path.glob("state/*model_states.pt"))
    file.write_bytes(file.read_bytes()[:-100])


def _altered(path):
    file = next(path.glob("state/*model_states.pt"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def _no_description(path):
    (path / DESCRIPTION).unlink()


@pytest.mark.parametrize(("damage", "words"), [(_cut_short, "cut short"), (_altered, "altered"), (_no_description, "description")])
def test_a_damaged_checkpoint_is_passed_over_aloud(one_rank, folder, damage, words):
    whole = train(ToyObjective(), one_rank, PLAN)
    damage(folder / "step-00000008")
    said = []
    resumed = train(ToyObjective(), one_rank, PLAN, checkpoints=folder, say=said.append)
    assert "step-00000008 is passed over" in said[0] and words in said[0]
    assert resumed.first_step == 6
    assert all(torch.equal(resumed.weights[name], whole.weights[name]) for name in whole.weights)


def test_a_part_from_a_kill_while_saving_is_not_seen(one_rank, folder):
    (folder / ".step-00000010.partial" / "state").mkdir(parents=True)
    assert train(ToyObjective(), one_rank, PLAN, checkpoints=folder, say=lambda line: None).first_step == 8


def test_a_checkpoint_of_other_settings_is_refused(one_rank, folder):
    with pytest.raises(UserError, match="other settings"):
        train(ToyObjective(), one_rank, toy_plan(hash="other"), checkpoints=folder)


def test_another_stage_is_refused_and_auto_takes_the_one_it_has(one_rank, folder):
    with pytest.raises(UserError, match="ZeRO stage"):
        train(ToyObjective(), one_rank, toy_plan(engine=EngineSettings(zero_stage=1)), checkpoints=folder, say=lambda line: None)
    assert train(ToyObjective(), one_rank, toy_plan(), checkpoints=folder, say=lambda line: None).first_step == 8


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of 300 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(disk):
    """Leave just what the optimizer's state needs: not enough for the file that holds it and its description."""
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    (disk / "other").write_bytes(bytes(free - 9 * 4_096))


def test_a_full_disk_is_told_and_training_goes_on_while_an_older_checkpoint_is_left(one_rank, small_disk):
    """The first checkpoint has room; then something else fills the disk, so that the writes themselves fail."""

    objective, said = ToyObjective(), []
    plain = objective.batches
    objective.batches = lambda step, rank, world: (fill(small_disk) if step == 4 else None, plain(step, rank, world))[1]
    result = train(objective, one_rank, PLAN, checkpoints=small_disk / "c", say=said.append)
    assert result.steps == 10 and names(small_disk / "c") == ["step-00000002"]
    told = [line for line in said if "the older checkpoint stays" in line]
    assert [line.split()[1] for line in told] == ["step-00000004", "step-00000006", "step-00000008"]
    assert all("No space left on device" in line for line in told)
    (small_disk / "other").unlink()
    said.clear()
    assert train(ToyObjective(), one_rank, PLAN, checkpoints=small_disk / "c", say=said.append).first_step == 2
    assert not [line for line in said if "WARNING" in line]


def test_a_full_disk_without_a_checkpoint_to_fall_back_on_ends_the_run(one_rank, small_disk):
    fill(small_disk)
    with pytest.raises(UserError, match=r"none to fall back on.*(No space left|bytes free)"):
        train(ToyObjective(), one_rank, PLAN, checkpoints=small_disk / "c", say=lambda line: None)
    (small_disk / "other").write_bytes(bytes(290_000))
    with pytest.raises(UserError, match=r"no room for a checkpoint and none to fall back on.*bytes free"):
        train(ToyObjective(), one_rank, PLAN, checkpoints=small_disk / "d", say=lambda line: None)
    assert names(small_disk / "c") == names(small_disk / "d") == []


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_what_is_written_is_the_state_of_its_step_although_training_went_on(one_rank, tmp_path, stage):
    """The thread writes after several more steps have changed every weight and moment in place."""
    plan = toy_plan(engine=EngineSettings(zero_stage=stage), checkpoint_every_steps=4)
    whole = train(ToyObjective(dropout=0.2), one_rank, plan)
    release, write_file = threading.Event(), checkpoint_write.write_file
    checkpoint_write.write_file = lambda *arguments: (release.wait(60), write_file(*arguments))[1]
    objective = ToyObjective(dropout=0.2, stop_step=7)
    plain = objective.loss
    objective.loss = lambda model, batch, device: (release.set() if batch[0] == 7 else None, plain(model, batch, device))[1]
    try:
        with pytest.raises(Stopped):
            train(objective, one_rank, plan, checkpoints=tmp_path, say=lambda line: None)
    finally:
        checkpoint_write.write_file = write_file
    resumed = train(ToyObjective(dropout=0.2), one_rank, plan, checkpoints=tmp_path, say=lambda line: None)
    assert resumed.first_step == 4 and resumed.losses == whole.losses[4:]
    assert all(torch.equal(resumed.weights[name], whole.weights[name]) for name in whole.weights)
