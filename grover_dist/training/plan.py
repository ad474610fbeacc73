"""What a run will need, by formula, before anything starts: memory of a rank, steps, arithmetic, hours, disk."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from grover_dist.config import Config, ModelSettings, WindowSettings
from grover_dist.model.size import flops_per_token, parameters
from grover_dist.training.schedule import Schedule

_FP32_BYTES = 4
# Dense bf16 peaks by the makers' data sheets, in operations a second, to plan with before a machine is there to measure.
GPU_PEAK_FLOPS = {"a100": 312e12, "h100": 989e12, "h200": 989e12, "l4": 121e12, "v100 (fp16)": 125e12}


@dataclass(frozen=True)
class Memory:
    """Bytes of one rank at the peak of a step."""

    weights: int
    gradients: int
    optimizer: int
    buckets: int
    activations: int

    @property
    def total(self) -> int:
        return sum(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True)
class CandidatePlan:
    """One candidate. memory: bytes of a rank by ZeRO stage. disk_bytes: checkpoints while it trains, and its artefact."""

    cycles: int
    parameters: int
    flops_per_token: float
    bases_per_token: float
    tokens: float
    bases: int
    steps: int
    hours: float
    disk_bytes: int
    memory: dict[int, Memory]


def plan_candidate(
    config: Config, cycles: int, *, budget_bases: int, world: int, flops_per_second: float, bases_per_token: float | None = None
) -> CandidatePlan:
    """flops_per_second: what the whole gang achieves (its peak times its MFU, or `measured_matmul_rate` times 0.4 to 0.6).
    bases_per_token: from a learned vocabulary; None guesses it from the cycles.
    """
    bases_per_token = bases_per_token or guess_bases_per_token(cycles)
    window_tokens = mean_window_tokens(config.windows)
    pretrain, vocab_size = config.pretrain, cycles + 9
    masked = pretrain.mask.fraction
    per_token = flops_per_token(config.model, vocab_size, length_tokens=window_tokens, masked_fraction=masked)
    steps = max(1, round(budget_bases / (window_tokens * bases_per_token * pretrain.batch_windows)))
    tokens = steps * pretrain.batch_windows * window_tokens
    count = parameters(config.model, vocab_size)
    micro_batch = min(pretrain.micro_batch_at_most, max(1, pretrain.batch_windows // world))
    stable = budget_bases < pretrain.budget_bases and Schedule.of(pretrain.optimizer, steps).decay_start > 0
    return CandidatePlan(
        cycles=cycles,
        parameters=count,
        flops_per_token=per_token,
        bases_per_token=bases_per_token,
        tokens=tokens,
        bases=round(tokens * bases_per_token),
        steps=steps,
        # Computing activations again costs one more forward pass, a third of what forward and backward pass cost.
        hours=tokens * per_token * (4 / 3 if config.engine.activation_checkpointing else 1) / flops_per_second / 3_600,
        # One checkpoint is being written while the kept ones are there; each has weights, and weights and two moments in fp32.
        disk_bytes=_FP32_BYTES * count * (4 * (pretrain.keep_checkpoints + 1 + stable) + 1),
        memory={stage: rank_memory_of(config, vocab_size, zero_stage=stage, world=world, windows=micro_batch) for stage in range(4)},
    )


def rank_memory_of(config: Config, vocab_size: int, *, zero_stage: int, world: int, windows: int) -> Memory:
    """`rank_memory` of full windows under these settings."""
    return rank_memory(
        config.model,
        vocab_size,
        zero_stage=zero_stage,
        world=world,
        windows=windows,
        length_tokens=config.windows.max_tokens + 2,
        masked_fraction=config.pretrain.mask.fraction,
        bf16=config.engine.precision == "bf16",
        gpu=config.resources.gpus_per_rank > 0,
        checkpointing=config.engine.activation_checkpointing,
        offload=config.engine.offload,
    )


def rank_memory(
    model: ModelSettings,
    vocab_size: int,
    *,
    zero_stage: int,
    world: int,
    windows: int,
    length_tokens: int,
    masked_fraction: float,
    bf16: bool = False,
    gpu: bool = False,
    checkpointing: bool = False,
    offload: bool = False,
) -> Memory:
    """Peak of a training step with `windows` of `length_tokens` in one forward pass.

    State in fp32 at every precision (bf16 is autocast): weights 4 bytes a parameter, gradients 4, AdamW's moments 8. Stage 1 shares
    moments and a second copy of the weights over the ranks, stage 2 the gradients as well, stage 3 everything (Rajbhandari et al. 2020).
    What DeepSpeed holds besides, as measured by tests: one flat copy of all gradients for the exchange (stage 0 of several ranks), its
    bucket (stages 1 to 3; gloo copies it at stage 3), a flat copy of the gradients' share (stage 2), and at stage 3 the gathered weights,
    which it keeps from the forward to the backward pass where they are fewer than a billion.
    offload: the optimizer's share lies in the host's memory, so that on a GPU it does not count.
    """
    count = parameters(model, vocab_size)
    shared = math.ceil(count / world)
    several = world > 1
    weights = (count, count, count, shared + several * min(count, 1_000_000_000))[zero_stage]
    gradients = (count, count, 2 * shared if several else count, shared)[zero_stage]
    bucket = bucket_elements(count)
    buckets = (several * min(count, 500_000_000), bucket, bucket, bucket if gpu or not several else 2 * bucket)[zero_stage]
    return Memory(
        weights=_FP32_BYTES * weights,
        gradients=_FP32_BYTES * gradients,
        optimizer=0 if offload and gpu else _FP32_BYTES * (2 * count if zero_stage == 0 else 3 * shared),
        buckets=_FP32_BYTES * buckets,
        activations=activation_bytes(
            model, vocab_size, windows * length_tokens, length_tokens, masked_fraction, bf16=bf16, gpu=gpu, checkpointing=checkpointing
        ),
    )


def bucket_elements(parameters: int) -> int:
    """Gradients that a rank of stage 1 to 3 gathers for one exchange. DeepSpeed takes all of the memory at once, and would by default take
    2 GB. An odd number is refused.
    """
    return min(50_000_000, parameters + parameters % 2)


def activation_bytes(
    model: ModelSettings,
    vocab_size: int,
    tokens: int,
    length_tokens: int,
    masked_fraction: float,
    *,
    bf16: bool = False,
    gpu: bool = False,
    checkpointing: bool = False,
) -> int:
    """What the forward pass keeps for the backward pass, counted from the tensors that autograd saves.

    A layer keeps, per token: inputs of both LayerNorms (2 h), inputs of the dense layers (3 h and f, and f before GELU), queries, keys and
    values (3 h). Dropout adds masks (2 h, as numbers on the CPU, as bytes on a GPU), and on the CPU takes away the fused attention, so
    that scores, mask and product stay too (3 x heads x length). Under bf16 torch's autocast leaves LayerNorm in fp32, on a CPU attention
    as well, and keeps a bf16 copy of the weights beside. With checkpointing a layer keeps its input (h), and one at a time all the rest.
    Measured on the CPU by tests.
    """
    hidden, feed_forward = model.hidden, model.feed_forward
    dropped = model.dropout > 0
    product_bytes = 2 if bf16 else _FP32_BYTES
    mask_bytes = (1 if gpu else _FP32_BYTES) * dropped
    attention = 3 * hidden * (product_bytes if gpu else _FP32_BYTES)
    if dropped and not gpu:
        attention += 3 * model.heads * length_tokens * _FP32_BYTES
    else:
        attention += model.heads * _FP32_BYTES
    layer = 2 * hidden * _FP32_BYTES + (3 * hidden + 2 * feed_forward) * product_bytes + 2 * hidden * mask_bytes + attention
    embedding = hidden * (_FP32_BYTES + mask_bytes)
    head = 4 * hidden * product_bytes + 2 * vocab_size * _FP32_BYTES
    layers = model.layers * hidden * _FP32_BYTES + layer if checkpointing else model.layers * layer
    weights = 2 * parameters(model, vocab_size) if bf16 else 0
    return weights + round(tokens * (layers + embedding + masked_fraction * head))


def mean_window_tokens(windows: WindowSettings) -> float:
    """Of the windows' law: full with one probability, else uniform."""
    uniform = (windows.min_tokens + windows.max_tokens) / 2
    return windows.full_probability * windows.max_tokens + (1 - windows.full_probability) * uniform


def guess_bases_per_token(cycles: int) -> float:
    """Before anything is learned: 0.88 log4(cycles + 4), which gives the 4.07 nt that GROVER reports at 600 cycles and 1 at none."""
    return max(1.0, 0.88 * math.log(cycles + 4, 4))


def rank_peak_flops(setting: float | str) -> tuple[float, str]:
    """Operations a second of one rank as `tracking.peak_flops` has it, and where the number comes from."""
    if setting != "auto":
        return float(setting), "tracking.peak_flops"
    import torch

    from grover_dist.model.device import local_device

    name = torch.cuda.get_device_name().lower() if local_device().type == "cuda" else ""
    for known, flops in GPU_PEAK_FLOPS.items():
        if known.split()[0] in name:
            return flops, f"{known}, data sheet"
    return measured_matmul_rate(seconds=0.1, size=1_024), "matrix products measured here"


def measured_matmul_rate(*, seconds: float = 1.0, size: int = 2_048) -> float:
    """Operations a second of large matrix products here: fp32 on this process's CPU threads, bf16 on a GPU."""
    import time

    import torch

    from grover_dist.model.device import local_device

    gpu = local_device().type == "cuda"
    kind = {"device": "cuda", "dtype": torch.bfloat16} if gpu else {"device": "cpu", "dtype": torch.float32}
    side = 4 * size if gpu else size
    left, right = torch.randn(side, side, **kind), torch.randn(side, side, **kind)
    rounds, began = 0, 0.0
    while rounds < 2 or time.perf_counter() - began < seconds:
        if rounds == 1:
            began = time.perf_counter()  # the first round warms up
        left @ right
        if gpu:
            torch.cuda.synchronize()
        rounds += 1
    return 2.0 * side**3 * (rounds - 1) / (time.perf_counter() - began)
