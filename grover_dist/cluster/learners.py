"""The learner on Ray: one actor holds a stretch of the genome; a lost one is made again and brought up to date by replay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from grover_dist.bpe.learn import WorkerLost
from grover_dist.cluster.session import Room
from grover_dist.config import Config
from grover_dist.corpus.build import PartitionWorker, build_corpus
from grover_dist.errors import UserError
from grover_dist.remote import Remote
from grover_dist.run_dir import Artifact, RunDir


class LearnerActor:
    """A PartitionWorker that is opened by its first call: what fails then comes back as that call's error, with its words, while a
    constructor that fails looks like a lost actor.
    """

    def __init__(self, run: RunDir, genome: Artifact, *arguments: Any) -> None:
        self._run, self._genome, self._arguments = run, genome, arguments
        self._worker: PartitionWorker | None = None

    def _open(self) -> PartitionWorker:
        if self._worker is None:
            self._worker = PartitionWorker(str(self._run.here(self._genome).path), *self._arguments)
        return self._worker

    def start(self) -> bytes:
        return self._open().start()

    def round(self, message: bytes) -> bytes:
        return self._open().round(message)

    def replay(self, messages: list[bytes]) -> bytes:
        return self._open().replay(messages)

    def write_parts(self, folder: str, metadata: dict[str, Any]) -> dict[str, None]:
        return self._open().write_parts(folder, metadata)

    def upload_parts(self, remote: Remote, metadata: dict[str, Any]) -> dict[str, dict[str, Any]]:
        return self._open().upload_parts(remote, metadata)


def learn_on_ray(config: Config, run: RunDir, genome: Artifact, room: Room, say: Callable[[str], None]) -> Artifact:
    """Stage "learn" with its partitions in Ray actors: by default one for each node with the node's cores as threads, and two at
    the least where there are two cores.
    """
    wanted = config.resources.bpe_actors
    actors = max(room.nodes, min(2, int(room.cpus))) if wanted == "auto" else wanted
    actors = max(1, min(actors, int(room.cpus)))
    threads = max(1, int(room.cpus) // actors)
    actor_class = ray.remote(num_cpus=threads, scheduling_strategy="SPREAD")(LearnerActor)
    handles: list[Any] = []

    where = run.absolute()
    source = replace(genome, path=genome.path.resolve())

    def make_workers(_genome_path: str, row_ranges: Sequence[tuple[int, int]]) -> list[Any]:
        made = [actor_class.remote(where, source, start, stop, threads, config.resources.bpe_memory) for start, stop in row_ranges]
        handles.extend(made)
        return made

    say(f"learn: {actors} Ray actors of {threads} thread{'s' if threads > 1 else ''}")
    try:
        return build_corpus(config, run, genome, n_workers=actors, make_workers=make_workers, call=call_actors, say=say)
    finally:
        for handle in handles:
            ray.kill(handle)


def call_actors(workers: Sequence[Any], method: str, args: Sequence[tuple]) -> list[Any]:
    """Call `method` of every actor at once; replies in their order. Raises WorkerLost with the places of dead actors."""
    references = [getattr(worker, method).remote(*arguments) for worker, arguments in zip(workers, args, strict=True)]
    replies, lost = [], []
    for index, reference in enumerate(references):
        try:
            replies.append(ray.get(reference))
        except RayActorError:
            lost.append(index)
        except RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise error.cause from None
            raise
    if lost:
        raise WorkerLost(*lost)
    return replies
