"""Checkpoints of a training run: whole folders, each with a JSON written last, so that a part is never taken for the whole.

step-00000100/checkpoint.json     step, counts, ranks, ZeRO stage, settings hash; size and checksum of each file
step-00000100/state/              DeepSpeed's own files; private to the run, read only from the run's own folder
stable-00000080/                  the same, before the learning rate's decay; kept for a longer run to go on from
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from grover_dist.errors import UserError
from grover_dist.run_dir import write_atomically
from grover_dist.training.engine import Engine
from grover_dist.training.ranks import Ranks

DESCRIPTION = "checkpoint.json"
_STATE, _UNIVERSAL = "state", "universal"


@dataclass(frozen=True)
class Progress:
    """Where a run stands. `step` optimizer steps have been made; tokens and bases were shown to all ranks together."""

    step: int = 0
    tokens: int = 0
    bases: int = 0


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint on the disk."""

    path: Path
    progress: Progress
    world: int
    zero_stage: int
    hash: str


class Checkpoints:
    """The checkpoints of one run, in one folder that all ranks share. Methods are collective unless they say otherwise."""

    def __init__(self, folder: Path, ranks: Ranks, *, keep: int, hash: str, say: Callable[[str], None] = print) -> None:
        self.folder, self._ranks, self._keep, self._hash, self._say = folder, ranks, keep, hash, say
        if ranks.is_main:
            folder.mkdir(parents=True, exist_ok=True)

    def newest(self) -> Checkpoint | None:
        """The newest whole checkpoint. One that was cut short or altered is passed over, which is said."""
        return self._ranks.on_main(self._newest)

    def _newest(self) -> Checkpoint | None:
        for name in reversed(self.names()):
            try:
                found = read_checkpoint(self.folder / name)
            except UserError as fault:
                self._say(f"checkpoint {name} is passed over, the one before it is used. {fault}")
                continue
            if found.hash != self._hash:
                raise UserError(
                    "the checkpoint belongs to other settings",
                    where=found.path,
                    got=found.hash[:12],
                    expected=self._hash[:12],
                    hint="delete the checkpoint folder, or restore the settings that it was written with",
                )
            return found
        return None

    def names(self) -> list[str]:
        """Of the checkpoints on the disk, oldest first. Not collective."""
        return [path.name for path in sorted(self.folder.glob("s*-????????"), key=lambda path: path.name[-8:])]

    def save(self, engine: Engine, progress: Progress, *, stable: bool = False) -> None:
        """Write `step-N` (or `stable-N`, never removed here), then remove the oldest beyond `keep`."""
        final = self.folder / f"{'stable' if stable else 'step'}-{progress.step:08d}"
        partial = final.with_name(f".{final.name}.partial")
        if not self._ranks.on_main(lambda: self._room_for(engine, final)):
            return
        self._ranks.on_main(lambda: _fresh(partial))
        engine.save(partial, _STATE)
        self._ranks.barrier()
        self._ranks.on_main(lambda: self._publish(partial, final, progress, engine.zero_stage))

    def _publish(self, partial: Path, final: Path, progress: Progress, zero_stage: int) -> None:
        description = {
            **asdict(progress),
            "world": self._ranks.world,
            "zero_stage": zero_stage,
            "hash": self._hash,
            "files": {str(path.relative_to(partial)): _describe(path) for path in sorted(partial.rglob("*")) if path.is_file()},
        }
        write_atomically(partial / DESCRIPTION, json.dumps(description, indent=1).encode())
        shutil.rmtree(final, ignore_errors=True)
        os.replace(partial, final)
        for old in sorted(self.folder.glob("step-????????"))[: -self._keep]:
            shutil.rmtree(old)

    def _room_for(self, engine: Engine, final: Path) -> bool:
        """Whether the disk holds one more. If not: said, and training goes on while an older one is left."""
        # Weights once in the model's file, and weights and two moments in the optimizer's, four bytes each.
        needed = 16 * sum(getattr(parameter, "ds_numel", parameter.numel()) for parameter in engine.module.parameters())
        free = shutil.disk_usage(self.folder).free
        if free > needed:
            return True
        if not self.names():
            raise UserError(
                "there is no room for a checkpoint and none to fall back on",
                where=self.folder,
                got=f"{free:,} bytes free",
                expected=f"{needed:,} bytes",
                hint="free some space and run the same command again",
            )
        self._say(f"WARNING: no room for {final.name} ({free:,} bytes free, {needed:,} needed); the older checkpoint stays")
        return False


def load(engine: Engine, checkpoint: Checkpoint, ranks: Ranks, *, scratch: Path, say: Callable[[str], None] = print) -> Progress:
    """Set the engine to the checkpoint. Another number of ranks goes through DeepSpeed's universal form, made for the moment in the
    folder `scratch`, which all ranks share. Collective.
    """
    if engine.zero_stage != checkpoint.zero_stage:
        raise UserError(
            "a run keeps its ZeRO stage",
            where=f"engine.zero_stage; {checkpoint.path}",
            got=engine.zero_stage,
            expected=checkpoint.zero_stage,
            hint="set engine.zero_stage to the checkpoint's stage, or to auto",
        )
    if checkpoint.world == ranks.world or checkpoint.zero_stage == 0:
        engine.load(checkpoint.path, _STATE)
        return checkpoint.progress
    universal = scratch / f".{checkpoint.path.name}.{_UNIVERSAL}"

    def convert() -> None:
        say(f"checkpoint of {checkpoint.world} ranks is converted for {ranks.world}")
        _fresh(universal)
        _convert(checkpoint.path / _STATE, universal / _UNIVERSAL)

    ranks.on_main(convert)
    engine.load(universal, _UNIVERSAL, universal=True)
    ranks.barrier()
    ranks.on_main(lambda: shutil.rmtree(universal, ignore_errors=True))
    return checkpoint.progress


def read_checkpoint(path: Path) -> Checkpoint:
    """Read and check one folder: every file is there at its size and with its checksum. Not collective. Raises UserError."""
    try:
        found = json.loads((path / DESCRIPTION).read_text())
        files = found["files"]
        checkpoint = Checkpoint(
            path, Progress(found["step"], found["tokens"], found["bases"]), found["world"], found["zero_stage"], found["hash"]
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"the checkpoint has no readable description ({type(error).__name__})", where=path / DESCRIPTION) from None
    for name, described in files.items():
        file = path / name
        size = file.stat().st_size if file.is_file() else None
        if size != described["bytes"]:
            raise UserError(
                "a file of the checkpoint was cut short", where=file, got=f"{size} bytes", expected=f"{described['bytes']} bytes"
            )
        if _describe(file) != described:
            raise UserError("a file of the checkpoint was altered (checksum differs)", where=file)
    return checkpoint


def _fresh(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _describe(path: Path) -> dict[str, Any]:
    with open(path, "rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
        os.fsync(handle.fileno())
    return {"bytes": path.stat().st_size, "sha256": digest}


def _convert(source: Path, target: Path) -> None:
    """DeepSpeed's own converter, in this process; what it prints is kept back."""
    from argparse import Namespace

    from deepspeed.checkpoint import ds_to_universal

    target.mkdir(parents=True)
    settings = Namespace(
        input_folder=str(source),
        output_folder=str(target),
        num_extract_workers=1,
        num_merge_workers=1,
        keep_temp_folder=False,
        strict=False,
        inject_missing_state=True,
    )
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        ds_to_universal.main(settings)
