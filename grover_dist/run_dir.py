"""The run's folder: the only builder of paths. A stage writes one folder under a temporary name, its manifest last, and is renamed.

RUN/run.json                      which genome and product wrote here
RUN/config.yaml                   the settings of the latest command, resolved; itself a valid input
RUN/<stage>/<name>-<hash8>/       one artefact; `manifest.json` is written last
RUN/<stage>/.<name>-<hash8>.partial/   work in progress; taken up again only by stages that can resume

A run in `s3://bucket/prefix` is worked on in a local folder of the same layout, this machine's copy (below `run.cache`). A stage is
copied there object by object when it is complete, its manifest last; other machines copy it from there when they need it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import re
import resource
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import yaml

from grover_dist import __version__
from grover_dist.config import DEFAULT_CACHE, Config, settings_hash, to_plain
from grover_dist.errors import UserError
from grover_dist.remote import MANIFEST, SCHEME, Remote, describe_file, write_stamps

SCHEMA_VERSION = 1
STAMP = "run.json"
_ARTEFACT = re.compile(rf"[^/]+/[^./][^/]*-[0-9a-f]{{8}}/{MANIFEST}")
_PACKAGES = ("deepspeed", "torch", "transformers", "ray", "tokenizers", "pyarrow", "pyfaidx", "numba", "numpy", "scikit-learn")


@dataclass(frozen=True)
class Artifact:
    """A complete stage folder. `counts` are the numbers that the stage chose to publish in its manifest."""

    path: Path
    manifest: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """Hash that names this artefact's content to the stages after it: settings, inputs and file checksums.

        Files that record how a run went (`*.jsonl`, TensorBoard events) hold clock times and are left out, so that the
        same settings on the same input give the same digests everywhere.
        """
        kept = {key: self.manifest[key] for key in ("stage", "name", "settings_hash", "inputs")}
        kept["files"] = {name: file for name, file in self.manifest["files"].items() if not name.endswith((".jsonl", ".tfevents"))}
        return settings_hash(kept)

    @property
    def counts(self) -> Mapping[str, Any]:
        return self.manifest["counts"]

    def file(self, name: str) -> Path:
        return self.path / name


@dataclass
class Work:
    """A stage's folder while it is being written.

    remote: the folder's place in the object store, for a run that is there. What workers on other machines put into it beforehand is
    listed in `uploaded`, as manifests do, and is not copied again.
    """

    path: Path
    resumed: bool
    counts: dict[str, Any] = field(default_factory=dict)
    remote: Remote | None = None
    uploaded: dict[str, dict[str, Any]] = field(default_factory=dict)

    def file(self, name: str) -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def write_json(self, name: str, value: Any) -> None:
        write_atomically(self.file(name), json.dumps(value, indent=1, sort_keys=True).encode())


class RunDir:
    """Opens or makes a run's folder. Raises UserError where the folder belongs to another run or to something else."""

    def __init__(self, path: Path, remote: Remote | None = None) -> None:
        self.path, self.remote = path, remote

    @classmethod
    def open(cls, config: Config) -> RunDir:
        """For writing: makes the folder, or takes it up again if it is of the same genome."""
        run = cls._at(config.run.dir, config.run.cache)
        identity = {"schema": SCHEMA_VERSION, "name": config.run.name, "genome": config.genome.model_dump(mode="json"), "seed": config.seed}
        try:
            found = run._read(STAMP)
            if found is not None:
                run._check_identity(json.loads(found), identity)
            elif run._holds_anything():
                raise UserError(
                    "the output folder is not empty and holds no run of ours",
                    where=run.address,
                    hint="set run.dir to a new or empty folder",
                )
            else:
                run._write(STAMP, json.dumps(identity, indent=1).encode())
            run._write("config.yaml", config.to_yaml().encode())
        except (OSError, json.JSONDecodeError) as error:
            raise disk_error(error, run.path) from None
        return run

    @classmethod
    def existing(cls, path: str | Path) -> RunDir:
        """For reading. Of a run in an object store a copy is kept where its settings say, if this machine has that folder."""
        run = cls._at(path, DEFAULT_CACHE)
        if run._read(STAMP) is None:
            raise UserError("this is not a run's folder: it has no run.json", where=path, hint="name the folder that `run.dir` named")
        if run.remote is not None:
            named = Path((yaml.safe_load(run._read("config.yaml") or b"") or {}).get("run", {}).get("cache", DEFAULT_CACHE)).expanduser()
            run = cls._at(path, named if named.is_dir() else DEFAULT_CACHE)
        return run

    @classmethod
    def _at(cls, place: str | Path, cache: Path) -> RunDir:
        if not str(place).startswith(SCHEME):
            return cls(Path(place))
        remote = Remote(str(place))
        name = f"{remote.url.rpartition('/')[2]}-{settings_hash(remote.url)[:8]}"
        return cls(cache.expanduser().absolute() / name, remote)

    def absolute(self) -> RunDir:
        """The same for processes with another working folder."""
        return RunDir(self.path.resolve(), self.remote)

    @property
    def address(self) -> str:
        """Where the run is: what `run.dir` named."""
        return self.remote.url if self.remote else str(self.path)

    def address_of(self, artifact: Artifact, name: str = "") -> str:
        """Where a user finds an artefact, or a file of it."""
        if self.remote is None:
            return str(artifact.file(name).resolve())
        return "/".join(filter(None, (self.remote.url, artifact.path.parent.name, artifact.path.name, name)))

    def _check_identity(self, found: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
        different = sorted(key for key in identity if found.get(key) != identity[key])
        if different:
            raise UserError(
                f"the output folder belongs to another run: its {', '.join(different)} differ{'s' if len(different) == 1 else ''}",
                where=self.address,
                got=found.get("name"),
                hint="set run.dir to a new folder (run.dir=runs/NAME), or delete this one",
            )

    def _holds_anything(self) -> bool:
        if self.remote is not None:
            return bool(self.remote.sizes())
        self.path.mkdir(parents=True, exist_ok=True)
        return any(self.path.iterdir())

    def _read(self, name: str) -> bytes | None:
        if self.remote is not None:
            return self.remote.get_bytes(name)
        path = self.path / name
        return path.read_bytes() if path.is_file() else None

    def _write(self, name: str, content: bytes) -> None:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
        if self.remote is not None:
            self.remote.put_bytes(name, content)

    def settings_file(self) -> Path:
        """config.yaml of the latest command, on this machine. UserError where there is none."""
        content = self._read("config.yaml")
        if content is None:
            raise UserError("the run has no settings", where=f"{self.address}/config.yaml", hint="name the folder that `run.dir` named")
        path = self.path / "config.yaml"
        if self.remote is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content)
        return path

    def read_note(self, name: str) -> bytes | None:
        """What a process of the run left for another one in `logs`; None where there is nothing."""
        return self._read(f"logs/{name}")

    def read_settings(self) -> bytes | None:
        """The resolved settings of the latest command, as YAML."""
        return self._read("config.yaml")

    def write_note(self, name: str, content: bytes) -> None:
        self._write(f"logs/{name}", content)

    def drop_note(self, name: str) -> None:
        (self.path / "logs" / name).unlink(missing_ok=True)
        if self.remote is not None:
            self.remote.delete([f"logs/{name}"])

    def copy_logs(self) -> None:
        """Put this machine's logs into the object store, for a run that is there. What is complete needs none of them."""
        if self.remote is not None:
            for path in sorted(path for path in self.logs.rglob("*") if path.is_file() and not path.name.startswith(".")):
                self.remote.put(path, str(path.relative_to(self.path)))

    def here(self, artifact: Artifact) -> Artifact:
        """The artefact on this machine: copied from the object store and verified, where the run is there."""
        if self.remote is None:
            return artifact
        found = self.at(f"{artifact.path.parent.name}/{artifact.path.name}")
        if found is None:
            raise UserError(
                "a stage that others were made from is not in the object store",
                where=self.address_of(artifact),
                hint="run the same command again: what is missing is made anew",
            )
        return found

    def at(self, name: str, *, rehash: bool = False) -> Artifact | None:
        """The complete artefact of a folder name "stage/name-hash8", or None. rehash: of a copy, read every file again."""
        path = self.path / name
        try:
            complete = (self.remote / name).bring(path, rehash=rehash) if self.remote else (path / MANIFEST).is_file()
        except OSError as error:
            raise disk_error(error, path) from error
        return read_artifact(path) if complete else None

    def names(self, stage: str) -> list[str]:
        """Folder names of the complete artefacts of a stage, the newest first."""
        if self.remote is not None:
            manifests = [name for name in self.remote.newest_first(stage) if _ARTEFACT.fullmatch(name)]
            return [name.rpartition("/")[0] for name in manifests]
        manifests = sorted((self.path / stage).glob(f"*-????????/{MANIFEST}"), key=lambda path: -path.stat().st_mtime_ns)
        return [f"{stage}/{path.parent.name}" for path in manifests if not path.parent.name.startswith(".")]

    @property
    def logs(self) -> Path:
        """Progress and metrics of work in progress; not an artefact, never hashed."""
        path = self.path / "logs"
        path.mkdir(parents=True, exist_ok=True)
        return path

    def read_manifest(self, name: str) -> Mapping[str, Any]:
        """Of a complete artefact, by its folder name; nothing else is read or copied."""
        if self.remote is None:
            return read_artifact(self.path / name).manifest
        return json.loads(self.remote.get_bytes(f"{name}/{MANIFEST}") or b"{}")

    def _key(self, stage: str, name: str, settings: Any, inputs: Mapping[str, Artifact]) -> tuple[str, dict[str, str], str]:
        digests = {key: artifact.digest for key, artifact in sorted(inputs.items())}
        hashed = settings_hash(settings)
        return hashed, digests, settings_hash({"settings": hashed, "inputs": digests})[:8]

    def find(self, stage: str, name: str, *, settings: Any, inputs: Mapping[str, Artifact] | None = None) -> Artifact | None:
        """The complete and valid artefact of exactly these settings and inputs, or None."""
        hashed, digests, short = self._key(stage, name, settings, inputs or {})
        artifact = self.at(f"{stage}/{name}-{short}")
        if artifact is None:
            return None
        if artifact.manifest["settings_hash"] != hashed or artifact.manifest["inputs"] != digests:
            raise UserError(
                "a stage's manifest does not belong to its folder name",
                where=self.address_of(artifact),
                hint="delete the folder and run again",
            )
        return artifact

    def latest(self, stage: str, name: str | None = None) -> Artifact | None:
        """The newest complete artefact of a stage, for readers that were given a run and no settings."""
        for found in self.names(stage):
            if name is None or found.rpartition("/")[2][:-9] == name:
                return self.at(found)
        return None

    @contextmanager
    def begin(
        self, stage: str, name: str, *, settings: Any, inputs: Mapping[str, Artifact] | None = None, resumable: bool = False
    ) -> Iterator[Work]:
        """Write a stage. On a clean exit the manifest is written and the folder renamed; on an exception nothing is
        published, and the temporary folder goes too, unless the stage is `resumable`.
        """
        hashed, digests, short = self._key(stage, name, settings, inputs or {})
        final = self.path / stage / f"{name}-{short}"
        partial = final.with_name(f".{final.name}.partial")
        started, cpu_started = time.time(), _cpu_seconds()
        lock = None
        try:
            lock = _lock(final)
            resumed = partial.exists() and resumable
            if partial.exists() and not resumable:
                shutil.rmtree(partial)
            partial.mkdir(parents=True, exist_ok=True)
            work = Work(partial, resumed, remote=self.remote / stage / final.name if self.remote else None)
            yield work
            manifest = {
                "schema": SCHEMA_VERSION,
                "stage": stage,
                "name": name,
                "settings_hash": hashed,
                "settings": to_plain(settings),
                "inputs": digests,
                "files": {str(p.relative_to(partial)): describe_file(p) for p in sorted(partial.rglob("*")) if p.is_file()},
                "counts": work.counts,
                "versions": versions(),
                "wall_seconds": round(time.time() - started, 3),
                "cpu_seconds": round(_cpu_seconds() - cpu_started, 3),
            }
            text = json.dumps(manifest, indent=1).encode()
            if work.remote is not None:
                work.remote.publish(partial, text, work.uploaded)
            write_atomically(partial / MANIFEST, text)
            if final.exists():
                shutil.rmtree(final)  # no manifest: `find` saw it as incomplete
            os.replace(partial, final)
            if work.remote is not None:
                write_stamps(final, manifest["files"])
        except OSError as error:
            if not resumable and lock is not None:
                shutil.rmtree(partial, ignore_errors=True)
            raise disk_error(error, final) from error
        except BaseException:
            if not resumable and lock is not None:
                shutil.rmtree(partial, ignore_errors=True)
            raise
        finally:
            if lock is not None:
                lock.close()

    def once(
        self,
        stage: str,
        name: str,
        write: Callable[[Work], None],
        *,
        settings: Any,
        inputs: Mapping[str, Artifact] | None = None,
        resumable: bool = False,
        say: Callable[[str], None] | None = None,
    ) -> Artifact:
        """The artefact, written by `write(work)` unless it is complete already."""
        found = self.find(stage, name, settings=settings, inputs=inputs)
        if found is not None:
            if say:
                say(f"{stage} {name}: complete already, skipped ({found.path.name})")
            return found
        with self.begin(stage, name, settings=settings, inputs=inputs, resumable=resumable) as work:
            write(work)
        artifact = self.find(stage, name, settings=settings, inputs=inputs)
        assert artifact is not None
        return artifact


def read_artifact(path: Path, *, checksums: bool = False) -> Artifact:
    """Read a stage folder and check it: every listed file is there at its size and, if asked, with its checksum."""
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        files = manifest["files"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"the manifest cannot be read: {error}", where=path / MANIFEST, hint="delete the folder and run again") from None
    if manifest.get("schema") != SCHEMA_VERSION:
        raise UserError(
            "the artefact was written by another version of the format",
            where=path,
            got=manifest.get("schema"),
            expected=SCHEMA_VERSION,
            hint="use a new run.dir, or the product version in the manifest",
        )
    for name, described in files.items():
        file = path / name
        size = file.stat().st_size if file.is_file() else None
        if size != described["bytes"]:
            raise UserError(
                "an artefact's file is missing or was cut short",
                where=file,
                got=f"{size} bytes" if size is not None else "no file",
                expected=f"{described['bytes']} bytes",
                hint=f"delete {path} and run the same command again",
            )
        if checksums and describe_file(file) != described:
            raise UserError(
                "an artefact's file is not the one that was written (checksum differs)", where=file, hint=f"delete {path} and run again"
            )
    return Artifact(path, manifest)


def _lock(final: Path, patience_seconds: float = 60.0) -> IO[bytes]:
    """Hold the stage against a second writer: a killed driver's workers may outlive it for a while. The system lets go
    of the lock when its holder dies, however it dies.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    handle = open(final.with_name(f".{final.name}.lock"), "wb")  # noqa: SIM115 - the caller closes it
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return handle
        except BlockingIOError:
            if time.monotonic() > deadline:
                handle.close()
                raise UserError(
                    "another process is writing this stage",
                    where=final,
                    hint="wait until it ends (`grover-dist status RUN`) or stop it, then run the same command again",
                ) from None
            time.sleep(0.2)


def write_atomically(path: Path, content: bytes) -> None:
    """Write beside the target, flush to the disk, rename: readers see the old or the new file, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def disk_error(error: Exception, path: Path) -> Exception:
    """An operating-system fault while writing, in the user's words; other faults come back as they are."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(
            "the disk is full; nothing half-written was kept",
            where=path,
            hint="free some space (`grover-dist plan` tells how much) and run the same command again",
        )
    if isinstance(error, PermissionError):
        return UserError("the folder cannot be written", where=path, got=str(error), hint="choose a run.dir that you may write to")
    return error


def versions() -> dict[str, str]:
    found = {"grover_dist": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _cpu_seconds() -> float:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
