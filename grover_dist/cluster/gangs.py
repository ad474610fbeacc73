"""Run a plain function on Ray: in one worker (`run_task`), or in a gang of ranks that Ray Train keeps together (`run_gang`).

The function is named by its import path, so that the driver never imports torch. It is called as
`function(config, run, say=say, **arguments)`, and in a gang also with `ranks=Ranks`.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import ray

from grover_dist.config import Config, ResourceSettings, settings_hash
from grover_dist.errors import UserError
from grover_dist.run_dir import Artifact, RunDir, read_artifact, write_atomically


@dataclass(frozen=True)
class Call:
    """A function by import path with its arguments; what travels to a worker."""

    function: str  # "package.module:name"
    config: Config
    run_path: str
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
        run = RunDir(Path(self.run_path))
        return getattr(import_module(module), attribute)(self.config, run, say=log_writer(run, self.name), **self.arguments, **more)


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
        return ray.get(task.remote(call))
    except ray.exceptions.RayTaskError as error:
        raise _cause(error) from error


def _invoke(call: Call) -> Any:
    return call.invoke()


def run_gang(call: Call, resources: ResourceSettings) -> dict[str, Artifact]:
    """Run in `ranks_per_candidate` ranks that share a torch process group. Returns the artefacts by name.

    A rank that dies takes the gang down; Ray Train starts it again at most `max_failures` times, and the function
    goes on from its last checkpoint. A UserError is not retried. A gang whose outcome is known and whose artefacts are
    whole is not started: processes that import torch and DeepSpeed are the dearest way to find that nothing is to be done.
    """
    outcome_path = Path(call.run_path) / "logs" / "outcomes" / f"{call.name}-{call.key[:8]}.json"
    known = _read_outcome(outcome_path, call.key)
    if known is not None:
        return known
    outcome_path.unlink(missing_ok=True)
    outcome_path.parent.mkdir(parents=True, exist_ok=True)
    _fit(call, resources, outcome_path)
    found = _read_outcome(outcome_path, call.key)
    if found is None:
        raise UserError(
            f"'{call.name}' ended without a result",
            where=outcome_path,
            hint="the run's folder must be on storage that every node shares; set run.dir to such a folder",
        )
    return found


def _fit(call: Call, resources: ResourceSettings, outcome_path: Path) -> None:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    gpu = resources.gpus_per_rank > 0
    per_rank = {"CPU": resources.cpus_per_rank, **({"GPU": resources.gpus_per_rank} if gpu else {})}
    trainer = TorchTrainer(
        _rank_main,
        train_loop_config={"call": call, "outcome_path": str(outcome_path)},
        torch_config=TorchConfig(backend="nccl" if gpu else "gloo", timeout_s=resources.rank_timeout_seconds),
        scaling_config=ScalingConfig(num_workers=resources.ranks_per_candidate, use_gpu=gpu, resources_per_worker=per_rank),
        # A name is never used twice: Ray Train would take up the earlier run's state, and ours is in the run folder.
        run_config=RunConfig(
            name=f"{call.name}-{uuid.uuid4().hex[:12]}",
            storage_path=str(Path(call.run_path) / "logs" / "ray-train"),
            failure_config=FailureConfig(max_failures=resources.max_failures),
        ),
    )
    trainer.fit()


def _read_outcome(path: Path, key: str) -> dict[str, Artifact] | None:
    """The artefacts of a gang's outcome, if it is of this call and they are whole. Raises the UserError that a gang ended with."""
    try:
        outcome = json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    if outcome["key"] != key:
        return None
    if "user_error" in outcome:
        path.unlink()  # told once; the next start tries again
        raise UserError(**outcome["user_error"])
    try:
        return {name: read_artifact(Path(artifact)) for name, artifact in outcome["artifacts"].items()}
    except UserError:
        return None


def _rank_main(payload: Mapping[str, Any]) -> None:
    """What each rank runs. Only the main rank leaves an outcome, written whole or not at all."""
    if payload["call"].config.resources.gpus_per_rank == 0:
        os.environ["DS_ACCELERATOR"] = "cpu"
    from grover_dist.training.ranks import Ranks

    call: Call = payload["call"]
    resources = call.config.resources
    ranks = Ranks.join(timeout_seconds=resources.rank_timeout_seconds, threads=max(1, int(resources.cpus_per_rank)))
    try:
        artifacts = call.invoke(ranks=ranks)
        outcome: dict[str, Any] = {"key": call.key, "artifacts": {name: str(artifact.path) for name, artifact in artifacts.items()}}
    except UserError as error:
        fields = {"what": error.what, "where": error.where, "got": error.got, "expected": error.expected, "hint": error.hint}
        outcome = {"key": call.key, "user_error": {key: None if value is None else str(value) for key, value in fields.items()}}
        # Every rank meets a fault of the settings or the input; one is enough to tell it.
        write_atomically(Path(payload["outcome_path"]), json.dumps(outcome).encode())
        return
    if ranks.is_main:
        write_atomically(Path(payload["outcome_path"]), json.dumps(outcome).encode())


def _cause(error: ray.exceptions.RayTaskError) -> BaseException:
    cause = error.cause if isinstance(getattr(error, "cause", None), BaseException) else error
    return cause if isinstance(cause, UserError) else error
