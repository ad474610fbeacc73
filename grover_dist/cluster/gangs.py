"""Run a plain function on Ray: in one worker (`run_task`), or in a gang of ranks (`run_gang`), which Ray Train keeps together where it
has more than one.

The function is named by its import path, so that the driver never imports torch. It is called as
`function(config, run, say=say, **arguments)`, and in a gang also with `ranks=Ranks`.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import ray

from grover_dist.cluster.gauges import exported
from grover_dist.config import Config, ResourceSettings, settings_hash
from grover_dist.errors import UserError
from grover_dist.run_dir import Artifact, RunDir
from grover_dist.training.notice import at_work, stop_file


@dataclass(frozen=True)
class Call:
    """A function by import path with its arguments; what travels to a worker."""

    function: str  # "package.module:name"
    config: Config
    run: RunDir
    name: str  # of the log that its words go to
    arguments: Mapping[str, Any]

    @property
    def key(self) -> str:
        """Names what is called on what, whatever the resources and wherever the run's folder is."""
        settings = self.config.model_dump(mode="json", exclude={"run", "resources", "tracking"})
        arguments = {name: value.digest if isinstance(value, Artifact) else value for name, value in self.arguments.items()}
        return settings_hash({"function": self.function, "settings": settings, "arguments": arguments})

    def invoke(self, **more: Any) -> Any:
        module, _, attribute = self.function.partition(":")
        arguments = _on_this_machine(self.run, self.arguments)
        try:
            function = getattr(import_module(module), attribute)
            return function(self.config, self.run, say=log_writer(self.run, self.name), **arguments, **more)
        finally:
            if "ranks" not in more or more["ranks"].is_main:
                with suppress(UserError):  # nothing depends on the logs
                    self.run.copy_logs()


def _on_this_machine(run: RunDir, value: Any) -> Any:
    """The same arguments, with every artefact among them where this machine can read it."""
    if isinstance(value, Artifact):
        return run.here(value)
    if isinstance(value, Mapping):
        return {key: _on_this_machine(run, item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_on_this_machine(run, item) for item in value)
    return value


def log_writer(run: RunDir, name: str) -> Callable[[str], None]:
    """Words of a worker go to a file of its own, which the driver follows (see console.py)."""
    path = run.logs / f"{name}.log"

    def say(line: str) -> None:
        with open(path, "a", encoding="utf-8") as handle:
            handle.write(line.rstrip("\n") + "\n")

    return say


def run_task(call: Call, *, cpus: float = 1.0) -> Any:
    """Run in one Ray worker and return what the function returns."""
    task = ray.remote(num_cpus=cpus, max_retries=2, retry_exceptions=False)(_invoke)
    try:
        return _on_this_machine(call.run, ray.get(task.remote(call)))
    except ray.exceptions.RayTaskError as error:
        raise _cause(error) from error


def _invoke(call: Call) -> Any:
    return call.invoke()


def run_gang(call: Call, resources: ResourceSettings) -> dict[str, Artifact]:
    """Run in `ranks_per_candidate` ranks that share a torch process group. Returns the artefacts by name.

    A rank that dies takes the gang down; Ray starts it again at most `max_failures` times, and the function
    goes on from its last checkpoint. With `min_ranks_per_candidate`, a gang that lost a node goes on with the ranks for which there is
    room, and grows again when there is more; the global batch stays the same. A gang whose machine is about to go (see
    training/notice.py) writes a checkpoint and starts again where there is room. A UserError is not retried. A gang whose outcome is
    known and whose artefacts are whole is not started: processes that import torch and DeepSpeed are the dearest way to find that
    nothing is to be done.
    """
    note = f"outcomes/{call.name}-{call.key[:8]}.json"
    known = _read_outcome(call, note)
    if known is not None:
        return known
    call.run.drop_note(note)
    run_ranks = _run_alone if resources.ranks_per_candidate == 1 else _run_together
    while True:
        run_ranks(call, resources, note)
        if not _was_preempted(call, note):
            break
        if (file := stop_file()) is not None and file.exists():
            raise UserError(f"'{call.name}' was told to stop, and so was this job", where=file, hint="the same command goes on from there")
        log_writer(call.run, call.name)("starts again where there is room")
    found = _read_outcome(call, note)
    if found is None:
        raise UserError(
            f"'{call.name}' ended without a result",
            where=f"{call.run.address}/logs/{note}",
            hint="the run's folder must be on storage that every node shares; set run.dir to such a folder, or to s3://bucket/prefix",
        )
    return found


def _was_preempted(call: Call, note: str) -> bool:
    """Whether the gang stopped since a machine of its was about to go; it kept a checkpoint, and that is no failure."""
    try:
        preempted = "preempted" in json.loads(call.run.read_note(note) or b"")
    except json.JSONDecodeError:
        return False
    if preempted:
        call.run.drop_note(note)
    return preempted


def _run_alone(call: Call, resources: ResourceSettings, note: str) -> None:
    """A gang of one needs no rendezvous: a task, in a worker that may have imported torch and DeepSpeed for an earlier one. Ray Train
    would start five more processes for it, which cost more than the rank's own start. On a GPU Ray gives each its own process.
    """
    rank = ray.remote(
        num_cpus=resources.cpus_per_rank, num_gpus=resources.gpus_per_rank, max_retries=resources.max_failures, retry_exceptions=True
    )(_rank_main)
    ray.get(rank.remote({"call": call, "note": note}))


def _run_together(call: Call, resources: ResourceSettings, note: str) -> None:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    gpu = resources.gpus_per_rank > 0
    per_rank = {"CPU": resources.cpus_per_rank, **({"GPU": resources.gpus_per_rank} if gpu else {})}
    remote = call.run.remote
    fewest = resources.min_ranks_per_candidate or resources.ranks_per_candidate
    elastic = fewest < resources.ranks_per_candidate
    trainer = TorchTrainer(
        _rank_main,
        train_loop_config={"call": call, "note": note},
        torch_config=TorchConfig(backend="nccl" if gpu else "gloo", timeout_s=resources.rank_timeout_seconds),
        scaling_config=ScalingConfig(
            num_workers=(fewest, resources.ranks_per_candidate) if elastic else resources.ranks_per_candidate,
            elastic_resize_monitor_interval_s=resources.resize_check_seconds,
            use_gpu=gpu,
            resources_per_worker=per_rank,
        ),
        # A name is never used twice: Ray Train would take up the earlier run's state, and ours is in the run folder.
        run_config=RunConfig(
            name=f"{call.name}-{uuid.uuid4().hex[:12]}",
            storage_path=f"{remote.path if remote else call.run.path}/logs/ray-train",
            storage_filesystem=remote.filesystem if remote else None,
            failure_config=FailureConfig(max_failures=resources.max_failures),
        ),
    )
    trainer.fit()


def _read_outcome(call: Call, note: str) -> dict[str, Artifact] | None:
    """The artefacts of a gang's outcome, if it is of this call and they are whole. Raises the UserError that a gang ended with."""
    try:
        outcome = json.loads(call.run.read_note(note) or b"")
    except json.JSONDecodeError:
        return None
    if outcome["key"] != call.key or "preempted" in outcome:
        return None
    if "user_error" in outcome:
        call.run.drop_note(note)  # told once; the next start tries again
        raise UserError(**outcome["user_error"])
    try:
        found = {name: call.run.at(artifact) for name, artifact in outcome["artifacts"].items()}
    except UserError:
        return None
    return None if None in found.values() else found


def _rank_main(payload: Mapping[str, Any]) -> None:
    with at_work():
        _work_as_rank(payload)


def _work_as_rank(payload: Mapping[str, Any]) -> None:
    """What each rank runs. Only the main rank leaves an outcome, written whole or not at all."""
    if payload["call"].config.resources.gpus_per_rank == 0:
        os.environ["DS_ACCELERATOR"] = "cpu"
    from grover_dist.training.loop import Preempted
    from grover_dist.training.ranks import Ranks, usable_ranks

    call: Call = payload["call"]
    resources = call.config.resources
    ranks = Ranks.join(timeout_seconds=resources.rank_timeout_seconds, threads=max(1, int(resources.cpus_per_rank)))
    if ranks.world < resources.ranks_per_candidate:
        # Ray offers any number of ranks between the bounds; those that cannot take an even share of the batches sit this round out.
        ranks = ranks.first(usable_ranks(ranks.world, _batches(call.config)))
        if ranks is None:
            return
    try:
        with exported(call.run, call.name) if ranks.is_main else nullcontext():
            artifacts = call.invoke(ranks=ranks)
        names = {name: f"{artifact.path.parent.name}/{artifact.path.name}" for name, artifact in artifacts.items()}
        outcome: dict[str, Any] = {"key": call.key, "artifacts": names}
    except UserError as error:
        fields = {"what": error.what, "where": error.where, "got": error.got, "expected": error.expected, "hint": error.hint}
        outcome = {"key": call.key, "user_error": {key: None if value is None else str(value) for key, value in fields.items()}}
        # Every rank meets a fault of the settings or the input; one is enough to tell it.
        call.run.write_note(payload["note"], json.dumps(outcome).encode())
        return
    except Preempted as stopped:
        outcome = {"key": call.key, "preempted": str(stopped)}
        if ranks.is_main:
            log_writer(call.run, call.name)(str(stopped))
    if ranks.is_main:
        call.run.write_note(payload["note"], json.dumps(outcome).encode())


def _batches(config: Config) -> list[int]:
    """Samples in a step of everything that a gang trains."""
    heads = [config.selection.head, *(task.head for task in config.finetune.tasks)]
    return [config.pretrain.batch_windows, *(head.batch_sequences for head in heads)]


def _cause(error: ray.exceptions.RayTaskError) -> BaseException:
    cause = error.cause if isinstance(getattr(error, "cause", None), BaseException) else error
    return cause if isinstance(cause, UserError) else error
