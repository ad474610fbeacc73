"""A small real model on random data, for tests of the loop: an embedding, two layers with dropout, sums of cross-entropy."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import torch
from torch import nn

from grover_dist.config import OptimizerSettings
from grover_dist.training.loop import BatchSize, Plan

VOCABULARY, LENGTH, BATCH = 30, 12, 8
# A rate high enough that a wrong gradient or moment shows in a few steps.
OPTIMIZER = OptimizerSettings(learning_rate=3e-2, weight_decay=0.1, warmup_fraction=0.3, decay_fraction=0.3, clip_norm=0.5)


class Stopped(Exception):
    """A run that ends in the middle, without a kill."""


class ToyObjective:
    """Sample i of the run is a pure function of i; a sample has 1 to 11 targets, so that ranks have unequal counts.

    In the forward pass of a step: spoil_step makes the loss NaN, stop_step raises Stopped, hang_step never ends, kill_step sends
    `kill_signal` to this process (kill_above 0), its parent (1) or its parent's parent (2). Each step lasts `pause_seconds` longer.
    """

    name = "toy"

    def __init__(
        self,
        *,
        dropout=0.0,
        micro_batch=2,
        spoil_step=None,
        stop_step=None,
        hang_step=None,
        kill_step=None,
        kill_signal=signal.SIGKILL,
        kill_above=0,
        pause_seconds=0.0,
    ) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(
            nn.Embedding(VOCABULARY, 16), nn.Linear(16, 32), nn.GELU(), nn.Dropout(dropout), nn.LayerNorm(32), nn.Linear(32, VOCABULARY)
        )
        self.micro_batch = micro_batch
        self.spoil_step, self.stop_step, self.hang_step, self.pause_seconds = spoil_step, stop_step, hang_step, pause_seconds
        self.kill_step, self.kill_signal, self.kill_above = kill_step, kill_signal, kill_above
        self.shown: list[int] = []

    def batches(self, step, rank, world):
        samples = range(step * BATCH + rank, (step + 1) * BATCH, world)
        made = [(sample, *_sample(sample)) for sample in samples]
        return [(step, made[at : at + self.micro_batch]) for at in range(0, len(made), self.micro_batch)]

    def size(self, batch):
        _, made = batch
        targets, tokens = sum(count for _, _, count in made), LENGTH * len(made)
        return BatchSize(targets, tokens, bases=4 * tokens)

    def loss(self, model, batch, device):
        step, made = batch
        if step == self.stop_step:
            raise Stopped
        if step == self.hang_step:
            time.sleep(100_000)
        if step == self.kill_step:
            self.kill_step = None
            os.kill(_above(self.kill_above), self.kill_signal)
        time.sleep(self.pause_seconds)
        self.shown += [sample for sample, _, _ in made]
        tokens, counts = torch.stack([item for _, item, _ in made]), torch.tensor([count for _, _, count in made])
        tokens, counts = tokens.to(device), counts.to(device)
        chosen = torch.arange(LENGTH, device=device)[None] < counts[:, None]
        loss = nn.functional.cross_entropy(model(tokens)[chosen], _labels(tokens)[chosen], reduction="sum")
        return loss * float("nan") if step == self.spoil_step else loss

    def evaluate(self, model, ranks):
        tokens = torch.arange(VOCABULARY, device=ranks.device)[None]
        return {"nats": nn.functional.cross_entropy(model(tokens)[0], _labels(tokens)[0]).item()}


def _above(generations: int) -> int:
    number = os.getpid()
    for _ in range(generations):
        number = int(Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[1])
    return number


def _sample(index: int) -> tuple[torch.Tensor, int]:
    generator = torch.Generator().manual_seed(index)
    return torch.randint(VOCABULARY, (LENGTH,), generator=generator), int(torch.randint(1, LENGTH, (1,), generator=generator))


def _labels(tokens: torch.Tensor) -> torch.Tensor:
    return (tokens * 7 + 1) % VOCABULARY


def toy_plan(**changes) -> Plan:
    return Plan(**{"seed": 1, "total_steps": 10, "batch": BATCH, "micro_batch": 2, "optimizer": OPTIMIZER, "hash": "toy", **changes})


def plain_torch(plan: Plan, *, dropout: float = 0.0) -> tuple[list[float], dict[str, torch.Tensor]]:
    """The oracle: torch alone, the whole batch at once, no engine, no accumulation. Losses and weights."""
    objective = ToyObjective(dropout=dropout, micro_batch=BATCH)
    decayed = [p for p in objective.model.parameters() if p.ndim > 1]
    plain = [p for p in objective.model.parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": plan.optimizer.weight_decay}, {"params": plain, "weight_decay": 0.0}],
        betas=plan.optimizer.betas,
        eps=plan.optimizer.eps,
    )
    losses = []
    for step in range(plan.total_steps):
        (batch,) = objective.batches(step, 0, 1)
        loss = objective.loss(objective.model, batch, "cpu") / objective.size(batch).targets
        optimizer.zero_grad()
        loss.backward()
        if plan.optimizer.clip_norm > 0:
            nn.utils.clip_grad_norm_(objective.model.parameters(), plan.optimizer.clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = plan.schedule.rate(step)
        optimizer.step()
        losses.append(loss.item())
    return losses, objective.model.state_dict()
