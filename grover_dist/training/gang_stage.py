"""A stage that several ranks work on and the main rank writes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

from grover_dist.config import settings_hash
from grover_dist.errors import UserError
from grover_dist.run_dir import Artifact, RunDir, Work, read_artifact
from grover_dist.training.ranks import Ranks, code_version


def once_in_gang(
    run: RunDir,
    ranks: Ranks,
    stage: str,
    name: str,
    write: Callable[[Work], None],
    *,
    settings: Any,
    inputs: Mapping[str, Artifact],
    resumable: bool = False,
    say: Callable[[str], None],
) -> Artifact:
    """`RunDir.once` for a gang. Every rank calls `write(work)` with the same `work.path`; only the main rank may write in it, and what it
    puts into `work.counts` is published. Without a disk that the ranks share, for a run in an object store, each machine has a folder of
    its own under that path, and the artefact that is returned. UserError, on every rank, where their settings, their code or the inputs
    that they see differ.
    """
    seen = {f"input '{key}'": _seen(artifact) for key, artifact in inputs.items()}
    ranks.agree({"settings": settings_hash(settings)[:12], "code": code_version(), **seen})
    found = ranks.on_main(lambda: run.find(stage, name, settings=settings, inputs=inputs))
    if found is not None:
        if ranks.is_main:
            say(f"{stage} {name}: complete already, skipped ({found.path.name})")
        return run.here(found)
    with ExitStack() as stack:
        held: list[Work] = []

        def begin() -> Work:
            held.append(stack.enter_context(run.begin(stage, name, settings=settings, inputs=inputs, resumable=resumable)))
            return held[0]

        shared = ranks.on_main(begin)
        write(held[0] if held else shared)
        ranks.on_main(stack.close)
    if run.remote is not None:  # what ranks on other machines wrote is complete in the object store
        shutil.rmtree(shared.path, ignore_errors=True)
    return run.here(ranks.on_main(lambda: run.find(stage, name, settings=settings, inputs=inputs)))


def _seen(artifact: Artifact) -> str:
    """What this rank's own host holds under the path that the main rank has found."""
    try:
        return read_artifact(artifact.path).digest[:12]
    except UserError as fault:
        return f"not readable: {fault.what}"
