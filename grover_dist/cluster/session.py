"""Connect to Ray: the cluster that the settings or RAY_ADDRESS name, else a local one that ends with this process."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

# Read by Ray when it is imported: no usage report, no working folder of its own for training workers, no warning
# about a future default of accelerator variables.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")

import ray

from grover_dist.config import ResourceSettings
from grover_dist.errors import UserError


@dataclass(frozen=True)
class Room:
    """What the cluster has for us."""

    nodes: int
    cpus: float
    gpus: float


@contextmanager
def ray_session(resources: ResourceSettings) -> Iterator[Room]:
    """A connection to Ray for the time of a command. Nested use keeps the outer connection.

    Raises UserError where a named cluster does not answer.
    """
    if ray.is_initialized():
        yield current_room()
        return
    address = resources.ray_address or os.environ.get("RAY_ADDRESS")
    if address is None:
        # Set in words: a local Ray would otherwise write a token into the home folder and change the mode of later ones.
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    try:
        ray.init(
            address=address or "local",
            include_dashboard=None if address else False,
            log_to_driver=False,
            logging_level=logging.WARNING,
            configure_logging=True,
            runtime_env={"env_vars": _worker_environment()},
        )
    except (ConnectionError, TimeoutError, RuntimeError, ValueError) as error:
        raise UserError(
            "Ray does not answer",
            where=f"address {address or 'local'}",
            got=" ".join(str(error).split())[:300],
            hint="start it with `ray start --head`, or unset RAY_ADDRESS and resources.ray_address to use a local one",
        ) from error
    try:
        yield current_room()
    finally:
        ray.shutdown()


def current_room() -> Room:
    """Of the cluster as it is now: nodes join and leave."""
    total = ray.cluster_resources()
    return Room(nodes=sum(node["Alive"] for node in ray.nodes()), cpus=total.get("CPU", 0.0), gpus=total.get("GPU", 0.0))


def _worker_environment() -> dict[str, str]:
    """Variables that change how a worker computes; they must be the same wherever it starts."""
    kept = ("DS_ACCELERATOR", "OMP_NUM_THREADS", "NUMBA_CACHE_DIR", "TOKENIZERS_PARALLELISM")
    return {"TOKENIZERS_PARALLELISM": "false", **{key: os.environ[key] for key in kept if key in os.environ}}
