"""Training on a GPU beside the CPU oracle: `pytest -m gpu`."""

import os
import shutil
import subprocess
import sys

import pytest
import torch

from grover_dist.config import EngineSettings, ModelSettings, OptimizerSettings, config_from
from grover_dist.corpus.build import build_corpus
from grover_dist.genome.stage import build_genome
from grover_dist.model.bert import MaskedPredictor, bert_config, masked_lm
from grover_dist.model.device import local_device, to_device
from grover_dist.pretrain.candidate import pretrain_candidate
from grover_dist.run_dir import RunDir
from grover_dist.training.engine import BatchSplit, Engine
from grover_dist.training.loop import train
from grover_dist.training.plan import rank_memory
from tests.pretrain.small_run import CYCLES, small_config
from tests.training.toy_objective import Stopped, ToyObjective, plain_torch, toy_plan

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]


@pytest.fixture(autouse=True)
def on_gpu(one_rank):
    assert one_rank.device.type == "cuda"


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_every_stage_equals_plain_torch_on_the_cpu_to_rounding(one_rank, stage):
    plan = toy_plan(engine=EngineSettings(zero_stage=stage))
    losses, weights = plain_torch(plan)
    result = train(ToyObjective(), one_rank, plan)
    assert result.losses == pytest.approx(losses, rel=1e-4)
    for name, value in weights.items():
        torch.testing.assert_close(result.weights[name], value, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_bf16_follows_fp32(one_rank, stage):
    losses, _ = plain_torch(toy_plan())
    result = train(ToyObjective(), one_rank, toy_plan(engine=EngineSettings(zero_stage=stage, precision="bf16")))
    assert result.losses == pytest.approx(losses, rel=0.05, abs=0.05)
    assert all(value.dtype == torch.float32 for value in result.weights.values())


@pytest.mark.parametrize("stage", [0, 2])
def test_a_resumed_run_ends_like_one_left_alone(one_rank, tmp_path, stage):
    plan = toy_plan(engine=EngineSettings(zero_stage=stage), checkpoint_every_steps=3)
    whole = train(ToyObjective(dropout=0.2), one_rank, plan)
    with pytest.raises(Stopped):
        train(ToyObjective(dropout=0.2, stop_step=7), one_rank, plan, checkpoints=tmp_path)
    resumed = train(ToyObjective(dropout=0.2), one_rank, plan, checkpoints=tmp_path)
    assert resumed.first_step == 6
    assert resumed.losses == pytest.approx(whole.losses[6:], rel=1e-4)


ENGINES = {
    "fp32": {},
    "bf16": {"precision": "bf16"},
    "compiled": {"precision": "bf16", "compile": True},
    "checkpointing": {"activation_checkpointing": True},
}


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A corpus, and the counts of a candidate that was pretrained on the CPU, in a process that sees no GPU."""
    config = small_config(tmp_path_factory.mktemp("gpu") / "run")
    run = RunDir.open(config)
    build_corpus(config, run, build_genome(config, run, say=lambda line: None), say=lambda line: None)
    target = run.path.with_name("cpu")
    shutil.copytree(run.path, target)
    command = [sys.executable, "-m", "grover_dist.pretrain", str(target / "config.yaml"), "--cycles", str(CYCLES), f"run.dir={target}"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=300)
    return run.path, RunDir.existing(target).latest("pretrain").counts


@pytest.mark.parametrize("name", ENGINES)
def test_a_candidate_learns_as_on_the_cpu(one_rank, learned, tmp_path, name):
    """The same held-out loss on packed windows, within what precision and dropout's other draws allow."""
    source, expected = learned
    shutil.copytree(source, tmp_path / "run")
    data = small_config(tmp_path / "run").model_dump(mode="json")
    config = config_from(data | {"engine": ENGINES[name], "resources": {"gpus_per_rank": 1}})
    run = RunDir.open(config)
    budget = config.pretrain.budget_bases
    found = pretrain_candidate(config, run, run.latest("learn"), CYCLES, budget_bases=budget, ranks=one_rank, say=lambda line: None)
    assert found.counts["steps"] == expected["steps"]
    assert found.counts["nats_per_token"] == pytest.approx(expected["nats_per_token"], rel=0.05)


@pytest.mark.parametrize(("precision", "checkpointing"), [("fp32", False), ("bf16", False), ("bf16", True)])
def test_memory_is_planned_within_15_percent(one_rank, precision, checkpointing):
    settings, windows = ModelSettings(layers=6), 16
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    engine = Engine(
        MaskedPredictor(masked_lm(bert_config(settings, 609), seed=1)),
        one_rank,
        settings=EngineSettings(precision=precision, activation_checkpointing=checkpointing),
        optimizer=OptimizerSettings(),
        split=BatchSplit(windows, 1, 1),
        zero_stage=0,
        seed=1,
    )
    for _ in range(2):
        ids = to_device(torch.randint(5, 609, (windows, 512)), one_rank.device)
        index = torch.arange(0, ids.numel(), 7, device=one_rank.device)
        loss = torch.nn.functional.cross_entropy(engine(ids, None, index).float(), ids.flatten()[index], reduction="sum")
        engine.backward(loss, len(index))
        engine.step(1e-4)
    measured = torch.cuda.max_memory_allocated() - before
    engine.close()
    planned = rank_memory(
        settings, 609, zero_stage=0, world=1, windows=windows, length_tokens=512, masked_fraction=1 / 7,
        bf16=precision == "bf16", gpu=True, checkpointing=checkpointing,
    )  # fmt: skip
    assert planned.total == pytest.approx(measured, rel=0.15), f"{measured / 1e9:.2f} GB measured, {planned.total / 1e9:.2f} GB planned"


def test_copies_to_the_gpu_do_not_wait_and_arrive_whole():
    """The copy of a batch is queued behind the work at hand, which goes on for a tenth of a second and more."""
    device, numbers = local_device(), torch.randint(0, 1_000, (1_000, 512))
    to_device(numbers, device).cpu()  # pinned memory is taken once, which waits
    square, done = torch.randn(4_096, 4_096, device=device), torch.cuda.Event()
    for _ in range(100):
        square = square @ square
    done.record()
    moved = to_device(numbers, device)
    assert not done.query()
    assert torch.equal(moved.cpu(), numbers)
    assert torch.equal(to_device(numbers.numpy(), device).cpu(), numbers)
