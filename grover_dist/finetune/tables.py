"""Labelled tables: `sequence,label` or `chrom,start,end,label[,strand][,split]`, as CSV, TSV or Parquet, gzipped or not.

Coordinates are 0-based half-open, in the run's genome. Splits come from separate files, from a column `split`, or are made here.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from grover_dist.config import TaskSettings
from grover_dist.corpus.store import Store
from grover_dist.errors import UserError, nearest

SEQUENCE_COLUMNS, INTERVAL_COLUMNS = ("sequence", "label"), ("chrom", "start", "end", "label")
SPLITS = ("train", "validation", "test")
VALIDATION_FRACTION, TEST_FRACTION = 0.1, 0.2  # of each class, where the table has no such part
MOST_CLASSES = 1_000
UNKNOWN = 4  # code of an ambiguity letter: one [UNK] each
_SPLIT_NAMES = {"train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation"}
_SPLIT_NAMES |= {"dev": "validation", "test": "test", "testing": "test"}
_INVALID = 255
_CODES = np.full(256, _INVALID, np.uint8)
for _letter in b"NRYSWKMBDHV":
    _CODES[_letter] = _CODES[_letter | 0x20] = UNKNOWN
for _code, _letter in enumerate(b"ACGT"):
    _CODES[_letter] = _CODES[_letter | 0x20] = _code


@dataclass(frozen=True)
class Part:
    """sequences: base codes uint8 (4 = an ambiguity letter). labels int64[n]. group int64[n]: what is resampled together, a genome block
    or the sequence's own number.
    """

    sequences: tuple[np.ndarray, ...]
    labels: np.ndarray
    group: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: np.ndarray) -> Part:
        return Part(tuple(self.sequences[i] for i in indices), self.labels[indices], self.group[indices])


@dataclass(frozen=True)
class TaskTable:
    """classes: names in the order of the labels' numbers. parts: train, validation, test. notes: what was decided for the user."""

    classes: tuple[str, ...]
    parts: Mapping[str, Part]
    notes: tuple[str, ...] = ()


def read_task(settings: TaskSettings, store: Store, seed: int) -> TaskTable:
    """Read the task's files and complete the splits. UserError on every fault that DESIGN and the docstring above name."""
    rows: list[_Rows] = []
    for split, path in (("train", settings.train), ("validation", settings.validation), ("test", settings.test)):
        if path is not None:
            rows.append(_read_file(path, split, store))
    labels = [label for part in rows for label in part.labels]
    classes = class_names(labels, where=settings.train)
    number_of = {name: index for index, name in enumerate(classes)}
    numbers = np.array([number_of[label] for label in labels], np.int64)
    sequences = [sequence for part in rows for sequence in part.sequences]
    splits = np.array([split for part in rows for split in part.splits])
    whole = Part(tuple(sequences), numbers, np.arange(len(sequences)))
    return complete_splits(whole, splits, classes, settings.name, seed)


def complete_splits(whole: Part, splits: np.ndarray, classes: tuple[str, ...], name: str, seed: int) -> TaskTable:
    """Take missing validation and test parts from the training part, the same share of every class; check all parts."""
    generator = np.random.Generator(np.random.Philox(key=[seed, 0x57A7]))
    splits, notes = splits.astype("<U10"), []
    for split, fraction in (("test", TEST_FRACTION), ("validation", VALIDATION_FRACTION)):
        if not (splits == split).any():
            taken = _stratified(whole.labels, np.flatnonzero(splits == "train"), fraction, generator)
            splits[taken] = split
            notes.append(f"no {split} part was given: {len(taken):,} training rows ({fraction:.0%} of every class) were taken for it")
    parts = {split: whole.take(np.flatnonzero(splits == split)) for split in SPLITS}
    for split, part in parts.items():
        check_part(part, classes, split, name)
    return TaskTable(classes, parts, tuple(notes))


def check_part(part: Part, classes: tuple[str, ...], split: str, name: str) -> None:
    if not len(part):
        raise UserError(f"the {split} part is empty", where=f"task '{name}'", hint="give more rows, or another split")
    present = np.unique(part.labels)
    if len(present) < 2:
        raise UserError(
            f"the {split} part holds one class only",
            where=f"task '{name}'",
            got=f"{len(part):,} rows of class '{classes[present[0]]}'",
            expected="rows of at least two classes",
            hint="check the label column, or the split",
        )
    if split == "train" and len(present) < len(classes):
        missing = sorted(set(range(len(classes))) - set(present.tolist()))
        raise UserError(
            "the train part does not hold every class", where=f"task '{name}'", got=", ".join(f"no '{classes[i]}'" for i in missing)
        )


def class_names(labels: list[str], *, where: object) -> tuple[str, ...]:
    """Distinct labels; whole numbers in numeric order, names in alphabetical order. UserError where they are measurements."""
    distinct = sorted(set(labels))
    try:
        values = [float(label) for label in distinct]
    except ValueError:
        values = []
    fractional = [label for label, value in zip(distinct, values, strict=False) if not value.is_integer()]
    if fractional or len(distinct) > min(MOST_CLASSES, max(2, len(labels) // 2)):
        raise UserError(
            "the labels are not classes",
            where=f"{where}, column 'label'",
            got=f"{len(distinct):,} different values in {len(labels):,} rows, such as {', '.join(map(repr, (fractional or distinct)[:3]))}",
            expected="a few whole numbers or names",
            hint="turn measurements into classes first",
        )
    if len(distinct) < 2:
        raise UserError(
            "the table holds one class only",
            where=f"{where}, column 'label'",
            got=f"label {distinct[0]!r} in all {len(labels):,} rows",
            expected="at least two classes",
            hint="check the label column",
        )
    return tuple(distinct if not values else [label for _, label in sorted(zip(values, distinct, strict=True))])


def encode_letters(text: str, *, where: object, number: int) -> np.ndarray:
    """Base codes of a sequence in text; either case, U is not a base. UserError names the row and the letter."""
    codes = _CODES[np.frombuffer(text.encode("latin-1", "replace"), np.uint8)]
    if len(codes) == 0:
        raise UserError("a sequence is empty", where=f"{where}, row {number}")
    bad = np.flatnonzero(codes == _INVALID)
    if len(bad):
        raise UserError(
            "a sequence holds a letter that is not a nucleotide",
            where=f"{where}, row {number}, position {int(bad[0]) + 1}",
            got=repr(text[int(bad[0])]),
            expected="A, C, G, T, N or another IUPAC ambiguity letter",
            hint="remove or mend the row",
        )
    return codes


@dataclass
class _Rows:
    sequences: list[np.ndarray]
    labels: list[str]
    splits: list[str]


def _read_file(path: Path, split: str, store: Store) -> _Rows:
    header, records = _records(path)
    if all(name in header for name in SEQUENCE_COLUMNS):
        columns = SEQUENCE_COLUMNS
    elif all(name in header for name in INTERVAL_COLUMNS):
        columns = INTERVAL_COLUMNS
    else:
        raise UserError(
            "the table lacks columns",
            where=path,
            got=", ".join(header) or "no header",
            expected="sequence,label or chrom,start,end,label",
            hint=f"name the columns in the first line; nearest to 'sequence': {nearest('sequence', header)}",
        )
    place = {name: header.index(name) for name in (*columns, "strand", "split") if name in header}
    rows = _Rows([], [], [])
    for number, record in records:
        if len(record) != len(header):
            raise UserError(
                "a row has another number of fields than the header", where=f"{path}, row {number}", got=len(record), expected=len(header)
            )
        label = record[place["label"]].strip()
        if not label:
            raise UserError("a row has no label", where=f"{path}, row {number}")
        if columns is SEQUENCE_COLUMNS:
            rows.sequences.append(encode_letters(record[place["sequence"]].strip(), where=path, number=number))
        else:
            rows.sequences.append(_interval(record, place, store, f"{path}, row {number}"))
        rows.labels.append(label)
        rows.splits.append(_split_name(record[place["split"]], f"{path}, row {number}") if "split" in place else split)
    if not rows.labels:
        raise UserError("the table holds no rows", where=path, hint="check the file")
    return rows


def _records(path: Path):
    """(lower-case header, iterator of (row number, fields)); row 1 is the first after the header."""
    if not path.is_file():
        raise UserError("there is no such table", where=path, hint="check the path; it is relative to the working folder")
    if path.suffix == ".parquet":
        from pyarrow import parquet

        table = parquet.read_table(path)
        header = [name.strip().lower() for name in table.column_names]
        columns = [column.to_pylist() for column in table.columns]
        return header, enumerate(([str(value) for value in values] for values in zip(*columns, strict=True)), start=1)
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8-sig")
    except (OSError, EOFError, gzip.BadGzipFile, UnicodeDecodeError) as error:
        raise UserError(f"the table cannot be read: {error}", where=path) from None
    first = text.split("\n", 1)[0]
    reader = csv.reader(io.StringIO(text), delimiter="\t" if "\t" in first else ",")
    header = [name.strip().lower() for name in next(reader, [])]
    return header, ((number, record) for number, record in enumerate((record for record in reader if record), start=1))


def _split_name(value: str, where: str) -> str:
    name = _SPLIT_NAMES.get(value.strip().lower())
    if name is None:
        raise UserError("not the name of a split", where=where, got=repr(value), expected="train, validation or test")
    return name


def _interval(record: list[str], place: Mapping[str, int], store: Store, where: str) -> np.ndarray:
    try:
        start_bp, end_bp = int(record[place["start"]]), int(record[place["end"]])
    except ValueError:
        raise UserError(
            "start and end are whole numbers", where=where, got=f"{record[place['start']]!r}, {record[place['end']]!r}"
        ) from None
    strand = record[place["strand"]].strip() if "strand" in place else "+"
    return region_codes(store, record[place["chrom"]].strip(), start_bp, end_bp, minus=strand == "-", where=where)


def record_name(store: Store, chrom: str, where: object) -> str:
    """The genome's name of a chromosome, `chr22` and `22` taken for the same."""
    names = store.contigs.record_names
    for name in (chrom, chrom.removeprefix("chr"), f"chr{chrom}"):
        if name in names:
            return name
    raise UserError(
        "the genome has no such record",
        where=where,
        got=chrom,
        expected=nearest(chrom, names),
        hint="use the table's own assembly as the genome",
    )


def region_codes(store: Store, chrom: str, start_bp: int, end_bp: int, *, minus: bool, where: object) -> np.ndarray:
    """Base codes of a region of the genome, 4 where it has another letter; reverse complement where `minus`."""
    record = record_name(store, chrom, where)
    length_bp = store.contigs.record_lengths_bp[store.contigs.record_names.index(record)]
    if not 0 <= start_bp < end_bp <= length_bp:
        raise UserError(
            "an interval is not inside its record",
            where=where,
            got=f"{chrom}:{start_bp}-{end_bp}",
            expected=f"0 <= start < end <= {length_bp:,}",
            hint="is the table of another assembly?",
        )
    codes = np.full(end_bp - start_bp, UNKNOWN, np.uint8)
    for row_start, row_stop in store.contigs.rows_of(record, start_bp, end_bp):
        _, first_bp = store.contigs.locate(row_start)
        codes[first_bp - start_bp : first_bp - start_bp + row_stop - row_start] = store.base(row_start, row_stop)
    if minus:
        codes = np.where(codes == UNKNOWN, codes, 3 - codes)[::-1].copy()
    return codes


def _stratified(labels: np.ndarray, rows: np.ndarray, fraction: float, generator: np.random.Generator) -> np.ndarray:
    """`fraction` of the rows of every class, one at least where a class has two."""
    taken = []
    for label in np.unique(labels[rows]):
        members = generator.permutation(rows[labels[rows] == label])
        taken.append(members[: min(max(1, round(fraction * len(members))), len(members) - 1)])
    return np.sort(np.concatenate(taken)) if taken else np.empty(0, np.int64)
