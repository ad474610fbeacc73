import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from grover_dist.config import EngineSettings, OptimizerSettings
from grover_dist.errors import UserError
from grover_dist.training.engine import BatchSplit, deepspeed_config, parameter_groups, resolve_zero_stage, split_batch


@given(batch=st.integers(1, 500), world=st.integers(1, 40), at_most=st.integers(1, 64))
def test_batch_split_covers_the_batch_or_names_ranks_that_do(batch, world, at_most):
    if batch % world == 0:
        split = split_batch(batch, world, at_most)
        assert split.micro_batch * split.accumulation * split.world == batch
        assert 1 <= split.micro_batch <= at_most
        return
    with pytest.raises(UserError) as caught:
        split_batch(batch, world, at_most)
    named = [int(word) for word in str(caught.value.expected).split("nearest: ")[1].split(" or ")]
    assert named and all(batch % count == 0 for count in named)


def test_error_names_the_nearest_numbers_of_ranks():
    with pytest.raises(UserError, match="3 ranks cannot share a batch of 64") as caught:
        split_batch(64, 3, 16)
    assert "2 or 4" in caught.value.expected


def test_zero_stage_auto():
    assert [resolve_zero_stage(EngineSettings(), world) for world in (1, 2, 8)] == [0, 1, 1]
    assert resolve_zero_stage(EngineSettings(zero_stage=3), 1) == 3


def test_deepspeed_json_golden():
    config = deepspeed_config(
        EngineSettings(precision="bf16"), OptimizerSettings(clip_norm=0.7), BatchSplit(4, 2, 8), zero_stage=2, seed=5, parameters=90_000_000
    )
    assert config == {
        "train_batch_size": 64,
        "train_micro_batch_size_per_gpu": 4,
        "gradient_accumulation_steps": 2,
        "gradient_clipping": 0.7,
        "steps_per_print": 2**31,
        "wall_clock_breakdown": False,
        "timers": {"throughput": {"enabled": False}},
        "seed": 5,
        "torch_autocast": {"enabled": True, "dtype": "bfloat16"},
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {
            "stage": 2,
            "overlap_comm": False,
            "contiguous_gradients": True,
            "reduce_bucket_size": 50_000_000,
            "allgather_bucket_size": 50_000_000,
        },
    }


def test_deepspeed_json_golden_of_an_offloaded_optimizer():
    config = deepspeed_config(
        EngineSettings(offload=True), OptimizerSettings(), BatchSplit(1, 1, 2), zero_stage=3, seed=1, parameters=90_000
    )
    assert config["zero_force_ds_cpu_optimizer"] is False  # DeepSpeed's own would be compiled
    assert config["zero_optimization"] == {
        "stage": 3,
        "overlap_comm": False,
        "contiguous_gradients": True,
        "reduce_bucket_size": 90_000,
        "allgather_bucket_size": 90_000,
        "stage3_param_persistence_threshold": 10_000,
        "offload_optimizer": {"device": "cpu", "pin_memory": False},
    }


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_deepspeed_json_has_no_optimizer_that_would_be_compiled(stage):
    config = deepspeed_config(EngineSettings(), OptimizerSettings(), BatchSplit(1, 1, 1), zero_stage=stage, seed=1, parameters=9)
    assert "optimizer" not in config and "scheduler" not in config and "torch_autocast" not in config


def test_offload_needs_a_zero_stage():
    with pytest.raises(UserError, match="offload"):
        deepspeed_config(EngineSettings(offload=True), OptimizerSettings(), BatchSplit(1, 1, 1), zero_stage=0, seed=1, parameters=9)


def test_biases_and_norms_do_not_decay_and_frozen_weights_are_left_out():
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    model[3].weight.requires_grad_(False)
    decayed, plain = parameter_groups(model, 0.1)
    assert {id(p) for p in decayed["params"]} == {id(model[0].weight), id(model[1].weight)}
    assert {id(p) for p in plain["params"]} == {id(p) for p in (model[1].bias, model[2].weight, model[2].bias, model[3].bias)}
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)


def test_each_layer_below_the_head_has_a_smaller_rate():
    from transformers import BertConfig, BertForSequenceClassification

    model = BertForSequenceClassification(
        BertConfig(vocab_size=12, hidden_size=8, num_hidden_layers=3, num_attention_heads=2, intermediate_size=8)
    )
    groups = parameter_groups(model, 0.1, 0.5)
    factor = {id(parameter): group["rate_factor"] for group in groups for parameter in group["params"]}
    assert len(factor) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        layer = name.split("encoder.layer.")[1][0] if "encoder.layer." in name else None
        expected = 0.5 ** (3 - int(layer)) if layer else 0.5**4 if "embeddings" in name else 1.0
        assert factor[id(parameter)] == expected, name
    assert {group["rate_factor"] for group in parameter_groups(model, 0.1)} == {1.0}
