"""Read FASTA as a stream: plain, gzip or bgzip. One record is held at a time, in about one byte a base.

Blocks of megabytes go through `bytes.translate`, never letter by letter.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from grover_dist.errors import UserError, nearest
from grover_dist.genome.two_bit import is_two_bit, read_two_bit

IUPAC_LETTERS = b"ACGTUWSMKRYBDHVN"
BLOCK_BYTES = 1 << 22
_KNOWN = IUPAC_LETTERS + IUPAC_LETTERS.lower()
_WHITE = b" \t\r\n"
_GZIP_MAGIC = b"\x1f\x8b"
# The empty block that ends every complete bgzip file (SAM specification, section 4.1.2).
_BGZIP_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")


@dataclass(frozen=True)
class FastaRecord:
    """letters: ASCII codes, uint8, either case, line ends removed. source: the file. line: of the header, from 1 (2bit: the
    record's number)."""

    name: str
    letters: np.ndarray
    source: Path
    line: int


def read_fasta(path: str | Path, include: Sequence[str] = ("*",), exclude: Sequence[str] = ()) -> Iterator[FastaRecord]:
    """The records of one file whose name matches a pattern of `include` and none of `exclude`.

    Every fault of the file is a UserError: missing, empty, not FASTA, cut short, a letter that is not IUPAC, a record
    without letters, a name twice, a pattern that matches nothing. Left-out records are skipped unread.
    """
    return read_fasta_files([path], include, exclude)


def read_fasta_files(paths: Sequence[str | Path], include: Sequence[str] = ("*",), exclude: Sequence[str] = ()) -> Iterator[FastaRecord]:
    """The same for several files, whose record names must all differ."""
    for path in paths:
        check_exists(Path(path))
    return _chosen_records([Path(path) for path in paths], include, exclude)


def check_exists(path: Path) -> None:
    if path.is_file():
        return
    if path.is_dir():
        raise UserError("a FASTA file was expected, this is a folder", where=path, hint="name the file inside it")
    beside = [item.name for item in sorted(path.parent.iterdir())] if path.parent.is_dir() else []
    raise UserError(
        "there is no such FASTA file",
        where=path,
        hint=f"nearest in {path.parent}: {nearest(path.name, beside)}" if beside else f"the folder {path.parent} is missing or empty",
    )


def _chosen_records(paths: Sequence[Path], include: Sequence[str], exclude: Sequence[str]) -> Iterator[FastaRecord]:
    first_seen: dict[str, str] = {}
    patterns = (*include, *exclude)
    used: set[str] = set()

    for path in paths:

        def wanted(name: str, line: int, path: Path = path) -> bool:
            if name in first_seen:
                raise UserError(
                    f"two records have the name '{name}'",
                    where=f"{path}, line {line}, and {first_seen[name]}",
                    hint="rename one of them, or leave one file out",
                )
            first_seen[name] = f"{path}, line {line}"
            used.update(pattern for pattern in patterns if fnmatchcase(name, pattern))
            return any(fnmatchcase(name, pattern) for pattern in include) and not any(fnmatchcase(name, pattern) for pattern in exclude)

        if is_two_bit(path):
            for name, letters, number in read_two_bit(path, wanted):
                yield FastaRecord(name, letters, path, number)
        else:
            yield from _records(path, wanted)
    for setting, given in (("genome.include", include), ("genome.exclude", exclude)):
        for pattern in given:
            if pattern not in used:
                raise UserError(
                    f"the pattern '{pattern}' matches no record",
                    where=f"{setting}, {', '.join(map(str, paths))}",
                    hint=f"nearest record names: {nearest(pattern, first_seen)}",
                )


def _records(path: Path, wanted) -> Iterator[FastaRecord]:
    line, previous = 1, b"\n"  # of the text read so far: lines begun, last byte
    header: bytearray | None = None  # the header being read; None inside a sequence
    current: _Sequence | None = None
    for block in _blocks(path):
        position = 0
        while position < len(block):
            if header is not None:
                end = block.find(b"\n", position)
                header += block[position : end if end >= 0 else len(block)]
                if end < 0:
                    break
                current = _Sequence(_name(header, path, line), path, line)
                current.kept = wanted(current.name, line)
                header, line, position, previous = None, line + 1, end + 1, b"\n"
                continue
            end = block.find(b">", position)
            text = block[position : end if end >= 0 else len(block)]
            if current is None:
                stray = text.strip()
                if stray or (end >= 0 and previous not in b"\r\n"):
                    raise _not_fasta(path, stray[:1])
            elif text:
                current.add(text, line)
            line += text.count(b"\n")
            previous = text[-1:] or previous
            if end < 0:
                break
            if current is not None:
                if previous not in b"\r\n":
                    raise current.bad_letter(b">", current.length, line)
                if current.kept:
                    yield current.record()
            current, header, position = None, bytearray(), end + 1
    if header is not None:
        current = _Sequence(_name(header, path, line), path, line)
        current.kept = wanted(current.name, line)
    if current is None:
        raise UserError("the FASTA file is empty", where=path, hint="download or unpack it again")
    if current.kept:
        yield current.record()


def check_letters(letters: np.ndarray, *, where: str, offset: int) -> None:
    """UserError with the place of the first letter that is not IUPAC. offset: of letters[0] in its record."""
    unknown = letters.tobytes().translate(None, _KNOWN)
    if unknown:
        at = int(np.flatnonzero(letters == unknown[0])[0])
        raise UserError(
            "a letter is not an IUPAC nucleotide",
            where=f"{where}, offset {offset + at:,} (0-based)",
            got=_show(unknown[:1]),
            expected=f"one of {IUPAC_LETTERS.decode()}, either case",
            hint="mend the file",
        )


class _Sequence:
    """One record while it is being read. A bytearray grows in place, so the peak stays near one byte a base."""

    def __init__(self, name: str, path: Path, line: int) -> None:
        self.name, self.path, self.line = name, path, line
        self.letters = bytearray()
        self.length = 0
        self.kept = True

    def add(self, text: bytes, line: int) -> None:
        if not self.kept:
            return
        letters = text.translate(None, _WHITE)
        unknown = letters.translate(None, _KNOWN)
        if unknown:
            first = unknown[:1]
            raise self.bad_letter(first, self.length + letters.index(first), line + text[: text.index(first)].count(b"\n"))
        self.letters += letters
        self.length += len(letters)

    def bad_letter(self, letter: bytes, offset: int, line: int) -> UserError:
        return UserError(
            "a letter is not an IUPAC nucleotide",
            where=f"{self.path}, record '{self.name}', offset {offset:,} (0-based), line {line:,}",
            got=_show(letter),
            expected=f"one of {IUPAC_LETTERS.decode()}, either case",
            hint="mend the file, or leave the record out with genome.exclude",
        )

    def record(self) -> FastaRecord:
        if not self.letters:
            raise UserError(
                f"the record '{self.name}' has no bases",
                where=f"{self.path}, line {self.line:,}",
                hint="mend the file, or leave the record out with genome.exclude",
            )
        return FastaRecord(self.name, np.frombuffer(self.letters, np.uint8), self.path, self.line)


def _name(header: bytes, path: Path, line: int) -> str:
    words = header.decode("utf-8", "replace").split()
    if not words:
        raise UserError("a record has no name", where=f"{path}, line {line:,}", expected="a header such as '>chr1'")
    return words[0]


def _not_fasta(path: Path, found: bytes) -> UserError:
    return UserError(
        "the file is not FASTA: it does not begin with '>'", where=path, got=_show(found), expected="'>'", hint="give a FASTA or 2bit file"
    )


def _show(letter: bytes) -> str:
    return f"'{letter.decode()}'" if letter.isascii() and letter.decode().isprintable() else f"byte 0x{letter.hex()}"


def _blocks(path: Path) -> Iterator[bytes]:
    """The file's text in blocks, unpacked where it is gzip or bgzip."""
    try:
        with open(path, "rb") as raw:
            start = raw.read(16)
            if start[:2] == _GZIP_MAGIC and start[12:14] == b"BC":
                _check_bgzip_end(path, raw)
            raw.seek(0)
            stream = gzip.GzipFile(fileobj=raw) if start[:2] == _GZIP_MAGIC else raw
            while block := stream.read(BLOCK_BYTES):
                yield block
    except EOFError:
        raise _cut_short(path) from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"the gzip file is damaged: {error}", where=path, hint="download it again; `gzip -t` checks it") from None
    except PermissionError:
        raise UserError("the FASTA file may not be read", where=path, hint="check its permissions") from None


def _check_bgzip_end(path: Path, raw) -> None:
    """A bgzip file that was cut between two blocks unpacks without a fault; only its missing end block tells."""
    raw.seek(-min(len(_BGZIP_END), path.stat().st_size), 2)
    if raw.read() != _BGZIP_END:
        raise _cut_short(path)


def _cut_short(path: Path) -> UserError:
    return UserError("the gzip file ends too early: it was cut short", where=path, hint="download it again; `gzip -t` checks it")
