"""Annotations: BED, narrowPeak, bedGraph, GTF, refGene, SGD features, UCSC rmsk and RepeatMasker .out become one kind of table, 0-based
and half-open.

Coordinates are converted here and nowhere else: GTF, SGD and .out are 1-based and closed, and SGD writes the Crick strand with start > end.
Record names are kept as the file has them; `match_records` is the one place where naming styles meet.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from grover_dist.errors import UserError, nearest
from grover_dist.genome.contigs import ContigTable

NO_POINT = -1
_ROMAN = ("I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII", "XIII", "XIV", "XV", "XVI")
_ROMAN_FOR_SURE = {number for number in _ROMAN if len(number) > 1}
_MITOCHONDRION = ("M", "MT", "Mito", "mt")


@dataclass(frozen=True)
class Intervals:
    """One line an interval. record, strand ('+', '-', '.'), name: arrays of str; start_bp, end_bp int64; score float64 (nan: none);
    point_bp int64: the summit of a peak in the record, NO_POINT where there is none.
    """

    record: np.ndarray
    start_bp: np.ndarray
    end_bp: np.ndarray
    strand: np.ndarray
    name: np.ndarray
    score: np.ndarray
    point_bp: np.ndarray

    def __len__(self) -> int:
        return len(self.record)

    def take(self, chosen: np.ndarray) -> Intervals:
        """The lines of an index array or of a bool array."""
        return Intervals(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))

    def inside(self, contigs: ContigTable) -> Intervals:
        """The lines that lie inside their record, whose name the genome must know; a genome may be a piece of the annotated one."""
        lengths = {name: length for name, length in zip(contigs.record_names, contigs.record_lengths_bp, strict=True)}
        return self.take(self.end_bp <= np.array([lengths[record] for record in self.record], np.int64))


@dataclass(frozen=True)
class NameMatch:
    """What the alias step did: how each name of the file was read, and the names (with their lines) that found no record."""

    renamed: Mapping[str, str]
    unknown: Mapping[str, int]

    def __str__(self) -> str:
        changed = [f"{old} -> {new}" for old, new in self.renamed.items() if old != new]
        parts = [f"{len(self.renamed)} record names matched"]
        if changed:
            parts.append(f"renamed {', '.join(changed[:8])}{' ...' if len(changed) > 8 else ''}")
        if self.unknown:
            parts.append(f"left out {sum(self.unknown.values()):,} lines of {', '.join(list(self.unknown)[:8])}")
        return "; ".join(parts)


def match_records(
    intervals: Intervals,
    contigs: ContigTable,
    *,
    where: object,
    aliases: Mapping[str, str] | None = None,
    at_least: float = 0.95,
) -> tuple[Intervals, NameMatch]:
    """Rename records to the genome's names: as they are, by `aliases`, with or without 'chr', Roman and Arabic numbers, the mitochondrion.

    Lines of unknown records are left out. UserError where less than `at_least` of all lines find their record.
    """
    known = set(contigs.record_names)
    names, counts = np.unique(intervals.record, return_counts=True)
    renamed, unknown = {}, {}
    # 'X' is the tenth only among Roman numbers, which 'II' or 'IV' give away.
    from_roman, to_roman = (not _ROMAN_FOR_SURE.isdisjoint(item.removeprefix("chr") for item in side) for side in (names.tolist(), known))
    for name, count in zip(names.tolist(), counts.tolist(), strict=True):
        spellings = _spellings(name, aliases or {}, from_roman=from_roman, to_roman=to_roman)
        found = next((other for other in spellings if other in known), None)
        if found is None:
            unknown[name] = count
        else:
            renamed[name] = found
    match = NameMatch(renamed, unknown)
    missed = sum(unknown.values())
    if len(intervals) and missed > (1 - at_least) * len(intervals):
        first = max(unknown, key=unknown.__getitem__)
        raise UserError(
            f"only {1 - missed / len(intervals):.1%} of the lines lie on records of the genome",
            where=where,
            got=", ".join(f"'{name}'" for name in list(unknown)[:5]),
            expected=f"{at_least:.0%} at the least",
            hint=f"give the annotation of this assembly, or aliases; nearest to '{first}': {nearest(first, contigs.record_names)}",
        )
    kept = intervals.take(np.array([name in renamed for name in intervals.record], bool))
    new_names = np.array([renamed[name] for name in kept.record], object)
    return Intervals(new_names, *(getattr(kept, name) for name in list(kept.__dataclass_fields__)[1:])), match


def _spellings(name: str, aliases: Mapping[str, str], *, from_roman: bool, to_roman: bool) -> Iterator[str]:
    yield name
    if name in aliases:
        yield aliases[name]
    bare = name.removeprefix("chr")
    others = [bare]
    if to_roman and bare.isdigit() and 0 < int(bare) <= len(_ROMAN):
        others.append(_ROMAN[int(bare) - 1])
    if from_roman and bare in _ROMAN:
        others.append(str(_ROMAN.index(bare) + 1))
    if bare in _MITOCHONDRION:
        others += _MITOCHONDRION
    for other in others:
        yield other
        yield f"chr{other}"


Line = tuple[str, int, int, str, str, float, int]


def read_bed(path: Path) -> Intervals:
    """BED with 3 columns or more; the 4th is the name, the 5th the score, the 6th the strand."""

    def parse(fields: Sequence[str]) -> Line:
        name = fields[3] if len(fields) > 3 else "."
        score = float(fields[4]) if len(fields) > 4 and fields[4] != "." else np.nan
        return fields[0], int(fields[1]), int(fields[2]), fields[5] if len(fields) > 5 else ".", name, score, NO_POINT

    return _read(path, parse, "record, start, end, separated by tabs")


def read_bed_thick(path: Path) -> Intervals:
    """BED with 8 columns or more: the interval is the thick part (in EPDnew from the start site downstream)."""

    def parse(fields: Sequence[str]) -> Line:
        return fields[0], int(fields[6]), int(fields[7]), fields[5], fields[3], np.nan, NO_POINT

    return _read(path, parse, "the first 8 columns of BED")


def read_narrow_peak(path: Path) -> Intervals:
    """ENCODE narrowPeak: score is the signal value, point_bp the summit."""

    def parse(fields: Sequence[str]) -> Line:
        start, offset = int(fields[1]), int(fields[9])
        return fields[0], start, int(fields[2]), fields[5], fields[3], float(fields[6]), start + offset if offset >= 0 else NO_POINT

    return _read(path, parse, "the 10 columns of narrowPeak")


def read_gtf(path: Path, feature: str = "gene") -> Intervals:
    """The lines of one feature ('gene', 'transcript', 'exon' ...); the name is its transcript_id, or gene_id where it has none."""

    def parse(fields: Sequence[str]) -> Line | None:
        if fields[2] != feature:
            return None
        pairs = (item.strip().partition(" ") for item in fields[8].split(";"))
        attributes = {key: value.strip('"') for key, _, value in pairs}
        name = attributes.get("transcript_id") or attributes.get("gene_id", ".")
        return fields[0], int(fields[3]) - 1, int(fields[4]), fields[6], name, np.nan, NO_POINT

    return _read(path, parse, "the 9 columns of GTF")


def read_refgene(path: Path) -> Intervals:
    """UCSC refGene with its bin column: one line a transcript; name 'accession|gene'."""

    def parse(fields: Sequence[str]) -> Line:
        return fields[2], int(fields[4]), int(fields[5]), fields[3], f"{fields[1]}|{fields[12]}", np.nan, NO_POINT

    return _read(path, parse, "the 16 columns of refGene")


def read_bed_graph(path: Path) -> Intervals:
    """bedGraph, or BED whose 4th column is a number: the score is that value."""

    def parse(fields: Sequence[str]) -> Line:
        return fields[0], int(fields[1]), int(fields[2]), ".", ".", float(fields[3]), NO_POINT

    return _read(path, parse, "record, start, end, value, separated by tabs")


def read_rmsk(path: Path) -> Intervals:
    """UCSC rmsk with its bin column; the name is 'class/family|repeat'."""

    def parse(fields: Sequence[str]) -> Line:
        return fields[5], int(fields[6]), int(fields[7]), fields[9], f"{fields[11]}/{fields[12]}|{fields[10]}", float(fields[1]), NO_POINT

    return _read(path, parse, "the 17 columns of UCSC rmsk")


def read_repeat_masker(path: Path) -> Intervals:
    """RepeatMasker .out, columns set apart by blanks, with or without its head; the name is 'class/family|repeat'."""

    def parse(fields: Sequence[str]) -> Line | None:
        columns = fields[0].split()
        if not columns or not columns[0].isdigit():
            if not columns or columns[0] in ("SW", "score", "bit"):
                return None
            raise ValueError("the first column is not a score")
        strand = {"C": "-", "+": "+"}.get(columns[8], ".")
        return columns[4], int(columns[5]) - 1, int(columns[6]), strand, f"{columns[10]}|{columns[9]}", float(columns[0]), NO_POINT

    return _read(path, parse, "the 15 columns of RepeatMasker .out")


def read_sgd_features(path: Path, types: Sequence[str] | None = None) -> Intervals:
    """SGD_features.tab: features with a place, all or of some types; the name is 'type|feature'. Records are SGD's chromosome numbers:
    17 is the mitochondrion, here called Mito.
    """

    def parse(fields: Sequence[str]) -> Line | None:
        kind, name, record, low, high, strand = fields[1], fields[3] or fields[0], fields[8], fields[9], fields[10], fields[11]
        if not (record and low and high) or (types is not None and kind not in types):
            return None
        low_bp, high_bp = sorted((int(low), int(high)))
        record = "Mito" if record == "17" else record
        return record, low_bp - 1, high_bp, {"W": "+", "C": "-"}.get(strand, "."), f"{kind}|{name}", np.nan, NO_POINT

    return _read(path, parse, "the 16 columns of SGD_features.tab")


def _read(path: Path, parse: Callable[[Sequence[str]], Line | None], expected: str) -> Intervals:
    lines: list[Line] = []
    for number, text in text_lines(Path(path)):
        try:
            line = parse(text.split("\t"))
            if line is None:
                continue
            if not 0 <= line[1] <= line[2]:
                raise ValueError("the end lies before the start")
        except (ValueError, IndexError) as error:
            raise UserError(
                f"the line is not an interval: {error}", where=f"{path}, line {number:,}", got=repr(text[:60]), expected=expected
            ) from None
        lines.append(line)
    columns = list(zip(*lines, strict=True)) or [()] * 7
    kinds = (object, np.int64, np.int64, object, object, np.float64, np.int64)
    return Intervals(*(np.array(column, kind) for column, kind in zip(columns, kinds, strict=True)))


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number from 1, text) of the lines that are neither empty, comments nor browser settings; gzip or plain."""
    try:
        with open(path, "rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rt") if packed else open(path) as lines:
            for number, line in enumerate(lines, start=1):
                text = line.rstrip("\r\n")
                if text and not text.startswith(("#", "track ", "browser ")):
                    yield number, text
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise UserError("the gzip file is damaged or was cut short", where=path, hint="download it again") from None
    except UnicodeDecodeError:
        raise UserError("the annotation is not text", where=path) from None
    except OSError as error:
        raise UserError("the annotation cannot be read", where=path, got=error.strerror) from None
