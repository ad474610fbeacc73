"""The model and how it is pretrained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from grover_dist.config.section import Fraction, Section


class ModelSettings(Section):
    """BERT. The paper's sizes: 12 layers, 12 heads, hidden 768, feed-forward 3072, 512 positions."""

    layers: int = Field(12, ge=1)
    heads: int = Field(12, ge=1)
    hidden: int = Field(768, ge=1)
    feed_forward: int = Field(3_072, ge=1)
    positions: int = Field(512, ge=4)
    dropout: Fraction = 0.1
    layer_norm_eps: float = Field(1e-12, gt=0)

    @model_validator(mode="after")
    def _heads_divide(self) -> ModelSettings:
        if self.hidden % self.heads:
            raise ValueError(f"hidden {self.hidden} is not a multiple of heads {self.heads}")
        return self


class MaskSettings(Section):
    fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.15  # the paper: 0.022
    span: int = Field(1, ge=1)


class OptimizerSettings(Section):
    """AdamW. `stable`: warm-up, a constant rate and a linear decay at the end; a longer run can go on from before the decay. `linear`:
    warm-up, then linear decay over all the rest, whatever decay_fraction says.
    """

    learning_rate: float = Field(4e-4, gt=0)
    schedule: Literal["stable", "linear"] = "stable"
    warmup_fraction: Fraction = 0.05
    decay_fraction: Fraction = 0.2
    weight_decay: float = Field(0.01, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = Field(1e-6, gt=0)
    clip_norm: float = Field(1.0, ge=0)  # 0 = off
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0  # rate of each layer, as a factor of that of the layer above; 1 = all alike


class EngineSettings(Section):
    """What DeepSpeed's JSON is derived from. Only `precision` changes results beyond rounding."""

    zero_stage: Literal["auto", 0, 1, 2, 3] = "auto"  # auto: 0 on one rank, else 1
    precision: Literal["fp32", "bf16"] = "fp32"  # bf16: of matrix products; weights, moments and reductions stay fp32
    offload: bool = False  # AdamW and its moments in the host's memory; needs a ZeRO stage above 0
    fused_adamw: bool = True  # one kernel of torch a step instead of one for each operation
    activation_checkpointing: bool = False  # each layer is computed again in the backward pass: less memory, a third more arithmetic
    compile: bool = False  # torch.compile: needs a C++ compiler, and a minute at the start; not at ZeRO stage 3


class PretrainSettings(Section):
    candidates: tuple[int, ...] = (100, 300, 600, 1_000)  # cycles
    # A candidate that is trained first; the larger ones start from its weights, a new token from the mean of its parts (None: from random).
    warm_start: int | None = None
    budget_bases: int = Field(50_000_000, ge=1)  # bases shown to each candidate
    batch_windows: int = Field(64, ge=1)  # windows per optimizer step, over all ranks
    # At the most; windows per rank and forward pass. auto: as many as fit into memory. The batch and the result stay the same.
    micro_batch_windows: Annotated[int, Field(ge=1)] | Literal["auto"] = 16
    packing: bool = True  # whole windows end to end in one row, so that nothing is padded; changes rounding only
    evaluate_windows: int = Field(512, ge=1)
    evaluations: int = Field(8, ge=1)  # points of the held-out learning curve
    checkpoint_every_steps: int = Field(100, ge=1)
    keep_checkpoints: int = Field(2, ge=1)
    reverse_complement: bool = False  # each sample is read from either strand, by a keyed coin
    soft_mask_weight: Fraction = 1.0  # of soft-masked bases in the training loss
    # By assembly: how often its windows are drawn in an epoch; 1 for those not named. The vocabulary is learned on all bases alike.
    genome_weights: dict[str, Annotated[float, Field(gt=0.0, le=1_000.0)]] = Field(default_factory=dict)
    mask: MaskSettings = MaskSettings()
    evaluate_mask: MaskSettings | None = None  # of held-out windows; null: as in training
    optimizer: OptimizerSettings = OptimizerSettings()

    @property
    def held_out_mask(self) -> MaskSettings:
        return self.evaluate_mask or self.mask

    @property
    def micro_batch_at_most(self) -> int:
        """A number also where training finds its own: for plans, and for passes without gradients."""
        return min(16, self.batch_windows) if self.micro_batch_windows == "auto" else self.micro_batch_windows

    @model_validator(mode="after")
    def _candidates(self) -> PretrainSettings:
        if not self.candidates or len(set(self.candidates)) != len(self.candidates):
            raise ValueError(f"candidates must be distinct cycle numbers, got {list(self.candidates)}")
        if self.warm_start is not None and self.warm_start not in self.candidates:
            raise ValueError(f"warm_start {self.warm_start} is not one of the candidates {list(self.candidates)}")
        return self
