"""Passes of the analyses on Ray: each part is a task, and what the tasks return is added in the order of the parts."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray.exceptions import RayTaskError

from grover_dist.config import Config
from grover_dist.errors import UserError
from grover_dist.run_dir import Artifact, RunDir


def add_on_ray(function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]], *, cpus: float = 1.0, gpus: float = 0.0) -> Any:
    """The sum of `function(*line)` over all lines, from the first to the last; a lost worker's part is made again.

    UserErrors come back as they were raised. Needs a Ray session, and may itself run in a Ray task, whose CPU is free while it waits.
    """
    task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=2)(function)
    waiting, total = [task.remote(*line) for line in arguments], None
    while waiting:
        try:
            part = ray.get(waiting.pop(0))
        except RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise error.cause from None
            raise
        total = part if total is None else total + part
    return total


def analyze_on_ray(config: Config, run: RunDir, corpus: Artifact, pretrained: Artifact, **arguments: Any) -> Artifact:
    """The analysis stage, with the passes of the models spread over the cluster."""
    from grover_dist.analysis.embeddings import analyze

    artifacts = [corpus, pretrained, *(value for value in arguments.values() if isinstance(value, Artifact))]

    def spread(function: Callable[..., Any], lines: Sequence[tuple[Any, ...]]) -> Any:
        # Packed: an open corpus can be unpacked only where its files are.
        packed = [(run, artifacts, function, pickle.dumps(line)) for line in lines]
        return add_on_ray(_call_beside_files, packed, gpus=config.resources.gpus_per_rank)

    return analyze(config, run, corpus, pretrained, map_parts=spread, **arguments)


def _call_beside_files(run: RunDir, artifacts: Sequence[Artifact], function: Callable[..., Any], line: bytes) -> Any:
    for artifact in artifacts:
        run.here(artifact)  # copied to this machine, for a run in an object store
    return function(*pickle.loads(line))
