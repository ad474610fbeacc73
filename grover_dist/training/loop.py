"""The training loop. It runs unchanged in a plain process, under torchrun, the deepspeed launcher or Ray."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch

from grover_dist.config import EngineSettings, OptimizerSettings
from grover_dist.errors import UserError
from grover_dist.remote import Remote
from grover_dist.training.checkpoint import Checkpoint, Checkpoints, Progress, load, read_checkpoint
from grover_dist.training.engine import Engine, resolve_zero_stage, split_batch
from grover_dist.training.fit import out_of_memory_named
from grover_dist.training.metrics import MetricsWriter, Throughput, peak_memory_bytes
from grover_dist.training.notice import stop_request
from grover_dist.training.ranks import Ranks, code_version
from grover_dist.training.schedule import Schedule
from grover_dist.training.watch import hang_watch

_HANG_SHARE = 0.75  # of the timeout: the watch must speak before the process group gives up


class BatchSize(NamedTuple):
    targets: float  # what the loss is averaged over: their number, or the sum of their weights
    tokens: int
    bases: int
    positions: int = 0  # of the forward pass, special tokens and padding included
    padding: int = 0  # those that hold nothing


class Objective(Protocol):
    """What is learned. A batch is whatever `batches` makes and `loss` understands; the loop only passes it on.

    An objective may have an attribute `finished`, the same on each rank: once it is true after an evaluation, training ends there.
    """

    name: str  # for messages: "c600"
    model: torch.nn.Module

    def batches(self, step: int, rank: int, world: int) -> Sequence[Any]:
        """This rank's micro-batches of an optimizer step: a pure function, the same number on each rank. Called in a thread."""

    def size(self, batch: Any) -> BatchSize: ...

    def loss(self, model: Any, batch: Any, device: torch.device) -> torch.Tensor:
        """Summed over the batch's targets, in nats. `model` is called like `self.model`, once."""

    def evaluate(self, model: Any, ranks: Ranks) -> Mapping[str, float]:
        """Held-out figures, the same on each rank. Called without gradients and in evaluation mode, on all ranks at once."""


@dataclass(frozen=True)
class Plan:
    """How long, how wide and with what. `batch` and `micro_batch` count samples; `batch` is the whole gang's."""

    seed: int
    total_steps: int
    batch: int
    micro_batch: int  # at the most
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    engine: EngineSettings = field(default_factory=EngineSettings)
    warmup_steps: int | None = None  # None: optimizer.warmup_fraction of total_steps
    log_every_steps: int = 10
    evaluations: int = 1  # evenly spread; the last one stands at the end
    checkpoint_every_steps: int = 100
    keep_checkpoints: int = 2
    keep_stable: bool = False  # keep the state before the decay, for a longer run to continue from
    rank_timeout_seconds: float = 1_800
    hash: str = ""  # of everything that changes the result: a checkpoint of another hash is refused
    flops_per_token: float = 0.0  # for MFU; 0: not told
    peak_flops: float = 0.0  # of one rank
    batch_setting: str = "pretrain.batch_windows"  # named in the error about a batch that the ranks cannot share

    @property
    def schedule(self) -> Schedule:
        return Schedule.of(self.optimizer, self.total_steps, warmup_steps=self.warmup_steps)

    def continuing(self, warmup_steps: int) -> Plan:
        """The plan of a longer run that takes up a shorter one, whose warm-up took `warmup_steps`."""
        return replace(self, warmup_steps=warmup_steps)

    def evaluates_after(self, step: int) -> bool:
        """Whether the held-out set is evaluated when `step` steps have been made."""
        return step * self.evaluations // self.total_steps > (step - 1) * self.evaluations // self.total_steps


@dataclass
class Result:
    """weights: whole, fp32, on the CPU, on rank 0 only. losses: nats per target of every step made here, first to last."""

    steps: int
    first_step: int
    losses: list[float]
    evaluation: dict[str, float]
    weights: dict[str, torch.Tensor] = field(repr=False)
    tokens: int = 0  # of all steps from the first one of all, over all ranks
    bases: int = 0
    seconds: float = 0.0  # of this call


class Preempted(Exception):
    """SIGTERM or the stop file arrived. Where checkpoints are kept one was written, and the same command goes on from there."""


class NonFiniteLoss(UserError):
    """The loss or the gradient is not a finite number. No checkpoint holds the step. Not worth a retry: it would come again."""


def train(
    objective: Objective,
    ranks: Ranks,
    plan: Plan,
    *,
    checkpoints: Path | None = None,
    remote: Remote | None = None,
    continue_from: Path | None = None,
    metrics: MetricsWriter | None = None,
    say: Callable[[str], None] = print,
) -> Result:
    """Train `objective.model` for `plan.total_steps` optimizer steps. Collective: every rank calls it with the same arguments.

    checkpoints: a folder that all ranks share; training goes on from the newest whole checkpoint in it, and without one from
    `continue_from` (the stable checkpoint of a shorter run), and without that from the model's weights. None: keeps nothing.
    remote: where checkpoints are kept for ranks that share no folder; then `checkpoints` is each machine's own, and so is `continue_from`.
    metrics, say: used on rank 0 only. Raises Preempted, NonFiniteLoss, and UserError where ranks and batch do not fit.
    """
    split = split_batch(plan.batch, ranks.world, plan.micro_batch, where=plan.batch_setting)
    metrics = metrics if metrics and ranks.is_main else MetricsWriter()
    say = say if ranks.is_main else _silent
    ranks.agree({"settings": plan.hash[:12], "steps": plan.total_steps, "code": code_version()})
    store = Checkpoints(checkpoints, ranks, keep=plan.keep_checkpoints, hash=plan.hash, remote=remote, say=say) if checkpoints else None
    start = (store.newest() if store else None) or ranks.on_main(lambda: _continued(continue_from, plan))
    stage = start.zero_stage if start and plan.engine.zero_stage == "auto" else resolve_zero_stage(plan.engine, ranks.world)
    if stage == 3 and ranks.world == 1:
        say(f"WARNING: {objective.name}: ZeRO stage 3 on one rank shares nothing out and costs time; engine.zero_stage=auto takes stage 0")
    engine = Engine(objective.model, ranks, settings=plan.engine, optimizer=plan.optimizer, split=split, zero_stage=stage, seed=plan.seed)
    scratch = checkpoints or (start.path.parent if start else None)
    progress = load(engine, start, ranks, scratch=scratch, shared=remote is None, say=say) if start else Progress()
    if start:
        say(f"{objective.name}: goes on from step {progress.step} of {plan.total_steps} ({start.path.name})")
    metrics.begin(progress.step)
    first, schedule, losses, evaluation, began, speed = progress.step, plan.schedule, [], {}, time.perf_counter(), _speed(plan, ranks)

    with (
        stop_request() as terminated,
        hang_watch(ranks, objective.name, _HANG_SHARE * plan.rank_timeout_seconds) as alive,
        store or nullcontext(),
        _prefetched(objective, ranks, plan, first) as fetch,
    ):
        for step in range(first, plan.total_steps):
            alive(step)
            with speed.waiting():
                batches = fetch(step)
            targets, tokens, bases, positions, padding = ranks.sum(
                [sum(column) for column in zip(*map(objective.size, batches), strict=True)]
            )

            _seed(plan.seed, step, ranks)
            loss_sum = torch.zeros((), device=ranks.device)
            for index, batch in enumerate(batches):
                with out_of_memory_named(objective.name, ranks.device, split.micro_batch):
                    loss = objective.loss(engine, batch, ranks.device)
                    engine.backward(loss, targets)
                loss_sum += loss.detach()
                if index + 1 < len(batches):
                    engine.accumulate()
            loss, preempted = _agree_on_step(ranks, loss_sum.item() / targets, terminated.is_set(), step, objective, store)
            norm = engine.step(schedule.rate(step))
            if not math.isfinite(norm):
                raise _not_finite("gradient", step, objective, "all ranks", store)

            losses.append(loss)
            progress = Progress(step + 1, progress.tokens + int(tokens), progress.bases + int(bases))
            speed.add(tokens=tokens, bases=bases, positions=positions, padding=padding)
            last = progress.step == plan.total_steps
            finished = False
            if last or progress.step % plan.log_every_steps == 0:
                counts = {
                    "tokens": progress.tokens,
                    "bases": progress.bases,
                    "memory_bytes": peak_memory_bytes(ranks.device),
                } | speed.read()
                metrics.write(progress.step, loss=loss, rate=schedule.rate(step), gradient_norm=norm, **counts)
                speed.restart()
            with speed.paused():
                if plan.evaluates_after(progress.step):
                    evaluation = _evaluate(objective, engine, ranks)
                    metrics.write(progress.step, bases=progress.bases, **{f"held_out_{name}": value for name, value in evaluation.items()})
                    finished = getattr(objective, "finished", False)
                if store and plan.keep_stable and progress.step == schedule.decay_start:
                    store.save(engine, progress, stable=True)
                elif store and not (last or finished) and (preempted or progress.step % plan.checkpoint_every_steps == 0):
                    store.save(engine, progress)
            if finished and not last:
                say(f"{objective.name}: ends early, after step {progress.step} of {plan.total_steps}")
                break
            if preempted and not last:
                if store:
                    store.finish()
                kept = "saved; the same command goes on from there" if store else "nothing is kept of it"
                raise Preempted(f"{objective.name}: told to stop after step {progress.step}; {kept}")

    evaluation = evaluation or _evaluate(objective, engine, ranks)  # a run taken up at its end has made no step
    weights = engine.weights()
    engine.close()
    metrics.close()
    return Result(progress.step, first, losses, evaluation, weights, progress.tokens, progress.bases, time.perf_counter() - began)


@contextmanager
def _prefetched(objective: Objective, ranks: Ranks, plan: Plan, first: int) -> Iterator[Callable[[int], Sequence[Any]]]:
    """A function that hands out a step's batches, while a thread makes the next step's."""
    with ThreadPoolExecutor(1, "loader") as loader:

        def submit(step: int) -> Future[Sequence[Any]] | None:
            return loader.submit(objective.batches, step, ranks.rank, ranks.world) if step < plan.total_steps else None

        upcoming = submit(first)

        def fetch(step: int) -> Sequence[Any]:
            nonlocal upcoming
            batches, upcoming = upcoming.result(), submit(step + 1)
            return batches

        yield fetch


def _speed(plan: Plan, ranks: Ranks) -> Throughput:
    return Throughput(flops_per_token=plan.flops_per_token, peak_flops=plan.peak_flops * ranks.world)


def _silent(line: str) -> None:
    """For ranks other than the main one."""


def _continued(path: Path | None, plan: Plan) -> Checkpoint | None:
    """The stable checkpoint of a shorter run, where this run's rate is still constant at its step."""
    if path is None:
        return None
    checkpoint = read_checkpoint(path)
    if checkpoint.progress.step > plan.schedule.decay_start:
        raise UserError(
            "the run to continue has made more steps than this one makes before its decay",
            where=path,
            got=f"{checkpoint.progress.step} steps",
            expected=f"at most {plan.schedule.decay_start}",
            hint="give the longer run a larger budget",
        )
    return checkpoint


def _agree_on_step(
    ranks: Ranks, loss: float, terminated: bool, step: int, objective: Objective, store: Checkpoints | None
) -> tuple[float, bool]:
    """One exchange before the optimizer step: the global loss, and whether any rank was told to stop. Raises NonFiniteLoss on all,
    and UserError where no checkpoint could be written.
    """
    finite = math.isfinite(loss)
    flags = [float(rank == ranks.rank and not finite) for rank in range(ranks.world)]
    unsaved = float(store is not None and store.failed)
    loss, stopped, unsaved, *bad = ranks.sum([loss if finite else 0.0, float(terminated), unsaved, *flags])
    if store and unsaved:
        store.finish()
    if any(bad):
        culprits = ", ".join(f"rank {rank}" for rank, flag in enumerate(bad) if flag)
        raise _not_finite("loss", step, objective, culprits, store)
    return loss, stopped > 0


def _not_finite(what: str, step: int, objective: Objective, culprits: str, store: Checkpoints | None) -> NonFiniteLoss:
    kept = store.names() if store else []
    return NonFiniteLoss(
        f"the {what} is not a finite number; training stopped and no checkpoint holds the step",
        where=f"{objective.name}, step {step + 1}, {culprits}",
        got=f"last good checkpoint: {kept[-1] if kept else 'none'}",
        hint="lower the learning rate (optimizer.learning_rate), or set engine.precision=fp32",
    )


def _evaluate(objective: Objective, engine: Engine, ranks: Ranks) -> dict[str, float]:
    engine.train(False)
    with torch.no_grad():
        evaluation = dict(objective.evaluate(engine, ranks))
    engine.train()
    return evaluation


def _seed(seed: int, step: int, ranks: Ranks) -> None:
    """Dropout of a step depends on nothing before it, so that a resumed run drops what the uninterrupted one drops."""
    number = int.from_bytes(hashlib.blake2b(f"{seed}/{step}/{ranks.rank}".encode(), digest_size=7).digest())
    torch.default_generator.manual_seed(number)  # torch.manual_seed visits every kind of device, for milliseconds
    if ranks.device.type == "cuda":
        torch.cuda.manual_seed(number)
