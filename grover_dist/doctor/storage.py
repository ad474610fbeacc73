"""Checks that write and read: the disk for temporary files, the run's folder, the bucket. What they write, they remove."""

from __future__ import annotations

import os
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from grover_dist.doctor.findings import Finding

_BLOCK = os.urandom(1 << 20)
_BLOCKS = 64
SLOW_DISK_MB_PER_SECOND, SLOW_BUCKET_MB_PER_SECOND = 50.0, 5.0
LEAST_FREE_BYTES = 10e9
CLOCK_WARNING_SECONDS, CLOCK_FAILED_SECONDS = 1.0, 30.0


def check_disk(folder: str | None = None) -> Iterator[Finding]:
    """The disk that temporary files and Ray's object store spill to."""
    yield from _check_folder("disk", Path(folder or tempfile.gettempdir()), "set TMPDIR (and ray start --temp-dir) to another disk")


def check_run_folder(folder: str | None) -> Iterator[Finding]:
    """The nearest folder that exists on the way to the run's, where the run will be made."""
    if folder is None:
        yield Finding("run folder", "skipped", "no settings file was given, so no run.dir")
        return
    if folder.startswith("s3:/"):
        yield Finding("run folder", "skipped", f"{folder}: see bucket")
        return
    existing = nearest_folder(folder)
    yield from _check_folder("run folder", existing, f"let the user that runs Ray write in {existing}, or set run.dir to another folder")


def nearest_folder(folder: str) -> Path:
    path = Path(folder).absolute()
    return next(parent for parent in (path, *path.parents) if parent.is_dir())


def _check_folder(check: str, folder: Path, remedy: str) -> Iterator[Finding]:
    path = folder / f".grover-doctor-{uuid.uuid4().hex}"
    try:
        began, began_clock = time.perf_counter(), time.time()
        with open(path, "xb", buffering=0) as handle:
            for _ in range(_BLOCKS):
                handle.write(_BLOCK)
            os.fsync(handle.fileno())
            written = time.perf_counter() - began
            ended_clock, file_clock = time.time(), os.fstat(handle.fileno()).st_mtime
            os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        began = time.perf_counter()
        with open(path, "rb", buffering=0) as handle:
            while handle.read(1 << 20):
                pass
        was_read = time.perf_counter() - began
        free = os.statvfs(folder)
    except OSError as error:
        yield Finding(check, "failed", f"{folder}: {error.strerror}", remedy)
        return
    finally:
        path.unlink(missing_ok=True)
    megabytes = len(_BLOCK) * _BLOCKS / 1e6
    free_bytes = free.f_bavail * free.f_frsize
    found = f"{folder}: writes {megabytes / written:,.0f} and reads {megabytes / was_read:,.0f} MB/s, {free_bytes / 1e9:,.0f} GB free"
    if free_bytes < LEAST_FREE_BYTES:
        yield Finding(check, "warning", found, f"make room (`grover-dist plan` says how much a run needs), or {remedy}")
    elif megabytes / written < SLOW_DISK_MB_PER_SECOND:
        yield Finding(check, "warning", found, f"checkpoints and the store will wait for it; {remedy}")
    else:
        yield Finding(check, "ok", found)
    # On a network file system the times of files are the server's.
    skew = max(began_clock - file_clock, file_clock - ended_clock, 0.0)
    if skew > CLOCK_WARNING_SECONDS:
        yield clock_finding(skew, f"the clock of {folder}'s server")


def clock_finding(skew_seconds: float, other: str, node: str = "") -> Finding:
    """skew_seconds: distance of this node's clock from the `other`'s."""
    found = f"{skew_seconds:,.1f} s from {other}" if skew_seconds >= 0.1 else f"within 0.1 s of {other}"
    if skew_seconds < CLOCK_WARNING_SECONDS:
        return Finding("clock", "ok", found, node=node)
    state = "failed" if skew_seconds >= CLOCK_FAILED_SECONDS else "warning"
    return Finding(
        "clock", state, found, "start a time service (`timedatectl set-ntp true`, or chronyd) and look with `chronyc tracking`", node
    )


def leave_mark(folder: str, token: str, name: str) -> None:
    """A file of this node's in the run's folder, for the other nodes to look for."""
    (nearest_folder(folder) / f".grover-doctor-{token}-{name}").touch()


def marks_missing(folder: str, token: str, names: Sequence[str], *, seconds: float = 10.0) -> list[str]:
    """Which nodes' marks this node does not see; a network file system may take some seconds to show them."""
    wanted = {f".grover-doctor-{token}-{name}": name for name in names}
    deadline = time.monotonic() + seconds
    while True:
        there = set(os.listdir(nearest_folder(folder)))
        missing = [name for file, name in wanted.items() if file not in there]
        if not missing or time.monotonic() > deadline:
            return missing
        time.sleep(0.5)


def remove_mark(folder: str, token: str, name: str) -> None:
    (nearest_folder(folder) / f".grover-doctor-{token}-{name}").unlink(missing_ok=True)


def check_bucket(uri: str | None) -> Iterator[Finding]:
    """Write, read and delete one small object. `uri`: s3://NAME[/PREFIX]."""
    if not uri:
        yield Finding("bucket", "skipped", "none named (--bucket s3://NAME, or GROVER_BUCKET on the node)")
        return
    where = "/".join(part for part in uri.removeprefix("s3:").split("/") if part)
    try:
        from pyarrow import fs
    except ImportError:
        yield Finding("bucket", "failed", "pyarrow is missing", "see packages")
        return
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    store = fs.S3FileSystem(
        connect_timeout=5, request_timeout=15, retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=2), endpoint_override=endpoint
    )
    name = f"{where}/.grover-doctor-{uuid.uuid4().hex}"
    try:
        began = time.perf_counter()
        with store.open_output_stream(name) as stream:
            for _ in range(8):
                stream.write(_BLOCK)
        written = time.perf_counter() - began
        began = time.perf_counter()
        with store.open_input_stream(name) as stream:
            whole = len(stream.read()) == 8 * len(_BLOCK)
        was_read = time.perf_counter() - began
        store.delete_file(name)
    except OSError as error:
        yield Finding("bucket", "failed", f"s3://{where}: {_reason(error)}", bucket_remedy(str(error), where.split("/")[0]))
        return
    speeds = [8 * len(_BLOCK) / 1e6 / seconds for seconds in (written, was_read)]
    found = f"s3://{where}: writes {speeds[0]:,.0f} and reads {speeds[1]:,.0f} MB/s"
    if not whole:
        yield Finding("bucket", "failed", f"s3://{where}: read back less than was written", "look for a proxy between node and bucket")
    elif min(speeds) < SLOW_BUCKET_MB_PER_SECOND:
        yield Finding("bucket", "warning", found, "go through an S3 gateway endpoint in the bucket's region (infra/ makes one)")
    else:
        yield Finding("bucket", "ok", found)


def _reason(error: OSError) -> str:
    return " ".join(str(error).split())[:240]


def bucket_remedy(said: str, bucket: str) -> str:
    """What to do about an error of S3, by its words."""
    words = said.lower()
    if any(
        word in words for word in ("nosuchbucket", "no_such_bucket", "does not exist", "not_found", "http status 404", "http code: 404")
    ):
        return f"there is no bucket {bucket}: correct the name, or make it (`terraform apply`, `aws s3 mb s3://{bucket}`)"
    if "redirect" in words or "http status 301" in words or "http code: 301" in words:
        return f"{bucket} is in another region: set AWS_REGION to the bucket's"
    if any(word in words for word in ("access_denied", "accessdenied", "access denied", "403")):
        return f"let the node's role read, write and delete in {bucket} (s3:GetObject, s3:PutObject, s3:DeleteObject, s3:ListBucket)"
    if "credential" in words:
        return "give the node a role (instance profile), or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    return "S3 is not reached: check the S3 gateway endpoint or NAT of the node's subnet, and AWS_ENDPOINT_URL if it is set"
