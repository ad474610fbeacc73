"""Passes of the analyses on Ray: each part is a task, and what the tasks return is added as it comes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray.exceptions import RayTaskError

from grover_dist.errors import UserError


def add_on_ray(function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]], *, cpus: float = 1.0, gpus: float = 0.0) -> Any:
    """The sum of `function(*line)` over all lines; a lost worker's part is made again. The driver holds two summands at a time.

    UserErrors come back as they were raised. Needs a Ray session.
    """
    task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=2)(function)
    waiting, total = [task.remote(*line) for line in arguments], None
    while waiting:
        done, waiting = ray.wait(waiting, num_returns=1)
        try:
            part = ray.get(done[0])
        except RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise error.cause from None
            raise
        total = part if total is None else total + part
    return total
