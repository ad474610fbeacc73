"""Labelled tables: `sequence,label` or `chrom,start,end,label[,strand][,split]`, as CSV, TSV or Parquet, gzipped or not.

Coordinates are 0-based half-open, in the run's genome. Splits come from separate files or from a column `split`. Where there is
neither, regions of held-out blocks of the genome are the test part, and of sequences a stratified part is taken.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from grover_dist.config import Config, TaskSettings
from grover_dist.corpus.store import Store
from grover_dist.errors import UserError, nearest
from grover_dist.genome.intervals import NO_POINT, Intervals, match_records
from grover_dist.genome.split import HELD_OUT, MIXED, Split, split_blocks

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


def read_task(config: Config, settings: TaskSettings, store: Store) -> TaskTable:
    """Read the task's files and complete the splits. UserError on every fault of the files. `store` is used by interval tables only."""
    rows = _Rows()
    for split, path in (("train", settings.train), ("validation", settings.validation), ("test", settings.test)):
        if path is not None:
            _read_file(path, split, config, settings, store, rows)
    classes = class_names(rows.labels, where=settings.train)
    number_of = {name: index for index, name in enumerate(classes)}
    numbers = np.array([number_of[label] for label in rows.labels], np.int64)
    own = np.arange(len(numbers))
    group = np.array(rows.blocks, np.int64) if all(block >= 0 for block in rows.blocks) else own
    whole = Part(tuple(rows.sequences), numbers, group)
    table = complete_splits(whole, np.array(rows.splits), classes, settings.name, config.seed)
    return TaskTable(table.classes, table.parts, (*rows.notes, *table.notes))


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
    sequences: list[np.ndarray] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    blocks: list[int] = field(default_factory=list)  # genome block of a region, -1 of a sequence
    notes: list[str] = field(default_factory=list)


def _read_file(path: Path, split: str, config: Config, settings: TaskSettings, store: Store, rows: _Rows) -> None:
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
    labels, splits, kept = [], [], []
    for number, record in records:
        where = f"{path}, row {number}"
        if len(record) != len(header):
            raise UserError("a row has another number of fields than the header", where=where, got=len(record), expected=len(header))
        label = record[place["label"]].strip()
        if not label:
            raise UserError("a row has no label", where=where)
        labels.append(label)
        splits.append(_split_name(record[place["split"]], where) if "split" in place else split)
        kept.append(record)
    if not labels:
        raise UserError("the table holds no rows", where=path, hint="check the file")
    if columns is SEQUENCE_COLUMNS:
        texts = (record[place["sequence"]].strip() for record in kept)
        rows.sequences += [encode_letters(text, where=path, number=number) for number, text in enumerate(texts, start=1)]
        rows.labels += labels
        rows.splits += splits
        rows.blocks += [-1] * len(labels)
    else:
        by_block = "split" not in place and settings.test is None and split == "train"
        _add_regions(path, kept, place, labels, splits, by_block, config, store, rows)


def _add_regions(
    path: Path,
    records: list[list[str]],
    place: Mapping[str, int],
    labels: list[str],
    splits: list[str],
    by_block: bool,
    config: Config,
    store: Store,
    rows: _Rows,
) -> None:
    """Read the regions' bases. by_block: regions of held-out blocks are the test part, those across a border are left out."""
    intervals = _intervals(path, records, place)
    matched, match = match_records(intervals, store.contigs, where=path)
    if match.unknown or any(old != new for old, new in match.renamed.items()):
        rows.notes.append(f"{path.name}: {match}")
    split = split_blocks(store.contigs, config.split, config.seed)
    across = 0
    for index in range(len(matched)):
        row = int(matched.score[index])
        where = f"{path}, row {row + 1}"
        start_bp, end_bp, record = int(matched.start_bp[index]), int(matched.end_bp[index]), str(matched.record[index])
        codes = region_codes(store, record, start_bp, end_bp, minus=matched.strand[index] == "-", where=where)
        block, side = place_of_region(store, split, record, start_bp, end_bp)
        if block is None:
            raise UserError("a region holds no known base", where=where, got=f"{record}:{start_bp}-{end_bp}", hint="remove the row")
        if by_block and side == MIXED:
            across += 1
            continue
        rows.sequences.append(codes)
        rows.labels.append(labels[row])
        rows.blocks.append(block)
        rows.splits.append("test" if by_block and side == HELD_OUT else splits[row])
    if by_block:
        rows.notes.append(
            f"no test part was given: it is the regions of the genome's held-out blocks; {across:,} across a border are left out"
        )


def _intervals(path: Path, records: list[list[str]], place: Mapping[str, int]) -> Intervals:
    """The rows as intervals; `score` carries the row's number, since the alias step may leave rows out."""
    bounds = np.empty((len(records), 2), np.int64)
    for row, record in enumerate(records):
        texts = record[place["start"]], record[place["end"]]
        try:
            bounds[row] = int(texts[0]), int(texts[1])
        except ValueError:
            raise UserError("start and end are whole numbers", where=f"{path}, row {row + 1}", got=f"{texts[0]!r}, {texts[1]!r}") from None
    n = len(records)
    strand = np.array([record[place["strand"]].strip() if "strand" in place else "+" for record in records], object)
    chrom = np.array([record[place["chrom"]].strip() for record in records], object)
    return Intervals(
        chrom, bounds[:, 0], bounds[:, 1], strand, np.full(n, "", object), np.arange(n, dtype=np.float64), np.full(n, NO_POINT)
    )


def place_of_region(store: Store, split: Split, record: str, start_bp: int, end_bp: int) -> tuple[int | None, int]:
    """(genome block of the first known base, side of the split); (None, MIXED) where the region has no known base."""
    rows = store.contigs.rows_of(record, start_bp, end_bp)
    if not rows:
        return None, MIXED
    return int(split.block_of(np.array([rows[0][0]]))[0]), int(split.side_of_interval(rows[0][0], rows[-1][1]))


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


def region_codes(store: Store, record: str, start_bp: int, end_bp: int, *, minus: bool, where: object) -> np.ndarray:
    """Base codes of a region of the genome, 4 where it has another letter; reverse complement where `minus`."""
    length_bp = store.contigs.record_lengths_bp[store.contigs.record_index(record)]
    if not 0 <= start_bp < end_bp <= length_bp:
        raise UserError(
            "an interval is not inside its record",
            where=where,
            got=f"{record}:{start_bp}-{end_bp}",
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
