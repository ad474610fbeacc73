"""A folder in an object store (`s3://bucket/prefix`), as far as a run needs it: whole objects, retried, with errors in the user's words.

Nothing is renamed in an object store. What makes a folder complete is its manifest, which is written when all else is there, and a reader
copies what the manifest lists into a folder of its own, by checksum.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grover_dist.errors import UserError

if TYPE_CHECKING:
    from pyarrow.fs import S3FileSystem

SCHEME = "s3://"
MANIFEST = "manifest.json"
_WAITS_SECONDS = (0.2, 0.5, 1.0, 2.0)  # between attempts; the client has its own shorter ones
_COPY_BYTES = 1 << 23
_AT_ONCE = 8
_DENIED = ("ACCESS_DENIED", "INVALID_ACCESS_KEY", "INVALID_CLIENT_TOKEN", "SIGNATURE_DOES_NOT_MATCH", "HTTP status 403", "No credentials")
_REDIRECTED = ("PERMANENT_REDIRECT", "PermanentRedirect", "HTTP status 301", "AuthorizationHeaderMalformed")


class Remote:
    """One folder. Names are relative to it, with slashes. Every method raises UserError after the last attempt. Can be pickled.

    Credentials and region are found as the AWS tools find them; AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL name another server.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def __reduce__(self):
        return Remote, (self.url,)

    def __truediv__(self, name: str) -> Remote:
        return Remote(f"{self.url}/{name}")

    @property
    def bucket(self) -> str:
        return self.url.removeprefix(SCHEME).partition("/")[0]

    @property
    def path(self) -> str:
        """Bucket and prefix, as `filesystem` has them."""
        return self.url.removeprefix(SCHEME)

    @cached_property
    def filesystem(self) -> S3FileSystem:
        from pyarrow.fs import S3FileSystem

        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        return S3FileSystem(endpoint_override=endpoint, connect_timeout=10, request_timeout=60)

    def put(self, source: Path, name: str) -> dict[str, Any]:
        """Copy a local file to an object; returns what a manifest says of it. The object appears whole or not at all."""

        def copy() -> None:
            with open(source, "rb") as handle, self.filesystem.open_output_stream(self._key(name)) as sink:
                shutil.copyfileobj(handle, sink, _COPY_BYTES)

        described = describe_file(source)
        self._attempt(name, copy)
        return described

    def put_bytes(self, name: str, content: bytes) -> None:
        def write() -> None:
            with self.filesystem.open_output_stream(self._key(name)) as sink:
                sink.write(content)

        self._attempt(name, write)

    def get(self, name: str, target: Path, described: Mapping[str, Any]) -> None:
        """Copy an object to a local file that appears whole, of the described size and checksum, or not at all."""

        def copy() -> None:
            digest = hashlib.sha256()
            temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
            try:
                with self.filesystem.open_input_stream(self._key(name)) as source, open(temporary, "wb") as sink:
                    while block := source.read(_COPY_BYTES):
                        digest.update(block)
                        sink.write(block)
                if digest.hexdigest() != described["sha256"]:
                    raise _Different
                os.replace(temporary, target)
            finally:
                temporary.unlink(missing_ok=True)

        target.parent.mkdir(parents=True, exist_ok=True)
        self._attempt(name, copy)

    def get_bytes(self, name: str) -> bytes | None:
        """An object's content; None where there is none."""

        def read() -> bytes | None:
            try:
                with self.filesystem.open_input_stream(self._key(name)) as source:
                    return source.read()
            except FileNotFoundError:
                return None

        return self._attempt(name, read)

    def fault_of(self, name: str, described: Mapping[str, Any], size: int | None) -> str | None:
        """What is wrong with an object that is listed with this size, in words; None where nothing is. The whole object is read."""

        def digest() -> str:
            found = hashlib.sha256()
            with self.filesystem.open_input_stream(self._key(name)) as source:
                while block := source.read(_COPY_BYTES):
                    found.update(block)
            return found.hexdigest()

        if size is None:
            return "the object is missing"
        if size != described["bytes"]:
            return f"the object has {size:,} bytes, {described['bytes']:,} were written"
        return None if self._attempt(name, digest) == described["sha256"] else "the content is not what was written (its checksum differs)"

    def sizes(self, name: str = "", *, recursive: bool = True) -> dict[str, int]:
        """Bytes of each object below a name, by its name relative to this folder, sorted. Empty where there is none."""
        return {found: info.size for found, info in self._list(name, recursive)}

    def newest_first(self, name: str) -> list[str]:
        """Names of the objects below a name, those written last at the front."""
        return [found for found, _ in sorted(self._list(name, True), key=lambda item: -(item[1].mtime_ns or 0))]

    def _list(self, name: str, recursive: bool) -> list[tuple[str, Any]]:
        from pyarrow.fs import FileSelector

        def find() -> list[Any]:
            try:
                return self.filesystem.get_file_info(FileSelector(self._key(name), recursive=recursive))
            except FileNotFoundError:
                return []

        found = self._attempt(name, find)
        return sorted((info.path.removeprefix(self.path + "/"), info) for info in found if info.is_file)

    def delete(self, names: Iterable[str]) -> None:
        def remove(name: str) -> None:
            with contextlib.suppress(FileNotFoundError):
                self.filesystem.delete_file(self._key(name))

        in_parallel([lambda name=name: self._attempt(name, lambda: remove(name)) for name in names])

    def publish(self, folder: Path, manifest: bytes, uploaded: Mapping[str, Mapping[str, Any]]) -> None:
        """Make a local stage folder visible here: its files, then the manifest. `uploaded`: what stands here already."""
        files = json.loads(manifest)["files"]
        missing = [name for name in files if uploaded.get(name) != files[name]]
        in_parallel([lambda name=name: self.put(folder / name, name) for name in missing])
        found = self.sizes()
        for name, described in files.items():
            if found.get(name) != described["bytes"]:
                raise UserError(
                    "an object did not arrive whole",
                    where=f"{self.url}/{name}",
                    got=f"{found.get(name, 'no')} bytes",
                    expected=f"{described['bytes']} bytes",
                    hint="run the same command again",
                )
        self.delete(name for name in found if name not in files and name != MANIFEST)
        self.put_bytes(MANIFEST, manifest)

    def bring(self, folder: Path, *, rehash: bool = False) -> bool:
        """Make a local folder hold what is published here; False where nothing is. Only what is missing or not as it was written is
        copied. One process of a machine copies, others wait. A file that has not been touched since it was verified is not read
        again, unless `rehash`.
        """
        manifest = self.get_bytes(MANIFEST)
        if manifest is None:
            return False
        files = json.loads(manifest)["files"]
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _held(folder.with_name(f".{folder.name}.fetch.lock")):
            known = {} if rehash else read_stamps(folder)
            missing = [name for name, described in files.items() if not _sound(folder / name, described, known.get(name))]
            stale = not (folder / MANIFEST).is_file() or (folder / MANIFEST).read_bytes() != manifest
            if missing or stale:
                (folder / MANIFEST).unlink(missing_ok=True)
                in_parallel([lambda name=name: self.get(name, folder / name, files[name]) for name in missing])
                for path in [path for path in folder.rglob("*") if path.is_file() and str(path.relative_to(folder)) not in files]:
                    path.unlink()
                _replace(folder / MANIFEST, manifest)
            write_stamps(folder, files)
        return True

    def _key(self, name: str) -> str:
        return f"{self.path}/{name}".rstrip("/")

    def _attempt(self, name: str, do: Callable[[], Any]) -> Any:
        for wait in (*_WAITS_SECONDS, None):
            try:
                return do()
            except (OSError, _Different) as error:
                fault = self._permanent(error, name)
                if fault is not None:
                    raise fault from error
                if wait is None:
                    raise self._lost(error, name) from error
            time.sleep(wait)

    def _permanent(self, error: Exception, name: str) -> Exception | None:
        """What no further attempt can mend."""
        text, where = str(error), f"{self.url}/{name}".rstrip("/")
        if isinstance(error, OSError) and error.errno is not None and not isinstance(error, FileNotFoundError):
            return error  # of the local disk
        if "NO_SUCH_BUCKET" in text:
            hint = f"create it (`aws s3 mb s3://{self.bucket}`), or name another in run.dir"
            return UserError("there is no such bucket", where=where, got=self.bucket, hint=hint)
        if any(word in text for word in _DENIED):
            return UserError(
                "the object store refuses access",
                where=where,
                got=_first_line(text),
                hint="check the credentials or the role of this machine; it needs s3:ListBucket on the bucket and "
                "s3:GetObject, s3:PutObject, s3:DeleteObject on its objects",
            )
        if any(word in text for word in _REDIRECTED):
            return UserError("the bucket is in another region", where=where, got=_first_line(text), hint="set AWS_REGION to the bucket's")
        if isinstance(error, FileNotFoundError):
            return UserError(
                "an object is missing, or its bucket", where=where, hint="delete this stage's folder there and run the same command again"
            )
        return None

    def _lost(self, error: Exception, name: str) -> UserError:
        where = f"{self.url}/{name}".rstrip("/")
        if isinstance(error, _Different):
            return UserError(
                "an object is not what its manifest says (its checksum differs)",
                where=where,
                hint=f"delete the folder with `aws s3 rm --recursive {where.rpartition('/')[0]}` and run the same command again",
            )
        return UserError(
            f"the object store does not answer as it should, {len(_WAITS_SECONDS) + 1} times over",
            where=where,
            got=_first_line(str(error)),
            hint="check the network; what is complete is kept, and the same command goes on from there",
        )


class _Different(Exception):
    """The content is not what was described: cut short on the way, or damaged."""


def in_parallel(work: list[Callable[[], Any]]) -> list[Any]:
    """Results in order; the first fault is raised when all have ended."""
    if len(work) < 2:
        return [each() for each in work]
    with ThreadPoolExecutor(min(_AT_ONCE, len(work))) as pool:
        return [future.result() for future in [pool.submit(each) for each in work]]


def describe_file(path: Path) -> dict[str, Any]:
    """What manifests say of a file."""
    with open(path, "rb") as handle:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(handle, "sha256").hexdigest()}


def _stamps_path(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.verified.json")


def read_stamps(folder: Path) -> dict[str, list[int]]:
    """Size and time of change of each file of a copy when its checksum was last seen to be right."""
    try:
        return json.loads(_stamps_path(folder).read_text())
    except (OSError, ValueError):
        return {}


def write_stamps(folder: Path, files: Iterable[str]) -> None:
    _replace(_stamps_path(folder), json.dumps({name: _stamp(folder / name) for name in files}).encode())


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _sound(path: Path, described: Mapping[str, Any], stamp: list[int] | None) -> bool:
    if not path.is_file() or path.stat().st_size != described["bytes"]:
        return False
    return _stamp(path) == stamp or describe_file(path) == described


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """Held while others of this machine wait; the system lets go when the holder dies."""
    with open(path, "wb") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _first_line(text: str) -> str:
    return " ".join(text.split())[:300]
