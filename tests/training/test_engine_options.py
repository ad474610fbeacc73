"""Settings of the engine that change speed or memory and not the result, on a small BERT."""

import gc
import shutil
import warnings

import pytest
import torch

from grover_dist.config import EngineSettings, ModelSettings, OptimizerSettings
from grover_dist.errors import UserError
from grover_dist.model.bert import MaskedPredictor, bert_config, masked_lm
from grover_dist.model.packing import WindowEdges
from grover_dist.training.engine import BatchSplit, Engine
from tests.training.toy_objective import ToyObjective

VOCABULARY, LAYERS = 30, 3
LENGTHS = ([12, 12, 7], [9, 9, 4, 4], [11, 3])


def make_model(dropout: float) -> MaskedPredictor:
    settings = ModelSettings(layers=LAYERS, heads=2, hidden=16, feed_forward=32, positions=16, dropout=dropout)
    return MaskedPredictor(masked_lm(bert_config(settings, VOCABULARY), seed=1))


def losses_of(one_rank, *, dropout: float = 0.0, stage: int = 0, packed: bool = True, **settings) -> list[float]:
    """A few steps on batches of different shapes."""
    engine = Engine(
        make_model(dropout), one_rank, settings=EngineSettings(**settings), optimizer=OptimizerSettings(learning_rate=0.01),
        split=BatchSplit(1, 1, 1), zero_stage=stage, seed=1,
    )  # fmt: skip
    engine.train()
    losses = []
    for step in range(4):
        torch.manual_seed(step)
        lengths = LENGTHS[step % len(LENGTHS)]
        rows = (1, sum(lengths)) if packed else (len(lengths), max(lengths))
        ids = torch.randint(5, VOCABULARY, rows)
        index = torch.arange(0, ids.numel(), 2)
        windows = WindowEdges(lengths) if packed else None
        loss = torch.nn.functional.cross_entropy(engine(ids, None, index, windows), ids.flatten()[index], reduction="sum")
        engine.backward(loss, len(index))
        engine.step(0.01)
        losses.append(loss.item() / len(index))
    engine.close()
    return losses


def tensor_bytes() -> int:
    """Of all tensors that Python knows."""
    gc.collect()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tensors = [item for item in gc.get_objects() if isinstance(item, torch.Tensor) and item.layout == torch.strided]
    return sum({tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}.values())


def train_and_close(one_rank, stage: int) -> int:
    """Returns the bytes of the model."""
    model = make_model(0.0)
    engine = Engine(
        model, one_rank, settings=EngineSettings(), optimizer=OptimizerSettings(), split=BatchSplit(1, 1, 1), zero_stage=stage, seed=1
    )
    ids, index = torch.randint(5, VOCABULARY, (2, 9)), torch.arange(0, 18, 2)
    loss = torch.nn.functional.cross_entropy(engine(ids, None, index), ids.flatten()[index], reduction="sum")
    engine.backward(loss, len(index))
    engine.step(0.01)
    weights = engine.weights()
    engine.close()
    twin = make_model(0.0)
    twin.load_state_dict(weights)
    torch.testing.assert_close(model.eval()(ids, None, index), twin.eval()(ids, None, index))
    model.load_state_dict(weights)
    return sum(parameter.nbytes for parameter in model.parameters())


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_closed_engine_leaves_a_plain_model_and_frees_what_it_held(one_rank, stage):
    """A process trains one candidate after the other. At stage 3 DeepSpeed itself keeps the models, but no more than those."""
    size = train_and_close(one_rank, stage)
    before = tensor_bytes()
    for _ in range(3):
        train_and_close(one_rank, stage)
    assert tensor_bytes() - before < (3.3 if stage == 3 else 0.3) * size


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_activation_checkpointing_changes_no_bit_with_dropout_on(one_rank, stage, monkeypatch):
    plain = losses_of(one_rank, dropout=0.2, stage=stage)
    calls = []
    forward = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        "grover_dist.model.packing.scaled_dot_product_attention", lambda *inputs, **options: calls.append(1) or forward(*inputs, **options)
    )
    assert losses_of(one_rank, dropout=0.2, stage=stage, activation_checkpointing=True) == plain
    assert len(calls) == 2 * LAYERS * sum(len(list(WindowEdges(LENGTHS[step % 3]).runs())) for step in range(4))


def test_fused_adamw_changes_rounding_only(one_rank):
    assert losses_of(one_rank) == pytest.approx(losses_of(one_rank, fused_adamw=False), rel=1e-5)


def test_a_model_without_layers_to_compute_again(one_rank):
    with pytest.raises(UserError, match="activation_checkpointing"):
        Engine(
            ToyObjective().model, one_rank, settings=EngineSettings(activation_checkpointing=True), optimizer=OptimizerSettings(),
            split=BatchSplit(1, 1, 1), zero_stage=0, seed=1,
        )  # fmt: skip


def test_compile_is_refused_where_it_cannot_work(one_rank, monkeypatch):
    with pytest.raises(UserError, match="stage 3"):
        losses_of(one_rank, stage=3, compile=True)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UserError, match=r"C\+\+ compiler"):
        losses_of(one_rank, compile=True)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@pytest.mark.parametrize("packed", [True, False])
def test_a_compiled_model_has_the_same_losses(one_rank, packed):
    torch._dynamo.reset()
    assert losses_of(one_rank, compile=True, packed=packed) == pytest.approx(losses_of(one_rank, packed=packed), rel=1e-4)
