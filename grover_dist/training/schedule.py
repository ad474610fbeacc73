"""The learning rate as a pure function of the step: warm-up, a stable part or none, linear decay."""

from __future__ import annotations

import math
from dataclasses import dataclass

from grover_dist.config import OptimizerSettings


@dataclass(frozen=True)
class Schedule:
    """Steps count from 0. `warmup_steps` rising, then constant, then `decay_steps` falling, `total_steps` in all.

    The stable part does not depend on the end: a run stopped at `decay_start` can go on under a longer schedule with the same
    warm-up, and has then made exactly the steps that the longer run makes (warm-up-stable-decay, Hu et al. 2024, MiniCPM).
    """

    peak_rate: float
    warmup_steps: int
    decay_steps: int
    total_steps: int

    @classmethod
    def of(cls, settings: OptimizerSettings, total_steps: int, *, warmup_steps: int | None = None) -> Schedule:
        """From the settings' shares. `warmup_steps` is given when an earlier, shorter run has made the warm-up already."""
        if warmup_steps is None:
            warmup_steps = min(total_steps, math.ceil(settings.warmup_fraction * total_steps))
        after_warmup = total_steps - min(warmup_steps, total_steps)
        decay_steps = after_warmup if settings.schedule == "linear" else min(after_warmup, math.ceil(settings.decay_fraction * total_steps))
        return cls(settings.learning_rate, warmup_steps, decay_steps, total_steps)

    @property
    def decay_start(self) -> int:
        """The first step with a lowered rate, which is also the number of steps made before the decay."""
        return self.total_steps - self.decay_steps

    def rate(self, step: int) -> float:
        """The learning rate of optimizer step `step`. Neither the first nor the last step has a rate of zero."""
        if step < self.warmup_steps:
            return self.peak_rate * (step + 1) / self.warmup_steps
        if step >= self.decay_start:
            return self.peak_rate * max(0, self.total_steps - step) / (self.decay_steps + 1)
        return self.peak_rate
