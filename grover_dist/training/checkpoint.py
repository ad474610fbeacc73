"""Checkpoints of a training run: whole folders, each with a JSON written last, so that a part is never taken for the whole.

step-00000100/checkpoint.json     step, counts, ranks, ZeRO stage, settings hash; size and checksum of each file
step-00000100/state/              DeepSpeed's own files; private to the run, read only from the run's own folder
stable-00000080/                  the same, before the learning rate's decay; kept for a longer run to go on from
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from grover_dist.errors import UserError
from grover_dist.remote import Remote, describe_file, in_parallel
from grover_dist.run_dir import write_atomically
from grover_dist.training.checkpoint_write import DESCRIPTION, ObjectStore, SharedFolder, Write, complete_in, publish
from grover_dist.training.engine import Engine
from grover_dist.training.ranks import Ranks

_PATIENCE_SECONDS = 10.0  # for the other ranks' parts, when the run ends with an error
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
    """The checkpoints of one run, in one folder that all ranks share. Methods are collective unless they say otherwise.

    A save copies the state to host memory and returns; a thread of each rank writes it, and rank 0's publishes it when all have. At most
    one is on its way: `save` waits for the one before. Host memory holds the copy (12 to 16 bytes a parameter, shared out over the ranks
    as the optimizer is) until it is written. As a context it leaves no write behind.

    remote: the folder in an object store, where the ranks share no disk. Then `folder` is each machine's own; the thread of each rank
    copies its part there as well, and each machine copies the whole checkpoint from there to go on from it.
    """

    def __init__(
        self,
        folder: Path,
        ranks: Ranks,
        *,
        keep: int,
        hash: str,
        remote: Remote | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        self.folder, self._ranks, self._keep, self._hash, self._remote, self._say = folder, ranks, keep, hash, remote, say
        self._write: Write | None = None
        if ranks.is_main or (remote is not None and ranks.is_first_of_machine):
            folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.finish()
        elif self._write is not None:
            # Every rank meets a fault of the run, and the write ends; a rank that is gone never marks its part.
            self._write.end(patience_seconds=_PATIENCE_SECONDS)
            self._write = None

    def newest(self) -> Checkpoint | None:
        """The newest whole checkpoint. One that was cut short or altered is passed over, which is said."""
        for name in reversed(self._ranks.on_main(self.names)):
            read = self._ranks.on_main if self._remote is None else self._ranks.on_machines
            found = read(lambda name=name: self._whole(name))
            if self._remote is not None:
                found = read_checkpoint(self.folder / name) if all(found) else None
            if found is not None:
                return found
        return None

    def _whole(self, name: str) -> Checkpoint | None:
        """The checkpoint on this machine, None where it is not whole. Not collective."""
        try:
            if self._remote is not None:
                self._fetch(name)
            found = read_checkpoint(self.folder / name)
        except UserError as fault:
            self._say(f"checkpoint {name} is passed over, the one before it is used. {fault}")
            return None
        if found.hash != self._hash:
            raise UserError(
                "the checkpoint belongs to other settings",
                where=found.path,
                got=found.hash[:12],
                expected=self._hash[:12],
                hint="delete the checkpoint folder, or restore the settings that it was written with",
            )
        return found

    def _fetch(self, name: str) -> None:
        """Make this machine's copy whole; only what is missing or differs is copied."""
        description = self._remote.get_bytes(f"{name}/{DESCRIPTION}")
        if description is None:
            raise UserError("the checkpoint has no description in the object store", where=f"{self._remote.url}/{name}")
        folder, files = self.folder / name, json.loads(description)["files"]
        missing = [file for file, described in files.items() if not (folder / file).is_file() or describe_file(folder / file) != described]
        in_parallel([lambda file=file: self._remote.get(f"{name}/{file}", folder / file, files[file]) for file in missing])
        write_atomically(folder / DESCRIPTION, description)

    def names(self) -> list[str]:
        """Of the complete checkpoints, oldest first. Not collective."""
        if self._remote is not None:
            found = complete_in(self._remote)
        else:
            found = {path.name for path in self.folder.glob("s*-????????")}
        return sorted(found, key=lambda name: name[-8:])

    def save(self, engine: Engine, progress: Progress, *, stable: bool = False) -> None:
        """Begin to write `step-N` (or `stable-N`, never removed here); when it is whole, the oldest beyond `keep` are removed."""
        self.finish()
        final = self.folder / f"{'stable' if stable else 'step'}-{progress.step:08d}"
        partial = final.with_name(f".{final.name}.partial")
        if not self._ranks.on_main(lambda: self._room_for(engine, final)):
            return
        on_disks = self._ranks.on_main if self._remote is None else self._ranks.on_machines
        on_disks(lambda: _fresh(partial))
        held = engine.snapshot(partial, _STATE)
        described = {**asdict(progress), "world": self._ranks.world, "zero_stage": engine.zero_stage, "hash": self._hash}
        if self._remote is None:
            place = SharedFolder(partial, final, keep=self._keep)
        else:
            place = ObjectStore(partial, final.name, self._remote, keep=self._keep)
            self._ranks.on_main(place.discard)  # what a killed run left under this name
        self._write = Write(partial, final, held, self._ranks, described, place)

    @property
    def failed(self) -> bool:
        """Whether this rank knows that the write under way has failed: a reason for all to call `finish`. Not collective."""
        return self._write is not None and self._write.fault is not None

    def finish(self) -> None:
        """Wait for the write under way. One that failed for want of room (or another fault of the disk or the object store) is told, and
        training goes on while an older checkpoint is left. Raises UserError where none is.
        """
        if self._write is None:
            return
        write, self._write = self._write, None
        write.written.wait()
        lost = any(self._ranks.gather(write.fault))
        if self._ranks.is_main:
            # A rank on a full disk may not even have left word of its fault.
            write.end(patience_seconds=1.0 if lost else None)
        fault = self._ranks.on_main(lambda: write.fault)
        if fault is not None:
            if self._remote is not None:
                self._ranks.on_machines(lambda: shutil.rmtree(write.partial, ignore_errors=True))
            self._ranks.on_main(lambda: self._told(write.final, fault))
        elif self._remote is not None:
            description = self._ranks.on_main(lambda: write.description)
            self._ranks.on_machines(lambda: publish(write.partial, write.final, description, keep=self._keep))
            if write.final.name.startswith("stable-"):  # it will be published from the main rank's machine
                self._ranks.on_main(lambda: self._fetch(write.final.name))

    def _told(self, final: Path, fault: str) -> None:
        if not self.names():
            raise UserError(
                "the checkpoint could not be written and there is none to fall back on",
                where=final,
                got=fault,
                hint=f"{'free some space' if self._remote is None else 'see that the object store answers'} and run the same command again",
            )
        self._say(f"WARNING: {final.name} could not be written ({fault}); the older checkpoint stays")

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


def load(
    engine: Engine,
    checkpoint: Checkpoint,
    ranks: Ranks,
    *,
    scratch: Path,
    shared: bool = True,
    say: Callable[[str], None] = print,
) -> Progress:
    """Set the engine to the checkpoint. Another number of ranks goes through DeepSpeed's universal form, made for the moment in the
    folder `scratch`, which all ranks share, or each machine has of its own where not `shared`. Collective.
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

    on_disks = ranks.on_main if shared else ranks.on_machines
    on_disks(convert)
    engine.load(universal, _UNIVERSAL, universal=True)
    ranks.barrier()
    on_disks(lambda: shutil.rmtree(universal, ignore_errors=True))
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
        if describe_file(file) != described:
            raise UserError("a file of the checkpoint was altered (checksum differs)", where=file)
    return checkpoint


def _fresh(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


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
