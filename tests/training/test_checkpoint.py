import json
from collections import namedtuple

import pytest
import torch

from grover_dist.config import EngineSettings
from grover_dist.errors import UserError
from grover_dist.training import checkpoint as checkpoint_module
from grover_dist.training.checkpoint import DESCRIPTION, read_checkpoint
from grover_dist.training.loop import train
from tests.training.toy_objective import ToyObjective, toy_plan

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


def test_a_full_disk_is_told_and_training_goes_on_while_an_older_checkpoint_is_left(one_rank, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    free = iter([10**12] + [10] * 10)
    monkeypatch.setattr(checkpoint_module.shutil, "disk_usage", lambda path: usage(10**12, 0, next(free)))
    said = []
    result = train(ToyObjective(), one_rank, PLAN, checkpoints=tmp_path, say=said.append)
    assert result.steps == 10 and names(tmp_path) == ["step-00000002"]
    assert len([line for line in said if "no room" in line]) == 3
    with pytest.raises(UserError, match="none to fall back on"):
        train(ToyObjective(), one_rank, PLAN, checkpoints=tmp_path / "empty")
