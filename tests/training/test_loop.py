import json
import math
import os
import signal

import pytest
import torch

from grover_dist.config import EngineSettings
from grover_dist.errors import UserError
from grover_dist.training.loop import NonFiniteLoss, Preempted, train
from grover_dist.training.metrics import MetricsWriter
from tests.training.toy_objective import BATCH, OPTIMIZER, Stopped, ToyObjective, plain_torch, toy_plan

STAGES = [0, 1, 2, 3]


def staged(stage, **changes):
    return toy_plan(engine=EngineSettings(zero_stage=stage), **changes)


@pytest.mark.parametrize(("stage", "clip_norm"), [(0, 0.5), (0, 0.0), (1, 0.0), (2, 0.0), (3, 0.0)])
def test_one_process_equals_plain_torch_to_the_last_bit(one_rank, stage, clip_norm):
    """DeepSpeed sums the norm of stages 1 to 3 in another order than torch: with clipping they equal to rounding (below)."""
    optimizer = OPTIMIZER.model_copy(update={"clip_norm": clip_norm})
    plan = toy_plan(engine=EngineSettings(zero_stage=stage, fused_adamw=False), micro_batch=BATCH, optimizer=optimizer)
    losses, weights = plain_torch(plan)
    result = train(ToyObjective(micro_batch=BATCH), one_rank, plan)
    assert result.losses == pytest.approx(losses, rel=1e-6)
    assert list(result.weights) == list(weights)
    assert all(torch.equal(result.weights[name], weights[name]) for name in weights)


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_with_accumulation_equals_plain_torch_to_rounding(one_rank, stage):
    plan = staged(stage)
    losses, weights = plain_torch(plan)
    result = train(ToyObjective(), one_rank, plan)
    assert result.losses == pytest.approx(losses, rel=1e-5)
    for name, value in weights.items():
        torch.testing.assert_close(result.weights[name], value, rtol=1e-4, atol=1e-6)
    assert result.losses[-1] < result.losses[0] / 2


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_offloaded_optimizer_equals_plain_torch_to_rounding(one_rank, stage):
    plan = toy_plan(engine=EngineSettings(zero_stage=stage, offload=True))
    losses, weights = plain_torch(plan)
    result = train(ToyObjective(), one_rank, plan)
    assert result.losses == pytest.approx(losses, rel=1e-5)
    for name, value in weights.items():
        torch.testing.assert_close(result.weights[name], value, rtol=1e-4, atol=1e-6)


def test_a_linear_schedule_reaches_the_optimizer(one_rank):
    plan = staged(0, optimizer=OPTIMIZER.model_copy(update={"schedule": "linear"}))
    losses, _ = plain_torch(plan)
    assert train(ToyObjective(), one_rank, plan).losses == pytest.approx(losses, rel=1e-5)
    assert plain_torch(staged(0))[0] != pytest.approx(losses, rel=1e-3)


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_bf16_follows_fp32(one_rank, stage):
    plan = toy_plan(engine=EngineSettings(zero_stage=stage, precision="bf16"))
    losses, _ = plain_torch(plan)
    result = train(ToyObjective(), one_rank, plan)
    assert result.losses != losses
    assert result.losses == pytest.approx(losses, rel=0.05)
    assert all(value.dtype == torch.float32 for value in result.weights.values())


def test_stage_3_on_one_rank_works_and_warns(one_rank):
    said = []
    result = train(ToyObjective(), one_rank, staged(3, total_steps=2), say=said.append)
    assert result.steps == 2 and "WARNING: toy: ZeRO stage 3 on one rank" in said[0]
    train(ToyObjective(), one_rank, staged(0, total_steps=1), say=said.append)
    assert len(said) == 1


@pytest.mark.parametrize("stage", STAGES)
def test_resume_is_bit_identical(one_rank, tmp_path, stage):
    plan = staged(stage, checkpoint_every_steps=3)
    whole = train(ToyObjective(dropout=0.2), one_rank, plan)
    with pytest.raises(Stopped):
        train(ToyObjective(dropout=0.2, stop_step=8), one_rank, plan, checkpoints=tmp_path)
    objective, said = ToyObjective(dropout=0.2), []
    resumed = train(objective, one_rank, plan, checkpoints=tmp_path, say=said.append)
    assert resumed.first_step == 6 and any("step 6 of 10" in line for line in said)
    assert resumed.losses == whole.losses[6:]
    assert all(torch.equal(resumed.weights[name], whole.weights[name]) for name in whole.weights)
    assert objective.shown == list(range(6 * BATCH, 10 * BATCH))
    assert (resumed.tokens, resumed.bases) == (whole.tokens, whole.bases)


def test_a_finished_run_is_only_read(one_rank, tmp_path):
    plan = staged(0, checkpoint_every_steps=2, total_steps=4)
    short = train(ToyObjective(), one_rank, staged(0, checkpoint_every_steps=2, total_steps=5), checkpoints=tmp_path)
    again = train(ToyObjective(), one_rank, plan, checkpoints=tmp_path)
    assert short.steps == 5 and again.losses == [] and again.steps == 4


def test_nan_stops_before_the_step_and_names_the_last_good_checkpoint(one_rank, tmp_path):
    objective = ToyObjective(spoil_step=5)
    with pytest.raises(NonFiniteLoss) as caught:
        train(objective, one_rank, staged(0, checkpoint_every_steps=2), checkpoints=tmp_path)
    message = str(caught.value)
    assert "loss" in message and "toy, step 6, rank 0" in message and "step-00000004" in message
    clean = train(ToyObjective(), one_rank, staged(0, total_steps=5, warmup_steps=3, optimizer=toy_plan().optimizer))
    assert all(math.isfinite(value.sum()) for value in objective.model.state_dict().values())
    assert clean.steps == 5


def test_sigterm_saves_and_leaves_and_the_run_goes_on(one_rank, tmp_path):
    plan = staged(0, checkpoint_every_steps=100)
    whole = train(ToyObjective(dropout=0.2), one_rank, plan)
    with pytest.raises(Preempted, match="step 5"):
        train(ToyObjective(dropout=0.2, kill_step=4, kill_signal=signal.SIGTERM), one_rank, plan, checkpoints=tmp_path)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    resumed = train(ToyObjective(dropout=0.2), one_rank, plan, checkpoints=tmp_path)
    assert resumed.first_step == 5
    assert all(torch.equal(resumed.weights[name], whole.weights[name]) for name in whole.weights)


def test_a_stop_file_does_the_same_in_a_thread(one_rank, tmp_path, monkeypatch):
    """Ray Train runs a rank in a thread, where no handler of SIGTERM can be installed."""
    from concurrent.futures import ThreadPoolExecutor

    notice = tmp_path / "leaving"
    monkeypatch.setenv("GROVER_STOP_FILE", str(notice))
    plan = staged(0, checkpoint_every_steps=100, total_steps=6)
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(train, ToyObjective(), one_rank, plan).result().steps == 6  # no file, no stop
        notice.touch()
        with pytest.raises(Preempted, match="told to stop after step 1; saved"):
            thread.submit(train, ToyObjective(), one_rank, plan, checkpoints=tmp_path / "c").result()
        notice.unlink()
        assert thread.submit(train, ToyObjective(), one_rank, plan, checkpoints=tmp_path / "c").result().first_step == 1


def test_a_longer_run_continues_from_the_stable_checkpoint(one_rank, tmp_path):
    short = staged(0, keep_stable=True)
    train(ToyObjective(), one_rank, short, checkpoints=tmp_path / "short")
    stable = tmp_path / "short" / f"stable-{short.schedule.decay_start:08d}"
    long = staged(0, total_steps=20, hash="longer").continuing(short.schedule.warmup_steps)
    whole = train(ToyObjective(), one_rank, long)
    continued = train(ToyObjective(), one_rank, long, checkpoints=tmp_path / "long", continue_from=stable)
    assert continued.first_step == short.schedule.decay_start
    assert all(torch.equal(continued.weights[name], whole.weights[name]) for name in whole.weights)
    with pytest.raises(UserError, match="more steps"):
        train(ToyObjective(), one_rank, staged(0, total_steps=8), continue_from=stable)


def test_metrics_hold_each_step_once_after_a_resume(one_rank, tmp_path):
    plan = staged(0, checkpoint_every_steps=3, log_every_steps=1, evaluations=2)
    lines = tmp_path / "metrics.jsonl"
    with pytest.raises(Stopped):
        train(ToyObjective(stop_step=8), one_rank, plan, checkpoints=tmp_path / "c", metrics=MetricsWriter(lines))
    result = train(ToyObjective(), one_rank, plan, checkpoints=tmp_path / "c", metrics=MetricsWriter(lines))
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    training = [row for row in rows if "loss" in row]
    held_out = [row for row in rows if "held_out_nats" in row]
    assert [row["step"] for row in training] == list(range(1, 11))
    assert [row["loss"] for row in training][6:] == result.losses
    assert [row["step"] for row in held_out] == [5, 10]
    assert held_out[-1]["held_out_nats"] == result.evaluation["nats"]
    assert training[-1]["tokens"] == result.tokens and training[-1]["gradient_norm"] > 0
    assert all(row["tokens_per_second"] > 0 for row in training)


@pytest.mark.parametrize(("steps", "evaluations"), [(10, 3), (7, 7), (5, 8), (100, 1)])
def test_evaluations_are_spread_and_the_last_stands_at_the_end(steps, evaluations):
    plan = toy_plan(total_steps=steps, evaluations=evaluations)
    after = [step for step in range(1, steps + 1) if plan.evaluates_after(step)]
    assert len(after) == min(steps, evaluations) and after[-1] == steps


def test_no_extension_was_compiled():
    import deepspeed.ops

    assert deepspeed.ops.__compatible_ops__ == {}
    assert os.environ["DS_ACCELERATOR"] == "cpu"
