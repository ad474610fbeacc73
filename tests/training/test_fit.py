import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grover_dist.config import config_from
from grover_dist.errors import UserError
from grover_dist.training.fit import largest_divisor, memory_available, micro_batch_that_fits
from grover_dist.training.loop import train
from grover_dist.training.plan import rank_memory_of
from tests.training.toy_objective import ToyObjective, toy_plan


@given(share=st.integers(1, 300), limit=st.integers(0, 400))
def test_the_largest_divisor_that_fits_with_few_probes(share, limit):
    asked = []
    found = largest_divisor(share, lambda count: asked.append(count) or count <= limit)
    assert found == max((count for count in range(1, share + 1) if share % count == 0 and count <= limit), default=0)
    assert len(asked) <= 5 and all(share % count == 0 for count in asked)


@pytest.mark.parametrize("windows", [1, 4, 16])
def test_on_a_cpu_the_formula_decides(one_rank, monkeypatch, windows):
    """Memory for just that many windows gives that many; a byte less, fewer."""
    config = config_from({"genome": {"fasta": "x.fa"}, "pretrain": {"micro_batch_windows": "auto", "batch_windows": 16}})
    needed = rank_memory_of(config, 609, zero_stage=0, world=1, windows=windows).total

    class Named:
        name = "c600"

    monkeypatch.setattr("grover_dist.training.fit.CPU_SHARE", 1.0)
    monkeypatch.setattr("grover_dist.training.fit.memory_available", lambda: needed)
    assert micro_batch_that_fits(Named(), one_rank, config, 609, zero_stage=0) == windows
    monkeypatch.setattr("grover_dist.training.fit.memory_available", lambda: needed - 1)
    if windows > 1:
        assert micro_batch_that_fits(Named(), one_rank, config, 609, zero_stage=0) < windows
    else:
        with pytest.raises(UserError, match="not even one window"):
            micro_batch_that_fits(Named(), one_rank, config, 609, zero_stage=0)


def test_memory_available_is_the_kernels_figure_or_the_control_groups(tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal:       1000 kB\nMemAvailable:    800 kB\n")
    assert memory_available(tmp_path) == 800 * 1024
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("1000\n")
    assert memory_available(tmp_path) == 800 * 1024
    (group / "memory.max").write_text("301000\n")
    assert memory_available(tmp_path) == 300_000
    assert memory_available() > 0


def test_out_of_memory_says_what_was_asked_and_what_to_do(one_rank, monkeypatch):
    objective = ToyObjective()

    def loss(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 1 GiB")

    monkeypatch.setattr(objective, "loss", loss)
    with pytest.raises(UserError) as caught:
        train(objective, one_rank, toy_plan())
    message = str(caught.value)
    assert "2 samples" in message and "Tried to allocate 2" in message and "micro_batch_windows=auto" in message


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_what_the_probe_finds_trains_and_twice_as_much_does_not(one_rank):
    from grover_dist.config import EngineSettings, ModelSettings, OptimizerSettings
    from grover_dist.model.bert import MaskedPredictor, bert_config, masked_lm
    from grover_dist.training.engine import BatchSplit, Engine

    class Filled:
        name = "filled"

        def __init__(self):
            self.model = MaskedPredictor(masked_lm(bert_config(ModelSettings(layers=4), 609), seed=1))

        def largest_batch(self, samples):
            return torch.randint(5, 609, (samples, 512))

        def loss(self, model, ids, device):
            index = torch.arange(0, ids.numel(), 7, device=device)
            ids = ids.to(device)
            return torch.nn.functional.cross_entropy(model(ids, None, index).float(), ids.flatten()[index], reduction="sum")

    torch.cuda.set_per_process_memory_fraction(6 * 2**30 / torch.cuda.get_device_properties(0).total_memory)
    data = {
        "genome": {"fasta": "x.fa"}, "model": {"layers": 4}, "pretrain": {"batch_windows": 4_096, "micro_batch_windows": "auto"},
        "engine": {"precision": "bf16"}, "resources": {"gpus_per_rank": 1},
    }  # fmt: skip
    objective = Filled()
    # The fraction limits the allocator and not what the device calls free.
    import grover_dist.training.fit as fit

    available = fit._free_gpu_bytes
    fit._free_gpu_bytes = lambda device: 6 * 2**30
    try:
        found = micro_batch_that_fits(objective, one_rank, config_from(data), 609, zero_stage=0)
    finally:
        fit._free_gpu_bytes = available
    assert found > 1
    engine = Engine(
        objective.model, one_rank, settings=EngineSettings(precision="bf16"), optimizer=OptimizerSettings(), split=BatchSplit(1, 1, 1),
        zero_stage=0, seed=1,
    )  # fmt: skip
    for _ in range(2):
        engine.backward(objective.loss(engine, objective.largest_batch(found), one_rank.device), 1)
        engine.step(1e-4)
    with pytest.raises(torch.OutOfMemoryError):
        engine.backward(objective.loss(engine, objective.largest_batch(4 * found), one_rank.device), 1)
    engine.close()
    torch.cuda.set_per_process_memory_fraction(1.0)
