"""DeepSpeed behind one small class. Its JSON is derived here from our settings by one pure function, and nowhere else."""

from __future__ import annotations

import logging
import os
import re
import shutil
import warnings
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from grover_dist.config import EngineSettings, OptimizerSettings
from grover_dist.errors import UserError
from grover_dist.model.device import local_device
from grover_dist.training.plan import bucket_elements
from grover_dist.training.ranks import Ranks
from grover_dist.training.snapshot import Holder

_LAYER = re.compile(r"\blayer\.(\d+)\.")


@dataclass(frozen=True)
class BatchSplit:
    """One optimizer step: `micro_batch` samples x `accumulation` forward passes x `world` ranks."""

    micro_batch: int
    accumulation: int
    world: int


def split_batch(batch: int, world: int, micro_batch_at_most: int, *, where: str = "pretrain.batch_windows") -> BatchSplit:
    """The largest micro-batch that divides a rank's share. Raises UserError where `world` does not divide `batch`."""
    if batch % world:
        divisors = [count for count in range(1, batch + 1) if batch % count == 0]
        below = max(count for count in divisors if count < world) if world > 1 else 1
        above = min((count for count in divisors if count > world), default=None)
        numbers = f"{below} or {above}" if above is not None else str(below)
        raise UserError(
            f"{world} ranks cannot share a batch of {batch} evenly",
            where=f"resources.ranks_per_candidate and {where}",
            got=f"{world} ranks",
            expected=f"a number of ranks that divides {batch}; the nearest: {numbers}",
            hint=f"start {numbers} ranks, or set {where}={batch // world * world or world} or {(batch // world + 1) * world}",
        )
    share = batch // world
    micro_batch = max(count for count in range(1, min(share, micro_batch_at_most) + 1) if share % count == 0)
    return BatchSplit(micro_batch, share // micro_batch, world)


def resolve_zero_stage(settings: EngineSettings, world: int) -> int:
    """`auto`: 0 on one rank, where partitioning only costs, else 1, which saves optimizer memory at the same traffic."""
    if settings.zero_stage == "auto":
        return 0 if world == 1 else 1
    return settings.zero_stage


def deepspeed_config(
    settings: EngineSettings, optimizer: OptimizerSettings, split: BatchSplit, *, zero_stage: int, seed: int, parameters: int
) -> dict[str, Any]:
    """DeepSpeed's JSON, for a model of so many parameters. Optimizer and schedule are ours (client side), so that no CPU kernel is compiled
    and the rate is a pure function of the step. At stage 0 the gradients are clipped by `Engine.step`, where DeepSpeed would not report
    their norm.
    """
    config: dict[str, Any] = {
        "train_batch_size": split.micro_batch * split.accumulation * split.world,
        "train_micro_batch_size_per_gpu": split.micro_batch,
        "gradient_accumulation_steps": split.accumulation,
        "gradient_clipping": optimizer.clip_norm if zero_stage > 0 else 0.0,
        "steps_per_print": 2**31,  # the loop logs
        "wall_clock_breakdown": False,
        # Its clock waits for the GPU before each forward pass and after each step.
        "timers": {"throughput": {"enabled": False}},
        "seed": seed,
    }
    if settings.precision == "bf16":
        # Weights, moments and reductions of the optimizer stay fp32; matrix products run in bf16 at every stage alike.
        config["torch_autocast"] = {"enabled": True, "dtype": "bfloat16"}
    zero: dict[str, Any] = {"stage": zero_stage}
    if zero_stage > 0:
        config["zero_allow_untested_optimizer"] = True
        zero |= {
            "overlap_comm": False,
            "contiguous_gradients": True,
            "reduce_bucket_size": bucket_elements(parameters),
            "allgather_bucket_size": bucket_elements(parameters),
        }
    if zero_stage == 3:
        zero |= {"stage3_param_persistence_threshold": 10_000}
    if settings.offload:
        if zero_stage == 0:
            raise UserError(
                "optimizer offload needs a ZeRO stage above 0",
                where="engine.offload",
                got="stage 0",
                expected="1, 2 or 3",
                hint="set engine.zero_stage=2",
            )
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": local_device().type == "cuda"}
        config["zero_force_ds_cpu_optimizer"] = False
    config["zero_optimization"] = zero
    return config


def parameter_groups(model: torch.nn.Module, weight_decay: float, layer_decay: float = 1.0) -> list[dict[str, Any]]:
    """Two groups: matrices decay; biases and LayerNorm (every tensor of one axis) do not. Frozen parameters are left out.

    layer_decay: below 1 there are two groups for each depth, whose `rate_factor` is layer_decay to the power of the steps down from the
    head: 1 for the head, then each layer from the last to the first, the embeddings last (Howard and Ruder 2018).
    """
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    top = max((_depth(name, 0) for name, _ in trained), default=0) + 1
    depths = [_depth(name, top) if layer_decay < 1 else top for name, _ in trained]
    return [
        {
            "params": [p for (_, p), own in zip(trained, depths, strict=True) if own == depth and (p.ndim > 1) == matrices],
            "weight_decay": weight_decay if matrices else 0.0,
            "rate_factor": layer_decay ** (top - depth),
        }
        for depth in sorted({*depths, top}, reverse=True)
        for matrices in (True, False)
    ]


def _depth(name: str, top: int) -> int:
    """0 for the embeddings, 1 for the first layer, `top` for what is not in the trunk."""
    layer = _LAYER.search(name)
    return int(layer[1]) + 1 if layer else 0 if "embeddings." in name else top


def adamw(model: torch.nn.Module, settings: OptimizerSettings, *, fused: bool = True) -> torch.optim.AdamW:
    """torch's AdamW, whose fused kernels for CPU and GPU come with torch. The rate is set before each step."""
    groups = [group for group in parameter_groups(model, settings.weight_decay, settings.layer_decay) if group["params"]]
    return torch.optim.AdamW(
        groups,
        lr=settings.learning_rate,
        betas=settings.betas,
        eps=settings.eps,
        fused=fused,
        foreach=not fused,
    )


class Engine:
    """A model under DeepSpeed. Called like the model; `backward` for each micro-batch, then one `step`."""

    def __init__(
        self,
        model: torch.nn.Module,
        ranks: Ranks,
        *,
        settings: EngineSettings,
        optimizer: OptimizerSettings,
        split: BatchSplit,
        zero_stage: int,
        seed: int,
    ) -> None:
        deepspeed = _import_deepspeed(ranks.device)
        self.ranks, self.split, self.zero_stage = ranks, split, zero_stage
        self._clip_norm = optimizer.clip_norm
        model.to(ranks.device)
        _prepare(model, settings, zero_stage)
        count = sum(parameter.numel() for parameter in model.parameters())
        config = deepspeed_config(settings, optimizer, split, zero_stage=zero_stage, seed=seed, parameters=count)
        self.client_optimizer = adamw(model, optimizer, fused=settings.fused_adamw)
        self._weight_decays = [group["weight_decay"] for group in self.client_optimizer.param_groups]
        self._rate_factors = [group["rate_factor"] for group in self.client_optimizer.param_groups]
        self.deepspeed, _, _, _ = deepspeed.initialize(model=model, optimizer=self.client_optimizer, config=config, dist_init_required=None)
        self._gathered = deepspeed.zero.GatheredParameters

    def __call__(self, *inputs: Any, **named_inputs: Any) -> Any:
        return self.deepspeed(*inputs, **named_inputs)

    @property
    def module(self) -> torch.nn.Module:
        return self.deepspeed.module

    def train(self, mode: bool = True) -> None:
        self.deepspeed.train(mode)

    def backward(self, loss_sum: torch.Tensor, global_targets: float) -> None:
        """Gradients of one micro-batch. `loss_sum` is over its targets; `global_targets` counts those of the whole step, over
        all ranks and micro-batches, so that the gradients do not depend on how the batch is dealt. DeepSpeed averages over the
        ranks; the factor `world` turns its average into a sum.
        """
        # One rank has nobody to average with; DeepSpeed would copy every gradient to and fro.
        with self.deepspeed.no_sync() if self.split.world == 1 and self.zero_stage == 0 else nullcontext():
            self.deepspeed.backward(loss_sum * (self.split.world / global_targets), scale_wrt_gas=False)

    def accumulate(self) -> None:
        """Between two micro-batches of one step."""
        self.deepspeed.step()

    def step(self, rate: float) -> float:
        """The optimizer step, after the last micro-batch's backward pass. Returns the norm of the whole gradient before clipping.
        At stage 0 a norm that is not finite is returned without having stepped.
        """
        for group, factor in zip(self.deepspeed.optimizer.param_groups, self._rate_factors, strict=True):
            group["lr"] = rate * factor
        if self.zero_stage > 0:
            self.deepspeed.step()
            norm = self.deepspeed.get_global_grad_norm()
            return float(norm)
        trained = [parameter for parameter in self.module.parameters() if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in trained])
        if not torch.isfinite(norm):
            return float(norm)
        if self._clip_norm > 0:
            torch.nn.utils.clip_grads_with_norm_(trained, self._clip_norm, norm)
        self.deepspeed.step()
        return float(norm)

    def weights(self) -> dict[str, torch.Tensor]:
        """All weights in fp32 on the CPU, on rank 0; an empty dictionary on the others. Collective at stage 3."""
        with self.gathered():
            if not self.ranks.is_main:
                return {}
            return {name: value.detach().to("cpu", copy=True) for name, value in self.module.state_dict().items()}

    @contextmanager
    def gathered(self):
        """Inside, every rank sees whole parameters (they are partitioned at stage 3)."""
        if self.zero_stage == 3:
            with self._gathered(list(self.module.parameters())):
                yield
        else:
            yield

    def snapshot(self, folder: Path, tag: str) -> list[tuple[Path, Any]]:
        """What DeepSpeed would save under `folder/tag`, copied to host memory: this rank's files and their contents. Collective."""
        writer = self.deepspeed.checkpoint_engine
        self.deepspeed.checkpoint_engine = holder = Holder(writer)
        try:
            self.deepspeed.save_checkpoint(str(folder), tag=tag, save_latest=False)
        finally:
            self.deepspeed.checkpoint_engine = writer
        return holder.held

    def load(self, folder: Path, tag: str, *, universal: bool = False) -> None:
        """Weights and optimizer state from what `save` wrote, or from its universal form. Collective."""
        self.deepspeed._config.load_universal_checkpoint = universal
        path, _ = self.deepspeed.load_checkpoint(str(folder), tag=tag)
        assert path is not None
        # DeepSpeed's universal loading at stage 3 gives every parameter group the first one's weight decay, and lets the groups share
        # one step counter, which then counts each step twice.
        for group, weight_decay in zip(self.client_optimizer.param_groups, self._weight_decays, strict=True):
            group["weight_decay"] = weight_decay
        for state in self.client_optimizer.state.values():
            if isinstance(state.get("step"), torch.Tensor):
                state["step"] = state["step"].clone()

    def close(self) -> None:
        """Ends the engine and frees its memory; the model is a plain one again, with its weights as they are. Collective at stage 3."""
        whole = []
        if self.zero_stage == 3:
            with self.gathered():
                whole = [(parameter, parameter.data.clone()) for parameter in self.module.parameters()]
        self.deepspeed.destroy()
        if whole:
            # A cache of DeepSpeed's keeps each engine and its model for the life of the process: let it not keep what the engine held.
            vars(self.deepspeed.optimizer).clear()
            self.client_optimizer.state.clear()
            self.client_optimizer.param_groups.clear()
        for parameter, data in whole:
            vars(parameter).clear()
            parameter.grad, parameter.data = None, data


def _prepare(model: torch.nn.Module, settings: EngineSettings, zero_stage: int) -> None:
    """Activation checkpointing and compilation, in place; names of weights stay."""
    if settings.activation_checkpointing:
        names = ("activation_checkpointing_enable", "gradient_checkpointing_enable")  # transformers from 5.20, and before
        enable = next((getattr(module, name) for module in model.modules() for name in names if hasattr(module, name)), None)
        if enable is None:
            raise UserError("this model cannot compute its activations again", where="engine.activation_checkpointing")
        enable({"use_reentrant": False})
    if settings.compile:
        if zero_stage == 3:
            raise UserError(
                "weights that are gathered layer by layer cannot be compiled",
                where="engine.compile",
                got="ZeRO stage 3",
                hint="set engine.zero_stage=2 or engine.compile=false",
            )
        compilers = [os.environ.get("CXX", ""), "g++", "clang++"]
        if not any(name and shutil.which(name) for name in compilers):
            raise UserError(
                "torch.compile needs a C++ compiler",
                where="engine.compile",
                expected="g++ or clang++ on PATH, or CXX",
                hint="install g++, or set engine.compile=false",
            )
        model.compile()


def _import_deepspeed(device: torch.device):
    import deepspeed
    import deepspeed.ops

    # Not ours to mend: DeepSpeed calls collectives by the names that torch 2.13 renamed, once for each step.
    warnings.filterwarnings("ignore", message=".*torch.distributed.*deprecated", category=FutureWarning)
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    if device.type == "cpu":
        # DeepSpeed compiles a shared-memory collective for the CPU (75 s) unless this table, made to be edited, says that
        # it cannot; gloo is used instead. Filling it here also saves its probing of compilers.
        deepspeed.ops.__compatible_ops__ = {}
    return deepspeed
