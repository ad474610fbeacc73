"""Contigs: the maximal runs of A, C, G, T of a genome, and the map between record coordinates and rows.

A row is a position in the concatenation of all contigs in file order. Record coordinates are 0-based and half-open.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from grover_dist.errors import UserError, nearest


@dataclass(frozen=True)
class ContigTable:
    """record int32[n], start_bp and end_bp int64[n] in the record, row_start int64[n + 1].

    The record_* tuples describe every record read, also those without a contig. record_assemblies: the genome that each belongs to.
    record_digests: refget sequence digests (SHA-512/24 of the upper-case letters, https://samtools.github.io/hts-specs/refget.html).
    """

    record: np.ndarray
    start_bp: np.ndarray
    end_bp: np.ndarray
    row_start: np.ndarray
    record_names: tuple[str, ...]
    record_lengths_bp: tuple[int, ...]
    record_sources: tuple[str, ...]
    record_digests: tuple[str, ...]
    record_assemblies: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.record)

    @property
    def n_rows(self) -> int:
        return int(self.row_start[-1])

    @cached_property
    def _index_of_record(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.record_names)}

    def record_index(self, name: str) -> int:
        """Raises UserError with the nearest names."""
        if name not in self._index_of_record:
            same = [f"'{other}'" for other in self.record_names if other.removeprefix("chr") == name.removeprefix("chr")]
            raise UserError(
                f"the genome has no record '{name}'",
                got=name,
                expected=f"one of its {len(self.record_names)} record names",
                hint=f"nearest: {', '.join(same) or nearest(name, self.record_names)}; write the name as the FASTA has it",
            )
        return self._index_of_record[name]

    def check_interval(self, record: str, start_bp: int, end_bp: int) -> int:
        """The record's index, if 0 <= start_bp < end_bp <= its length; else UserError."""
        index = self.record_index(record)
        check_bounds(record, start_bp, end_bp, self.record_lengths_bp[index])
        return index

    def rows_of(self, record: str, start_bp: int, end_bp: int) -> list[tuple[int, int]]:
        """The rows of a region, one (row_start, row_stop) for each contig that it touches; empty where it has no real base."""
        index = self.check_interval(record, start_bp, end_bp)
        first, last = np.searchsorted(self.record, [index, index + 1])
        first += np.searchsorted(self.end_bp[first:last], start_bp, side="right")
        pieces = []
        for contig in range(first, last):
            if self.start_bp[contig] >= end_bp:
                break
            offset = self.row_start[contig] - self.start_bp[contig]
            pieces.append((int(max(start_bp, self.start_bp[contig]) + offset), int(min(end_bp, self.end_bp[contig]) + offset)))
        return pieces

    @property
    def assemblies(self) -> tuple[str, ...]:
        """Names of the genomes, in the order of their first record."""
        return tuple(dict.fromkeys(self.record_assemblies))

    def assembly_of(self, rows: np.ndarray) -> np.ndarray:
        """Index into `assemblies` of each row."""
        number = {name: index for index, name in enumerate(self.assemblies)}
        of_record = np.array([number[name] for name in self.record_assemblies])
        return of_record[self.record[self.contig_of(rows)]]

    def contig_of(self, rows: np.ndarray) -> np.ndarray:
        """Index of the contig of each row."""
        return np.searchsorted(self.row_start, rows, side="right") - 1

    def locate_rows(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(record index, position_bp) of each row."""
        contig = self.contig_of(rows)
        return self.record[contig], rows - self.row_start[contig] + self.start_bp[contig]

    def locate(self, row: int) -> tuple[str, int]:
        record, position_bp = self.locate_rows(np.array([row]))
        return self.record_names[int(record[0])], int(position_bp[0])

    def rows_of_positions(self, records: np.ndarray, positions_bp: np.ndarray) -> np.ndarray:
        """Row of each (record index, position_bp), -1 where that base is in no contig."""
        longest = max(self.record_lengths_bp, default=0) + 1
        starts = self.record.astype(np.int64) * longest + self.start_bp
        contig = np.searchsorted(starts, np.asarray(records, np.int64) * longest + positions_bp, side="right") - 1
        known = (contig >= 0) & (self.record[contig] == records) & (positions_bp < self.end_bp[contig])
        return np.where(known, self.row_start[contig] + positions_bp - self.start_bp[contig], -1)

    def to_json(self) -> dict[str, Any]:
        return {
            "record": self.record.tolist(),
            "start_bp": self.start_bp.tolist(),
            "end_bp": self.end_bp.tolist(),
            "records": [
                {"name": name, "length_bp": length, "source": source, "assembly": assembly, "digest": digest}
                for name, length, source, assembly, digest in zip(
                    self.record_names,
                    self.record_lengths_bp,
                    self.record_sources,
                    self.record_assemblies,
                    self.record_digests,
                    strict=True,
                )
            ],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | str | bytes) -> ContigTable:
        if isinstance(data, (str, bytes)):
            data = json.loads(data)
        start_bp, end_bp = np.array(data["start_bp"], np.int64), np.array(data["end_bp"], np.int64)
        records = data["records"]
        return cls(
            record=np.array(data["record"], np.int32),
            start_bp=start_bp,
            end_bp=end_bp,
            row_start=np.concatenate([[0], np.cumsum(end_bp - start_bp)]).astype(np.int64),
            record_names=tuple(item["name"] for item in records),
            record_lengths_bp=tuple(item["length_bp"] for item in records),
            record_sources=tuple(item["source"] for item in records),
            record_digests=tuple(item["digest"] for item in records),
            record_assemblies=tuple(item.get("assembly", item["source"]) for item in records),
        )


def check_bounds(record: str, start_bp: int, end_bp: int, length_bp: int) -> None:
    """UserError unless 0 <= start_bp < end_bp <= length_bp."""
    where = f"{record}:{start_bp:,}-{end_bp:,}"
    if start_bp >= end_bp:
        raise UserError(
            "the region is empty or reversed: its start is not below its end", where=where, hint="write start-end, 0-based, half-open"
        )
    if start_bp < 0 or end_bp > length_bp:
        raise UserError(
            "the region reaches outside its record", where=where, expected=f"0 to {length_bp:,}", hint="choose a region inside the record"
        )
