"""The store: one row a base, memory-mapped Arrow IPC parts that serve every vocabulary. docs/formats.md describes the files.

base    uint8   A 0, C 1, G 2, T 3
level   uint16  the cycle at which the token boundary before this base disappears; 65,535: never
masked  bool    lower case in the FASTA
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa

from grover_dist.errors import UserError
from grover_dist.genome.contigs import ContigTable

FORMAT = "grover_dist.store"
FORMAT_VERSION = 1
BATCH_ROWS = 1 << 20
NEVER = 65_535
SCHEMA = pa.schema(
    [
        pa.field("base", pa.uint8(), nullable=False),
        pa.field("level", pa.uint16(), nullable=False),
        pa.field("masked", pa.bool_(), nullable=False),
    ]
)


def part_name(index: int) -> str:
    return f"part-{index:05d}.arrow"


def write_part(path: Path, batches: Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]], metadata: Mapping[str, object]) -> int:
    """Write one part from (base, level, masked) pieces, each a record batch; returns its rows.

    metadata becomes the schema's: every value as JSON text, beside the format's name and version.
    """
    described = {"format": FORMAT, "version": FORMAT_VERSION, **metadata}
    schema = SCHEMA.with_metadata({key: json.dumps(value) for key, value in described.items()})
    rows = 0
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for base, level, masked in batches:
            assert 0 < len(base) == len(level) == len(masked) <= BATCH_ROWS
            rows += len(base)
            arrays = [pa.array(base, pa.uint8()), pa.array(level, pa.uint16()), pa.array(masked, pa.bool_())]
            writer.write_batch(pa.record_batch(arrays, schema=schema))
    return rows


@dataclass(frozen=True)
class Part:
    """One memory-mapped file. bases, levels: a view of each record batch's column; masks: the Arrow columns, a bit a row."""

    path: Path
    first_row: int
    metadata: Mapping[str, object]
    bases: list[np.ndarray]
    levels: list[np.ndarray]
    masks: list[pa.Array]

    @property
    def row_stop(self) -> int:
        return self.first_row + sum(map(len, self.bases))


class Store:
    """Reads the parts in `path`/store and `path`/contigs.json. Slices inside a batch are views of the mapped file, others copies."""

    def __init__(self, path: Path, contigs: ContigTable, parts: list[Part]) -> None:
        self.path, self.contigs, self.parts = path, contigs, parts
        bases = [batch for part in parts for batch in part.bases]
        levels = [batch for part in parts for batch in part.levels]
        self._columns = (bases, levels, [batch for part in parts for batch in part.masks])
        # Edges of all record batches in rows, and where in memory their columns lie: compiled loops read windows by address.
        self.batch_edges = np.concatenate([[0], np.cumsum([len(batch) for batch in bases])])
        self.base_address = np.array([batch.ctypes.data for batch in bases], np.int64)
        self.level_address = np.array([batch.ctypes.data for batch in levels], np.int64)

    @classmethod
    def open(cls, path: str | Path) -> Store:
        """`path`: the folder of a learn artefact. UserError where a part is missing, of another kind, or does not follow the one before."""
        path = Path(path)
        files = sorted((path / "store").glob("part-*.arrow"))
        if not files or not (path / "contigs.json").is_file():
            raise UserError("there is no store here", where=path, expected="contigs.json and store/part-00000.arrow")
        contigs = ContigTable.from_json((path / "contigs.json").read_bytes())
        parts = [open_part(file) for file in files]
        expected_row = 0
        for part in parts:
            if part.first_row != expected_row:
                raise UserError("a part of the store is missing", where=part.path, got=f"first row {part.first_row}", expected=expected_row)
            if part.metadata["learner"] != parts[0].metadata["learner"]:
                raise UserError(
                    "the parts of the store come from different learning runs", where=part.path, hint="delete the store and learn again"
                )
            expected_row = part.row_stop
        if expected_row != contigs.n_rows:
            raise UserError(
                "the store does not hold the whole genome",
                where=path / "store",
                got=f"{expected_row:,} rows",
                expected=f"{contigs.n_rows:,}",
            )
        return cls(path, contigs, parts)

    def __reduce__(self):
        return Store.open, (self.path,)

    @property
    def n_rows(self) -> int:
        return int(self.batch_edges[-1])

    @property
    def learner(self) -> str:
        """Digest of the merges that the levels were made by."""
        return str(self.parts[0].metadata["learner"])

    def base(self, row_start: int, row_stop: int) -> np.ndarray:
        """Base codes uint8[row_stop - row_start]."""
        return self._column(0, row_start, row_stop, np.uint8)

    def level(self, row_start: int, row_stop: int) -> np.ndarray:
        """Boundary levels uint16[row_stop - row_start]; base i starts a token at `c` cycles iff level[i] > c."""
        return self._column(1, row_start, row_stop, np.uint16)

    def masked(self, row_start: int, row_stop: int) -> np.ndarray:
        """Soft mask bool[row_stop - row_start]."""
        return self._column(2, row_start, row_stop, bool)

    def batches(self, row_start: int = 0, row_stop: int | None = None) -> Iterator[tuple[int, int]]:
        """(row_start, row_stop) of the pieces that lie in one record batch each."""
        row_stop = self.n_rows if row_stop is None else row_stop
        if not 0 <= row_start <= row_stop <= self.n_rows:
            raise IndexError(f"rows {row_start}..{row_stop} are not inside 0..{self.n_rows}")
        first, last = np.searchsorted(self.batch_edges, (row_start, row_stop), side="right")
        edges = [row_start, *self.batch_edges[first:last].tolist(), row_stop]
        return ((start, stop) for start, stop in pairwise(edges) if start < stop)

    def _column(self, column: int, row_start: int, row_stop: int, dtype: type) -> np.ndarray:
        pieces = []
        for start, stop in self.batches(row_start, row_stop):
            batch = int(np.searchsorted(self.batch_edges, start, side="right")) - 1
            offset = start - int(self.batch_edges[batch])
            piece = self._columns[column][batch][offset : offset + stop - start]
            pieces.append(piece if isinstance(piece, np.ndarray) else piece.to_numpy(zero_copy_only=False))
        if len(pieces) == 1:
            return pieces[0]
        return np.concatenate(pieces) if pieces else np.empty(0, dtype)


def open_part(path: Path) -> Part:
    """Map one file and find its columns. UserError where it is cut short or not a part of a store."""
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        batches = [reader.get_batch(index) for index in range(reader.num_record_batches)]
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(
            f"a part of the store cannot be read: {error}", where=path, hint="delete the artefact's folder and learn again"
        ) from None
    metadata = {key.decode(): json.loads(value) for key, value in (reader.schema.metadata or {}).items()}
    if metadata.get("format") != FORMAT or not reader.schema.remove_metadata().equals(SCHEMA):
        raise UserError("this Arrow file is not a part of a store", where=path, expected=f"columns {', '.join(SCHEMA.names)}")
    if metadata["version"] != FORMAT_VERSION:
        raise UserError("the store has another format version", where=path, got=metadata["version"], expected=FORMAT_VERSION)
    return Part(
        path=path,
        first_row=metadata["first_row"],
        metadata=metadata,
        bases=[batch.column(0).to_numpy() for batch in batches],
        levels=[batch.column(1).to_numpy() for batch in batches],
        masks=[batch.column(2) for batch in batches],
    )
