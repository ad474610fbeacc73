"""Memory of a rank as planned, beside the tensors that a rank holds at the peak of a step."""

import gc
import warnings

import pytest
import torch

from grover_dist.config import EngineSettings, ModelSettings, OptimizerSettings
from grover_dist.model.bert import MaskedPredictor, bert_config, masked_lm
from grover_dist.training.engine import BatchSplit, Engine
from grover_dist.training.plan import rank_memory

MODEL = ModelSettings(layers=2, heads=4, hidden=128, feed_forward=512, positions=128, dropout=0.0)
VOCABULARY, WINDOWS, LENGTH, EVERY = 609, 4, 96, 7


def live_bytes() -> int:
    gc.collect()
    storages = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for item in gc.get_objects():
            if isinstance(item, torch.Tensor) and item.device.type == "cpu" and item.layout == torch.strided:
                storages[item.untyped_storage().data_ptr()] = item.untyped_storage().nbytes()
    return sum(storages.values())


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_state_of_a_rank_is_within_15_percent_of_the_tensors_it_holds(one_rank, stage):
    """After a step, when the moments are there, and with the gradients of the next."""
    before = live_bytes()
    model = MaskedPredictor(masked_lm(bert_config(MODEL, VOCABULARY), seed=1))
    engine = Engine(
        model, one_rank, settings=EngineSettings(), optimizer=OptimizerSettings(), split=BatchSplit(1, 1, 1), zero_stage=stage, seed=1
    )
    held = 0
    for _ in range(2):
        ids = torch.randint(5, VOCABULARY, (WINDOWS, LENGTH))
        index = torch.arange(0, ids.numel(), EVERY)
        loss = torch.nn.functional.cross_entropy(engine(ids, None, index), ids.flatten()[index], reduction="sum")
        engine.backward(loss, len(index))
        seen = [parameter.grad for parameter in model.parameters()]  # Python knows no tensor that it was never shown
        held = live_bytes() - before
        del seen
        engine.step(0.01)
    engine.close()
    planned = rank_memory(MODEL, VOCABULARY, zero_stage=stage, world=1, windows=WINDOWS, length_tokens=LENGTH, masked_fraction=1 / EVERY)
    assert planned.total - planned.activations == pytest.approx(held, rel=0.15)
