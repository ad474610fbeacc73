"""Checkpoints of ranks that share no disk, in a real S3 server on loopback."""

import threading

import pytest
import torch

from grover_dist.config import EngineSettings
from grover_dist.errors import UserError
from grover_dist.remote import Remote
from grover_dist.training.checkpoint import read_checkpoint
from grover_dist.training.loop import train
from tests.training.toy_objective import Stopped, ToyObjective, toy_plan

pytestmark = pytest.mark.e2e
PLAN = toy_plan(engine=EngineSettings(zero_stage=1), checkpoint_every_steps=2, keep_checkpoints=2)


def folders(remote: Remote) -> set[str]:
    return {name.partition("/")[0] for name in remote.sizes()}


def run(one_rank, remote, folder, plan=PLAN, say=lambda line: None, **objective):
    return train(ToyObjective(**objective), one_rank, plan, checkpoints=folder, remote=remote, say=say)


def test_a_machine_without_the_files_goes_on_to_the_same_weights(one_rank, bucket, tmp_path):
    remote, whole = Remote(f"{bucket}/run/checkpoints"), train(ToyObjective(dropout=0.2), one_rank, PLAN)
    with pytest.raises(Stopped):
        run(one_rank, remote, tmp_path / "first", dropout=0.2, stop_step=7)
    assert folders(remote) == {"step-00000004", "step-00000006"}
    assert not [name for name in remote.sizes() if ".written" in name]
    # A save that was cut off by a kill: files and a word of a rank, and no description.
    remote.put_bytes("step-00000008/state/half.pt", b"half")
    remote.put_bytes("step-00000008/.written-1", b"{}")
    resumed = run(one_rank, remote, tmp_path / "second", dropout=0.2)
    assert resumed.first_step == 6
    assert all(torch.equal(resumed.weights[name], whole.weights[name]) for name in whole.weights)
    assert folders(remote) == {"step-00000006", "step-00000008"}
    assert "step-00000008/state/half.pt" not in remote.sizes()
    assert sorted(path.name for path in (tmp_path / "second").iterdir()) == ["step-00000006", "step-00000008"]


def test_training_goes_on_while_the_store_takes_its_time(one_rank, bucket, tmp_path, monkeypatch):
    """Nothing is uploaded before three further steps have been made."""
    remote, release, in_time = Remote(f"{bucket}/run/checkpoints"), threading.Event(), []
    put = Remote.put
    monkeypatch.setattr(Remote, "put", lambda *given: (in_time.append(release.wait(30)), put(*given))[1])
    objective = ToyObjective()
    plain = objective.loss
    objective.loss = lambda model, batch, device: (release.set() if batch[0] == 7 else None, plain(model, batch, device))[1]
    plan = toy_plan(engine=EngineSettings(zero_stage=1), checkpoint_every_steps=5)
    train(objective, one_rank, plan, checkpoints=tmp_path / "c", remote=remote, say=lambda line: None)
    assert in_time and all(in_time) and folders(remote) == {"step-00000005"}


def test_a_store_that_fails_is_told_and_training_goes_on_while_an_older_checkpoint_is_left(one_rank, bucket, tmp_path, monkeypatch):
    remote, said, put = Remote(f"{bucket}/run/checkpoints"), [], Remote.put

    def refuse(self, source, name):
        if name.startswith(("step-00000004", "step-00000006")):
            raise UserError("the object store does not answer as it should", where=name)
        return put(self, source, name)

    monkeypatch.setattr(Remote, "put", refuse)
    result = run(one_rank, remote, tmp_path / "c", say=said.append)
    assert result.steps == 10 and folders(remote) == {"step-00000002", "step-00000008"}
    told = [line for line in said if "the older checkpoint stays" in line]
    assert [line.split()[1] for line in told] == ["step-00000004", "step-00000006"] and "does not answer" in told[0]


def test_a_store_that_fails_at_the_first_checkpoint_ends_the_run(one_rank, bucket, tmp_path, monkeypatch):
    def refuse(self, source, name):
        raise UserError("the object store does not answer as it should", where=name)

    monkeypatch.setattr(Remote, "put", refuse)
    with pytest.raises(UserError, match=r"none to fall back on.*does not answer"):
        run(one_rank, Remote(f"{bucket}/run/checkpoints"), tmp_path / "c")


def test_the_state_before_the_decay_is_whole_on_the_main_machine(one_rank, bucket, tmp_path):
    """It is published from there."""
    plan = toy_plan(engine=EngineSettings(zero_stage=1), checkpoint_every_steps=100, keep_stable=True)
    remote = Remote(f"{bucket}/run/checkpoints")
    run(one_rank, remote, tmp_path / "c", plan=plan)
    (stable,) = (tmp_path / "c").glob("stable-*")
    assert folders(remote) == {stable.name}
    assert read_checkpoint(stable).progress.step == plan.schedule.decay_start
