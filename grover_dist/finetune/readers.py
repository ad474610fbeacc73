"""Labelled rows from the files in which tasks are published: CSV, TSV, Parquet, FASTA, and Genomic Benchmarks' folders.

Every reader gives a header of lower-case names and rows of texts; what the columns mean is decided in `tables`.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
from collections.abc import Iterator
from pathlib import Path

from grover_dist.errors import UserError

Rows = Iterator[tuple[int, list[str]]]
_FASTA = (".fa", ".fasta", ".fna")
_TABLES = (".csv", ".tsv", ".txt")
_REGION = re.compile(r"([^\s:|]+):(\d+)-(\d+)(?:\(([+-])\))?")
_RENAMED = {"region": "chrom", "chromosome": "chrom", "seq": "sequence"}


def read_rows(path: Path) -> tuple[list[str], Rows]:
    """(header, iterator of (row number, fields)); row 1 is the first after the header. UserError where the file cannot be read."""
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise UserError("there is no such table", where=path, hint="check the path; it is relative to the working folder")
    if path.suffix == ".parquet":
        return _read_parquet(path)
    text = _text(path)
    if _stem(path)[1] in _FASTA or text.startswith(">"):
        return _read_fasta(text)
    first = text.split("\n", 1)[0]
    reader = csv.reader(io.StringIO(text), delimiter="\t" if "\t" in first else ",")
    header = [_RENAMED.get(name.strip().lower(), name.strip().lower()) for name in next(reader, [])]
    return header, enumerate((record for record in reader if record), start=1)


def read_class(path: Path, label: str) -> tuple[list[str], Rows]:
    """The rows of a file that holds one class, with its label added."""
    header, rows = read_rows(path)
    if "label" in header:
        raise UserError("a file of one class has a label column of its own", where=path, hint="give it as train instead of under classes")
    return [*header, "label"], ((number, [*record, label]) for number, record in rows)


def _read_folder(path: Path) -> tuple[list[str], Rows]:
    """Genomic Benchmarks: a file of intervals for each class (`positive.csv.gz`), or a folder of text files for each (`positive/1.txt`)."""
    entries = sorted(entry for entry in path.iterdir() if entry.is_dir() or _stem(entry)[1] in (*_TABLES, *_FASTA))
    if not entries:
        raise UserError("the folder holds no class", where=path, expected="CLASS.csv, CLASS.fa or CLASS/*.txt")
    if all(entry.is_dir() for entry in entries):
        found = [(entry.name, file) for entry in entries for file in sorted(entry.glob("*.txt"))]
        return ["sequence", "label"], enumerate(([_text(file).strip(), label] for label, file in found), start=1)
    parts = [read_class(entry, _stem(entry)[0]) for entry in entries if entry.is_file()]
    if len({tuple(header) for header, _ in parts}) > 1:
        raise UserError("the classes of the folder have different columns", where=path, got="; ".join(",".join(h) for h, _ in parts))
    return parts[0][0], enumerate((record for _, rows in parts for _, record in rows), start=1)


def _read_parquet(path: Path) -> tuple[list[str], Rows]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"the table cannot be read: {error}", where=path) from None
    header = [_RENAMED.get(name.strip().lower(), name.strip().lower()) for name in table.column_names]
    columns = [column.to_pylist() for column in table.columns]
    return header, enumerate((["" if value is None else str(value) for value in values] for values in zip(*columns, strict=True)), start=1)


def _read_fasta(text: str) -> tuple[list[str], Rows]:
    """`>name|label` (Nucleotide Transformer) gives labels; names like chr1:100-200 give coordinates, 0-based, half-open."""
    records = [block.split("\n", 1) for block in re.split(r"^>", text, flags=re.MULTILINE)[1:]]
    headers = [header.strip() for header, *_ in records]
    sequences = ["".join(body[0].split()) if body else "" for _, *body in records]
    columns = {"sequence": sequences}
    regions = [_REGION.match(header) for header in headers]
    if headers and all(regions):
        columns |= {name: [region[group] for region in regions] for name, group in (("chrom", 1), ("start", 2), ("end", 3))}
        if all(region[4] for region in regions):
            columns["strand"] = [region[4] for region in regions]
    if headers and all("|" in header for header in headers):
        columns["label"] = [header.rsplit("|", 1)[1].split()[0] for header in headers]
    return list(columns), enumerate(map(list, zip(*columns.values(), strict=True)), start=1)


def _stem(path: Path) -> tuple[str, str]:
    """Name without suffixes, and the suffix before .gz."""
    bare = Path(path.name.removesuffix(".gz"))
    return bare.stem, bare.suffix


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
        return (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8-sig")
    except (OSError, EOFError, gzip.BadGzipFile, UnicodeDecodeError) as error:
        raise UserError(f"the table cannot be read: {error}", where=path) from None
