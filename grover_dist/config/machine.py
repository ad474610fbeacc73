"""Where a run is, where it computes, and who watches."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from grover_dist.config.section import Section

S3Url = Annotated[str, Field(pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/[^/?#]+(/[^/?#]+)*/?$")]
DEFAULT_CACHE = Path("~/.cache/grover_dist")


class RunSettings(Section):
    """Where a run is: a folder that every node sees, or `s3://bucket/prefix`, with a copy of what each machine needs below `cache`.

    `cache` is the same path on every machine; a leading ~ is each machine's own home folder.
    """

    name: str = "run"
    dir: Annotated[S3Url | Path, Field(union_mode="left_to_right")] = Path("runs/run")
    cache: Path = DEFAULT_CACHE

    @field_validator("dir", mode="after")
    @classmethod
    def _known_place(cls, place: str | Path) -> str | Path:
        if isinstance(place, Path) and re.match(r"[a-z0-9+.-]+:/", str(place)):
            raise ValueError(f"a run is in a folder or in s3://bucket/prefix, and '{place}' is neither")
        return place


class ResourceSettings(Section):
    """Where and how wide. Never changes a result, so it is left out of every hash."""

    ray_address: str | None = None  # None: the cluster that RAY_ADDRESS names, else a local one
    bpe_actors: int | Literal["auto"] = "auto"
    bpe_memory: Literal["auto", "fast", "lean"] = "auto"
    ranks_per_candidate: int = Field(1, ge=1)
    min_ranks_per_candidate: int | None = Field(None, ge=1)  # on Ray, after a node is lost, go on with as few; None: wait for all
    resize_check_seconds: float = Field(60.0, ge=1)  # how often a gang that lost ranks looks for room to grow again
    cpus_per_rank: float = Field(1.0, gt=0)
    gpus_per_rank: float = Field(0.0, ge=0)
    # auto: as many ranks for each candidate as make the whole sweep end earliest, in the place of ranks_per_candidate. Ranks without GPUs
    # are packed in the same way. A number of GPUs must be a multiple of gpus_per_rank.
    gpus_per_candidate: int | Literal["auto"] | None = None
    scaling_efficiency: Annotated[float, Field(gt=0.5, le=1.0)] = 0.95  # of each doubling of a candidate's ranks; what `auto` reckons with
    candidates_at_once: int | Literal["auto"] = "auto"
    max_failures: int = Field(2, ge=0)
    rank_timeout_seconds: int = Field(1_800, ge=10)  # a step, an evaluation or a checkpoint that takes longer is a hang
    start_timeout_seconds: int = Field(300, ge=10)  # how long the first ranks of a launch wait for the last one
    wait_for_room_minutes: float = Field(0.0, ge=0)  # for nodes that are still to join, before a gang larger than the cluster is refused
    prices: Path | None = None  # a price table of your own for `plan`, with the keys of grover_dist/cluster/prices.yaml

    @model_validator(mode="after")
    def _gpus(self) -> ResourceSettings:
        wanted = self.gpus_per_candidate
        if isinstance(wanted, int):
            ranks = wanted / self.gpus_per_rank if self.gpus_per_rank else 0.0
            if ranks < 1 or ranks != int(ranks):
                raise ValueError(f"gpus_per_candidate {wanted} is not a multiple of gpus_per_rank {self.gpus_per_rank:g}")
            if self.ranks_per_candidate not in (1, int(ranks)):
                raise ValueError(
                    f"gpus_per_candidate {wanted} makes {int(ranks)} ranks, and ranks_per_candidate is {self.ranks_per_candidate}"
                )
            object.__setattr__(self, "ranks_per_candidate", int(ranks))
        return self

    @model_validator(mode="after")
    def _minimum(self) -> ResourceSettings:
        if self.min_ranks_per_candidate is not None and self.min_ranks_per_candidate > self.ranks_per_candidate:
            raise ValueError(
                f"min_ranks_per_candidate {self.min_ranks_per_candidate} is above ranks_per_candidate {self.ranks_per_candidate}"
            )
        return self

    def with_ranks(self, ranks: int) -> ResourceSettings:
        """The same for a candidate of `ranks` ranks."""
        fewest = None if self.min_ranks_per_candidate is None else min(self.min_ranks_per_candidate, ranks)
        return self.model_copy(update={"ranks_per_candidate": ranks, "min_ranks_per_candidate": fewest, "gpus_per_candidate": None})

    def ranks_in(self, cpus: float, gpus: float) -> int:
        """How many ranks find room at once."""
        by_cpus = math.floor(cpus / self.cpus_per_rank + 1e-9)
        return min(by_cpus, math.floor(gpus / self.gpus_per_rank + 1e-9)) if self.gpus_per_rank else by_cpus


class TrackingSettings(Section):
    tensorboard: bool = True
    mlflow: str | None = None  # tracking URI, like sqlite:////shared/mlflow.db or https://host; needs the extra `tracking`
    wandb: Literal["offline", "online"] | None = None  # Weights & Biases; needs the extra `tracking`
    # Operations a second of one rank, over which MFU is told. auto: the maker's bf16 figure of a known GPU, else measured at the start.
    peak_flops: Annotated[float, Field(gt=0)] | Literal["auto"] = "auto"
    log_every_steps: int = Field(10, ge=1)
