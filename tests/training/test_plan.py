import pytest
import torch
from torch.nn import functional

from grover_dist.config import ModelSettings, WindowSettings, config_from
from grover_dist.model.bert import MaskedPredictor, bert_config, masked_lm
from grover_dist.model.packing import WindowEdges
from grover_dist.model.size import parameters
from grover_dist.training.plan import activation_bytes, guess_bases_per_token, mean_window_tokens, plan_candidate, rank_memory


def kept_bytes(model, *inputs, labels):
    """Bytes of the distinct storages that autograd keeps after the forward pass, weights left out, and of the logits' gradient."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        logits = model(*inputs).float()
        functional.cross_entropy(logits, labels, reduction="sum")
    return sum(size for size, _ in kept.values()) + logits.nbytes


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize(
    ("layers", "heads", "hidden", "feed_forward", "length"), [(2, 4, 64, 256, 128), (4, 2, 128, 256, 60), (3, 8, 64, 64, 200)]
)
def test_activation_formula_is_within_15_percent_of_what_autograd_keeps(layers, heads, hidden, feed_forward, length, dropout):
    settings = ModelSettings(layers=layers, heads=heads, hidden=hidden, feed_forward=feed_forward, positions=256, dropout=dropout)
    vocab_size, windows = 609, 3
    model = MaskedPredictor(masked_lm(bert_config(settings, vocab_size), seed=1)).train()
    ids = torch.randint(5, vocab_size, (windows, length))
    index = torch.arange(0, windows * length, 7)
    measured = kept_bytes(model, ids, None, index, labels=ids.flatten()[index])
    predicted = activation_bytes(settings, vocab_size, windows * length, length, len(index) / (windows * length))
    assert predicted == pytest.approx(measured, rel=0.15)


@pytest.mark.parametrize(("layers", "hidden", "length"), [(6, 64, 128), (4, 128, 60)])
def test_checkpointed_activations_are_the_layers_inputs_and_one_layer(layers, hidden, length):
    """Autograd keeps the inputs; the one layer that is there at a time appears in the backward pass."""
    settings = ModelSettings(layers=layers, heads=4, hidden=hidden, feed_forward=4 * hidden, positions=256, dropout=0.0)
    model = MaskedPredictor(masked_lm(bert_config(settings, 609), seed=1)).train()
    model.bert_for_masked_lm.activation_checkpointing_enable()
    ids = torch.randint(5, 609, (3, length))
    index = torch.arange(0, 3 * length, 7)
    measured = kept_bytes(model, ids, None, index, labels=ids.flatten()[index])
    common = (609, 3 * length, length, len(index) / (3 * length))
    one, two = (ModelSettings(**{**settings.model_dump(), "layers": count}) for count in (1, 2))
    one_layer = activation_bytes(two, *common) - activation_bytes(one, *common)
    assert activation_bytes(settings, *common, checkpointing=True) - one_layer == pytest.approx(measured, rel=0.15)
    assert activation_bytes(settings, *common, checkpointing=True) < activation_bytes(settings, *common) / 2


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_packed_windows_keep_what_the_formula_says(dropout):
    settings = ModelSettings(layers=2, heads=4, hidden=64, feed_forward=256, positions=256, dropout=dropout)
    model = MaskedPredictor(masked_lm(bert_config(settings, 609), seed=1)).train()
    ids = torch.randint(5, 609, (1, 3 * 128))
    index = torch.arange(0, 3 * 128, 7)
    measured = kept_bytes(model, ids, None, index, WindowEdges([128] * 3), labels=ids.flatten()[index])
    assert activation_bytes(settings, 609, 3 * 128, 128, len(index) / (3 * 128)) == pytest.approx(measured, rel=0.15)


def test_state_is_16_bytes_a_parameter_and_shrinks_with_the_stage():
    model = ModelSettings()
    count = parameters(model, 609)
    alone = rank_memory(model, 609, zero_stage=0, world=1, windows=1, length_tokens=512, masked_fraction=0.15)
    assert alone.total - alone.activations == 16 * count
    common = {"world": 8, "windows": 1, "length_tokens": 512, "masked_fraction": 0.15}
    state = [rank_memory(model, 609, zero_stage=stage, **common) for stage in range(4)]
    share = -(-count // 8)
    assert [memory.weights // 4 for memory in state] == [count, count, count, share + count]
    assert [memory.gradients // 4 for memory in state] == [count, count, 2 * share, share]
    assert [memory.buckets // 4 for memory in state] == [count, 50_000_000, 50_000_000, 2 * 50_000_000]
    assert state[1].optimizer == state[2].optimizer == state[3].optimizer < state[0].optimizer


def test_window_law_and_token_length():
    assert mean_window_tokens(WindowSettings()) == (510 + 265) / 2
    assert guess_bases_per_token(600) == pytest.approx(4.07, abs=0.01)
    assert guess_bases_per_token(0) == 1.0


def test_the_papers_candidate():
    config = config_from({"genome": {"fasta": "hg19.fa"}, "pretrain": {"budget_bases": 2_900_000_000, "candidates": [600]}})
    plan = plan_candidate(config, 600, budget_bases=2_900_000_000, world=8, flops_per_second=8 * 312e12 * 0.4)
    assert plan.parameters == 86_511_201
    assert plan.steps == pytest.approx(2.9e9 / 4.07 / 387.5 / 64, rel=0.01)
    assert plan.hours == pytest.approx(plan.tokens * plan.flops_per_token / (8 * 312e12 * 0.4) / 3_600)
    assert plan.bases == pytest.approx(2.9e9, rel=0.001)
    assert plan.disk_bytes == plan.parameters * (16 * 3 + 4)


def test_a_candidate_planned_with_measured_figures_shows_the_budget():
    config = config_from({"genome": {"fasta": "x.fa"}})
    for cycles in (100, 1_000):
        plan = plan_candidate(config, cycles, budget_bases=10_000_000, world=1, flops_per_second=1e11, bases_per_token=3.0)
        assert plan.bases == pytest.approx(10_000_000, rel=0.02) and plan.bases_per_token == 3.0
