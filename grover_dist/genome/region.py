"""A region of a FASTA or 2bit file: by its index where there is one, else by reading the file."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from grover_dist.errors import UserError, nearest
from grover_dist.genome.contigs import check_bounds
from grover_dist.genome.fasta import FastaRecord, check_exists, check_letters, read_fasta


@dataclass(frozen=True)
class RegionLetters:
    """A region of a record, 0-based and half-open, and the record around it. letters(start_bp, end_bp): ASCII uint8 of any part of it."""

    record: str
    start_bp: int
    end_bp: int
    length_bp: int
    letters: Callable[[int, int], np.ndarray]


def split_region(region: str) -> tuple[str, int, int] | None:
    """(record, start_bp, end_bp) of "RECORD:START-END", commas allowed; None where the text is no such thing."""
    found = re.fullmatch(r"(.+):([\d,_]+)-([\d,_]+)", region)
    if found is None:
        return None
    start_bp, end_bp = (int(re.sub("[,_]", "", text)) for text in found.groups()[1:])
    return found[1], start_bp, end_bp


def read_region(path: Path, region: str) -> RegionLetters:
    """The region "RECORD" or "RECORD:START-END". UserError where the file does not hold it, and for an index older than the file."""
    path = Path(path)
    check_exists(path)
    index = path.with_name(path.name + ".fai")
    if index.is_file() and path.read_bytes()[:2] != b"\x1f\x8b":
        check_index(path, index)
        return _indexed(path, region)
    named = split_region(region)
    name = region if named is None else named[0]
    for candidate in dict.fromkeys((region, name)):  # a record's name may look like a region
        try:
            (record,) = read_fasta(path, include=(_literal(candidate),))
        except UserError as error:
            if "matches no record" not in error.what:
                raise
            continue
        return _of_record(record, None if candidate == region else named)
    names = [record.name for record in read_fasta(path)]
    raise _unknown(path, name, names)


def check_index(path: Path, index: Path) -> None:
    """UserError where the file was changed after its index was made: places in it would be wrong."""
    if index.stat().st_mtime_ns < path.stat().st_mtime_ns:
        raise UserError(
            "the index is older than its FASTA file",
            where=index,
            hint=f"make it anew (`samtools faidx {path}`), or delete it; without an index the file is read whole",
        )


def _indexed(path: Path, region: str) -> RegionLetters:
    from pyfaidx import Faidx, FastaIndexingError

    try:
        faidx = Faidx(str(path), rebuild=False, build_index=False)
    except (FastaIndexingError, ValueError, IndexError) as error:
        raise UserError(f"the index cannot be read: {error}", where=f"{path}.fai", hint="delete it, or make it anew") from None
    named = None if region in faidx.index else split_region(region)
    name = region if named is None else named[0]
    if name not in faidx.index:
        raise _unknown(path, name, list(faidx.index))

    def letters(start_bp: int, end_bp: int) -> np.ndarray:
        found = (
            np.frombuffer(str(faidx.fetch(name, start_bp + 1, end_bp)).encode(), np.uint8) if end_bp > start_bp else np.empty(0, np.uint8)
        )
        if len(found) != end_bp - start_bp:
            raise UserError("the index does not fit its FASTA file", where=f"{path}.fai", hint=f"make it anew (`samtools faidx {path}`)")
        check_letters(found, where=f"{path}, record '{name}'", offset=start_bp)
        return found

    length_bp = int(faidx.index[name].rlen)
    start_bp, end_bp = _inside(name, named, length_bp)
    return RegionLetters(name, start_bp, end_bp, length_bp, letters)


def _of_record(record: FastaRecord, named: tuple[str, int, int] | None) -> RegionLetters:
    start_bp, end_bp = _inside(record.name, named, len(record.letters))
    return RegionLetters(record.name, start_bp, end_bp, len(record.letters), lambda start, end: record.letters[start:end])


def _inside(name: str, named: tuple[str, int, int] | None, length_bp: int) -> tuple[int, int]:
    if named is None:
        return 0, length_bp
    check_bounds(name, named[1], named[2], length_bp)
    return named[1], named[2]


def _literal(name: str) -> str:
    """A pattern that matches this name alone."""
    return re.sub(r"([\[*?])", r"[\1]", name)


def _unknown(path: Path, name: str, names: list[str]) -> UserError:
    return UserError(
        f"the file has no record '{name}'", where=path, got=name, hint=f"nearest: {nearest(name, names)}; write it as the FASTA has it"
    )
