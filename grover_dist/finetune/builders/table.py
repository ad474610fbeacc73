"""A built table and its manifest: written under temporary names, the manifest last."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from grover_dist.errors import UserError
from grover_dist.run_dir import disk_error, versions, write_atomically

SUFFIXES = (".parquet", ".tsv", ".tsv.gz", ".csv", ".csv.gz")
_LETTERS = b"ACGTN"


def text_of(codes) -> str:
    return bytes(_LETTERS[code] for code in codes).decode()


def check_output(path: Path) -> None:
    """Before any work: a name that says its format, in a folder that is there."""
    if not path.name.endswith(SUFFIXES):
        raise UserError("the table's name does not say its format", where=path, expected=" or ".join(SUFFIXES))
    if not path.parent.is_dir():
        raise UserError("there is no such folder", where=path.parent, hint="make it first")


def write_table(
    path: Path, columns: Mapping[str, Sequence[Any]], *, kind: str, settings: Mapping[str, Any], inputs: Mapping[str, Path], **facts: Any
) -> Path:
    """Write the table and `<table>.manifest.json`; returns the manifest's path. None is an empty field, in Parquet a null."""
    table = pa.table(dict(columns))
    try:
        if path.suffix == ".parquet":
            content = pa.BufferOutputStream()
            parquet.write_table(table, content, compression="zstd")
            write_atomically(path, content.getvalue().to_pybytes())
        else:
            text = io.StringIO()
            writer = csv.writer(text, delimiter="\t" if ".tsv" in path.name else ",", lineterminator="\n")
            writer.writerow(table.column_names)
            writer.writerows(zip(*(["" if v is None else v for v in column.to_pylist()] for column in table.columns), strict=True))
            raw = text.getvalue().encode()
            write_atomically(path, gzip.compress(raw, mtime=0) if path.suffix == ".gz" else raw)
        manifest = {
            "kind": kind,
            "table": path.name,
            "sha256": _sha256(path),
            "rows": table.num_rows,
            "columns": table.column_names,
            "settings": dict(settings),
            "inputs": {name: {"file": file.name, "sha256": _sha256(file)} for name, file in inputs.items()},
            **facts,
            "versions": versions(),
        }
        target = path.with_name(f"{path.name}.manifest.json")
        write_atomically(target, json.dumps(manifest, indent=1, default=str).encode())
    except OSError as error:
        raise disk_error(error, path) from error
    return target


def _sha256(path: Path) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
