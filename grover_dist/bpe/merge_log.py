"""The merge log: an append-only file of the merges so far, each record with its own checksum."""

from __future__ import annotations

import os
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from grover_dist.errors import UserError

_MAGIC = b"grover_dist merges 1\n"
_RECORD = struct.Struct("<IHHqI")  # merge (0-based), left, right, count, CRC-32 of what stands before and of the header
FLUSH_SECONDS = 2.0


class MergeLog:
    """Merges of one genome in the order of learning. Open with `MergeLog.open`; close it, or use it in a `with`.

    merges: int64[n, 3], (left, right, count) in model ids, that are safely in the file.
    """

    def __init__(self, path: Path, handle, seed: int, merges: list[tuple[int, int, int]]) -> None:
        self.path, self._handle, self._seed, self._merges = path, handle, seed, merges
        self._flushed = time.monotonic()

    @property
    def merges(self) -> np.ndarray:
        return np.asarray(self._merges, np.int64).reshape(-1, 3)

    @classmethod
    def open(cls, path: Path, genome_digest: str, *, strand: str = "forward", say: Callable[[str], None] = print) -> MergeLog:
        """Take up or start the log of a genome. A damaged tail is cut off, aloud; the log of another genome or rule is a UserError."""
        path = Path(path)
        header = _MAGIC + f"{genome_digest} {strand}\n".encode()
        seed = zlib.crc32(header)
        content = path.read_bytes() if path.exists() else b""
        if not content.startswith(_MAGIC) or content.find(b"\n", len(_MAGIC)) < 0:
            if content:
                say(f"merge log {path.name}: the header is damaged; learning starts again from the first merge")
            path.write_bytes(header)
            return cls(path, open(path, "ab"), seed, [])
        if not content.startswith(header):
            found = content[len(_MAGIC) : content.index(b"\n", len(_MAGIC))].decode(errors="replace")
            raise UserError(
                "the merge log belongs to another genome or another rule",
                where=path,
                got=found,
                expected=f"{genome_digest} {strand}",
                hint="delete the log, or use a new run.dir",
            )
        merges: list[tuple[int, int, int]] = []
        at = len(header)
        while at + _RECORD.size <= len(content):
            index, left, right, count, checksum = _RECORD.unpack_from(content, at)
            if index != len(merges) or checksum != zlib.crc32(content[at : at + _RECORD.size - 4], seed):
                break
            merges.append((left, right, count))
            at += _RECORD.size
        if at != len(content):
            lost = f"{len(content) - at} bytes are cut off, going on from the last good merge"
            say(f"merge log {path.name}: damaged after {len(merges)} merges; {lost}")
            os.truncate(path, at)
        return cls(path, open(path, "ab"), seed, merges)

    def append(self, first: int, rows: np.ndarray) -> None:
        """Record merges first, first + 1, ...: int64[k, 3]. Those in the log already must be the same.

        Handed to the system at once, forced to the disk every few seconds.
        """
        for index, row in enumerate(rows.tolist(), start=first):
            if index < len(self._merges):
                if self._merges[index] != tuple(row):
                    raise UserError(
                        "the merge log does not agree with the genome",
                        where=f"{self.path}, merge {index + 1}",
                        got=self._merges[index],
                        expected=tuple(row),
                        hint="delete the log and run again",
                    )
                continue
            record = _RECORD.pack(index, *row, 0)[:-4]
            self._handle.write(record + struct.pack("<I", zlib.crc32(record, self._seed)))
            self._merges.append(tuple(row))
        self._handle.flush()
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """To the disk, now."""
        self._handle.flush()
        os.fsync(self._handle.fileno())
        self._flushed = time.monotonic()

    def close(self) -> None:
        if not self._handle.closed:
            self.flush()
            self._handle.close()

    def __enter__(self) -> MergeLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
