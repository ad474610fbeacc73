"""Labelled tables: `sequence,label`, `chrom,start,end,label[,strand][,split]`, or both, as CSV, TSV, Parquet or FASTA, gzipped or not.

Coordinates are 0-based half-open, in the run's genome. Splits come from separate files, from a column `split` or from named records. Where
there is none of these, regions of held-out blocks of the genome are the test part, and of sequences a stratified part is taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from grover_dist.config import Config, TaskSettings
from grover_dist.corpus.store import Store
from grover_dist.errors import UserError, nearest
from grover_dist.finetune.places import PLACE_COLUMNS, UNKNOWN, Block, place_rows, region_codes
from grover_dist.finetune.readers import Rows, read_class, read_rows
from grover_dist.finetune.splits import complete

SPLITS = ("train", "validation", "test")
MOST_CLASSES = 1_000
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
    or the sequence's own number. scan int64[n]: the scan that a window belongs to, None where the rows are no windows of scans.
    """

    sequences: tuple[np.ndarray, ...]
    labels: np.ndarray
    group: np.ndarray
    scan: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: np.ndarray) -> Part:
        scan = None if self.scan is None else self.scan[indices]
        return Part(tuple(self.sequences[i] for i in indices), self.labels[indices], self.group[indices], scan)


@dataclass(frozen=True)
class TaskTable:
    """classes: names in the order of the labels' numbers. parts: train, validation, test. notes: what was decided for the user."""

    classes: tuple[str, ...]
    parts: Mapping[str, Part]
    notes: tuple[str, ...] = ()


def read_task(config: Config, settings: TaskSettings, store: Store) -> TaskTable:
    """Read the task's files and complete the splits. UserError on every fault of the files. `store` gives the bases of interval tables
    and the blocks of everything that has coordinates.
    """
    rows = _Rows()
    for split, path in (("train", settings.train), ("validation", settings.validation), ("test", settings.test)):
        if path is not None:
            _read_source(path, *read_rows(path), split, config, settings, store, rows)
    for label, path in settings.classes.items():
        _read_source(path, *read_class(path, label), "train", config, settings, store, rows)
    _crop(rows, settings)
    classes = class_names(rows.labels, where=settings.train or f"task '{settings.name}'")
    number_of = {name: index for index, name in enumerate(classes)}
    numbers = np.array([number_of[label] for label in rows.labels], np.int64)
    by_block = all(block is not None for block in rows.blocks)
    whole = Part(tuple(rows.sequences), numbers, _groups(rows.blocks, by_block), _scans(rows.scans))
    table = complete_splits(whole, np.array(rows.splits), classes, settings.name, config.seed, by_block=by_block)
    return TaskTable(table.classes, table.parts, (*rows.notes, *table.notes))


def complete_splits(
    whole: Part, splits: np.ndarray, classes: tuple[str, ...], name: str, seed: int, *, by_block: bool = False
) -> TaskTable:
    """Take missing validation and test parts from the training part, the same share of every class; check all parts."""
    generator = np.random.Generator(np.random.Philox(key=[seed, 0x57A7]))
    splits, notes = complete(splits, whole.labels, whole.group, by_block=by_block, generator=generator)
    parts = {split: whole.take(np.flatnonzero(splits == split)) for split in SPLITS}
    for split, part in parts.items():
        check_part(part, classes, split, name)
    return TaskTable(classes, parts, tuple(notes))


def _groups(blocks: list[Block | None], by_block: bool) -> np.ndarray:
    """int64[n]: genome blocks by their number, blocks of another genome in the order of their names, else the rows themselves."""
    if not by_block:
        return np.arange(len(blocks))
    if all(isinstance(block, int) for block in blocks):
        return np.array(blocks, np.int64)
    return np.unique([str(block) for block in blocks], return_inverse=True)[1].astype(np.int64)


def _scans(scans: list[str]) -> np.ndarray | None:
    return np.unique(scans, return_inverse=True)[1].astype(np.int64) if scans and all(scans) else None


def _crop(rows: _Rows, settings: TaskSettings) -> None:
    """The middle `crop_bp` bases of every sequence; shorter ones are left out and counted."""
    if settings.crop_bp is None:
        return
    width = settings.crop_bp
    kept = [index for index, codes in enumerate(rows.sequences) if len(codes) >= width]
    short = len(rows.sequences) - len(kept)
    if not kept:
        raise UserError(
            "every sequence is shorter than crop_bp",
            where=f"task '{settings.name}'",
            got=f"{width} bp, the longest sequence has {max(map(len, rows.sequences))}",
        )
    rows.sequences = [codes[(len(codes) - width) // 2 :][:width] for codes in (rows.sequences[index] for index in kept)]
    for name in ("labels", "splits", "blocks", "scans"):
        setattr(rows, name, [getattr(rows, name)[index] for index in kept])
    rows.notes.append(f"every sequence is cropped to its middle {width} bp; {short:,} shorter ones are left out")


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
    blocks: list[Block | None] = field(default_factory=list)
    scans: list[str] = field(default_factory=list)  # '' where the table has no scans
    notes: list[str] = field(default_factory=list)


def _read_source(
    path: Path, header: list[str], records: Rows, split: str, config: Config, settings: TaskSettings, store: Store, rows: _Rows
) -> None:
    if settings.negatives is not None:
        header, records = _unfolded(path, header, records, settings.negatives)
    has_sequence, has_place = "sequence" in header, all(name in header for name in PLACE_COLUMNS)
    if "label" not in header or not (has_sequence or has_place):
        raise UserError(
            "the table lacks columns",
            where=path,
            got=", ".join(header) or "no header",
            expected="sequence,label or chrom,start,end,label",
            hint=f"name the columns in the first line; nearest to 'sequence': {nearest('sequence', header)}",
        )
    place = {name: header.index(name) for name in ("sequence", *PLACE_COLUMNS, "label", "strand", "split", "scan") if name in header}
    kept: list[list[str]] = []
    for number, record in records:
        where = f"{path}, row {number}"
        if len(record) != len(header):
            raise UserError("a row has another number of fields than the header", where=where, got=len(record), expected=len(header))
        if not record[place["label"]].strip():
            raise UserError("a row has no label", where=where)
        kept.append(record)
    if not kept:
        raise UserError("the table holds no rows", where=path, hint="check the file")
    splits = [
        _split_name(record[place["split"]], f"{path}, row {number}") if "split" in place else split
        for number, record in enumerate(kept, start=1)
    ]
    free = "split" not in place and settings.test is None and split == "train"  # nobody has said what the test part is
    for placed in place_rows(path, kept, place, splits, free, config, settings, store, rows.notes):
        record, where = kept[placed.row], f"{path}, row {placed.row + 1}"
        if has_sequence:
            codes = encode_letters(record[place["sequence"]].strip(), where=path, number=placed.row + 1)
        else:
            name, start_bp, end_bp = placed.region
            minus = "strand" in place and record[place["strand"]].strip() == "-"
            codes = region_codes(store, name, start_bp, end_bp, minus=minus, where=where)
        rows.sequences.append(codes)
        rows.labels.append(record[place["label"]].strip())
        rows.splits.append(placed.split)
        rows.blocks.append(placed.block)
        rows.scans.append(f"{path}/{record[place['scan']]}" if "scan" in place else "")


def _unfolded(path: Path, header: list[str], records: Rows, negatives: str) -> tuple[list[str], Rows]:
    """A table with a promoter and its negatives in each row becomes one with a row for each: class 'promoter' and the column's name."""
    others = [name for name in header if name not in ("sequence", *PLACE_COLUMNS, "label", "strand", "name", "split", "scan")]
    if "sequence" not in header or negatives not in header:
        raise UserError(
            f"the table has no column '{negatives}' of negatives beside 'sequence'",
            where=path,
            got=", ".join(header),
            hint=f"nearest: {nearest(negatives, others)}; `grover-dist build promid` makes such tables",
        )
    own, other = header.index("sequence"), header.index(negatives)
    if "label" in header:
        raise UserError("a table with `negatives` has no label column", where=path, hint="leave `negatives` out of the task")
    turned: list[list[str]] = []
    for _, record in records:
        turned.append([*record, "promoter"])
        if record[other]:
            turned.append([*record[:own], record[other], *record[own + 1 :], negatives])
    return [*header, "label"], enumerate(turned, start=1)


def _split_name(value: str, where: str) -> str:
    name = _SPLIT_NAMES.get(value.strip().lower())
    if name is None:
        raise UserError("not the name of a split", where=where, got=repr(value), expected="train, validation or test")
    return name
