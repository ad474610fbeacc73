"""Read UCSC 2bit files, record by record, as the same letters that FASTA would give.

Format: https://genome.ucsc.edu/FAQ/FAQformat.html#format7 (four bases a byte, T C A G = 0..3, first base in the high bits; runs of N
and of lower case beside them).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from grover_dist.errors import UserError

_SIGNATURE = 0x1A412743
_BASES = np.frombuffer(b"TCAG", np.uint8)
# Row v holds the four letters of the packed byte v.
_UNPACKED = _BASES[(np.arange(256)[:, None] >> np.array([6, 4, 2, 0])) & 3]
_CHUNK_BYTES = 1 << 20


def is_two_bit(path: Path) -> bool:
    with open(path, "rb") as handle:
        start = handle.read(4)
    return len(start) == 4 and _SIGNATURE in (int.from_bytes(start, "little"), int.from_bytes(start, "big"))


def read_two_bit(path: Path, wanted: Callable[[str, int], bool]) -> Iterator[tuple[str, np.ndarray, int]]:
    """(name, letters, number from 1) of each record that `wanted(name, number)` accepts, in the file's order."""
    data = np.memmap(path, np.uint8, mode="r")
    order = "<" if int.from_bytes(bytes(data[:4]), "little") == _SIGNATURE else ">"
    reader = _Reader(data, order, path)
    _, version, count, _ = reader.numbers(0, 4)
    offset_bytes = 4 if version == 0 else 8
    position = 16
    for number in range(1, int(count) + 1):
        length = int(reader.slice(position, 1)[0])
        name = bytes(reader.slice(position + 1, length)).decode("ascii", "replace")
        position += 1 + length
        record_at = int.from_bytes(bytes(reader.slice(position, offset_bytes)), "little" if order == "<" else "big")
        position += offset_bytes
        if wanted(name, number):
            yield name, _letters(reader, record_at, name), number


class _Reader:
    def __init__(self, data: np.ndarray, order: str, path: Path) -> None:
        self.data, self.order, self.path = data, order, path

    def slice(self, start: int, size: int) -> np.ndarray:
        if start + size > len(self.data):
            raise UserError("the 2bit file ends too early: it was cut short", where=self.path, hint="download it again")
        return self.data[start : start + size]

    def numbers(self, start: int, count: int) -> np.ndarray:
        return np.frombuffer(self.slice(start, 4 * count).tobytes(), self.order + "u4").astype(np.int64)


def _letters(reader: _Reader, position: int, name: str) -> np.ndarray:
    (length,) = reader.numbers(position, 1)
    if length == 0:
        raise UserError(f"the record '{name}' has no bases", where=reader.path, hint="leave the record out with genome.exclude")
    position += 4
    runs = []
    for _ in range(2):  # first the runs of N, then those of lower case
        (count,) = reader.numbers(position, 1)
        both = reader.numbers(position + 4, 2 * int(count))
        runs.append((both[:count], both[count:]))
        position += 4 + 8 * int(count)
    position += 4  # reserved
    letters = np.empty(-(-length // 4) * 4, np.uint8)
    for start in range(0, len(letters) // 4, _CHUNK_BYTES):
        packed = reader.slice(position + start, min(_CHUNK_BYTES, len(letters) // 4 - start))
        letters[4 * start : 4 * (start + len(packed))] = _UNPACKED[packed].ravel()
    letters = letters[:length]
    for start, size in zip(*runs[0], strict=True):
        letters[start : start + size] = ord("N")
    for start, size in zip(*runs[1], strict=True):
        letters[start : start + size] |= 0x20
    return letters
