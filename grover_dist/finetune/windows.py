"""Sequences to predict: a FASTA file record by record, tiled or at the places of a BED file, or places of a run's genome."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from grover_dist.corpus.store import Store
from grover_dist.errors import UserError, nearest
from grover_dist.finetune.places import UNKNOWN, region_codes
from grover_dist.genome.fasta import read_fasta
from grover_dist.genome.intervals import Intervals, match_records, read_bed
from grover_dist.genome.stage import CODE_OF_LETTER


@dataclass(frozen=True)
class Window:
    """codes: base codes uint8, 4 = another letter; of the minus strand where strand is '-'."""

    record: str
    start_bp: int
    end_bp: int
    strand: str
    codes: np.ndarray


@dataclass
class Windows:
    """What a prediction reads. `lengths_bp` of the records fills while the windows are read; `skipped` counts those without any base."""

    lengths_bp: dict[str, int] = field(default_factory=dict)
    skipped: int = 0

    def tiled(self, fasta: Path, window_bp: int, step_bp: int) -> Iterator[Window]:
        """Windows of `window_bp` every `step_bp`; the last one of a record ends at its end. A shorter record is one window."""
        for record in read_fasta(fasta):
            codes = CODE_OF_LETTER[record.letters]
            self.lengths_bp[record.name] = len(codes)
            last = max(0, len(codes) - window_bp)
            for start in [*range(0, last, step_bp), last]:
                yield from self._window(record.name, start, min(start + window_bp, len(codes)), ".", codes)

    def of_fasta(self, fasta: Path, regions: Intervals, where: Path) -> Iterator[Window]:
        """The regions in the order of the FASTA's records and of their starts. Names match with and without 'chr'."""
        waiting = {name: np.flatnonzero(regions.record == name) for name in dict.fromkeys(regions.record.tolist())}
        for record in read_fasta(fasta):
            codes = CODE_OF_LETTER[record.letters]
            self.lengths_bp[record.name] = len(codes)
            for name in [name for name in waiting if name.removeprefix("chr") == record.name.removeprefix("chr")]:
                rows = waiting.pop(name)
                for row in rows[np.argsort(regions.start_bp[rows], kind="stable")]:
                    start, end = int(regions.start_bp[row]), int(regions.end_bp[row])
                    if end > len(codes) or start >= end:
                        raise UserError(
                            "a region is not inside its record",
                            where=f"{where}, {name}:{start}-{end}",
                            expected=f"an end of at most {len(codes):,}",
                            hint="give the regions of this assembly",
                        )
                    yield from self._window(record.name, start, end, str(regions.strand[row]), codes)
        if waiting:
            raise UserError(
                "regions lie on records that the FASTA file does not have",
                where=where,
                got=", ".join(f"'{name}'" for name in list(waiting)[:5]),
                hint=f"nearest to '{next(iter(waiting))}': {nearest(next(iter(waiting)), self.lengths_bp)}",
            )

    def of_store(self, store: Store, regions: Intervals, where: Path) -> Iterator[Window]:
        """The regions of a run's genome, in the order of its records."""
        contigs = store.contigs
        self.lengths_bp |= dict(zip(contigs.record_names, contigs.record_lengths_bp, strict=True))
        matched, _ = match_records(regions, contigs, where=where)
        number = np.array([contigs.record_index(name) for name in matched.record], np.int64)
        for row in np.lexsort((matched.start_bp, number)):
            place = str(matched.record[row]), int(matched.start_bp[row]), int(matched.end_bp[row])
            strand = str(matched.strand[row])
            codes = region_codes(store, *place, minus=strand == "-", where=f"{where}, {place[0]}:{place[1]}-{place[2]}")
            if (codes != UNKNOWN).any():
                yield Window(*place, strand, codes)
            else:
                self.skipped += 1

    def _window(self, record: str, start: int, end: int, strand: str, codes: np.ndarray) -> Iterator[Window]:
        part = codes[start:end]
        if not (part != UNKNOWN).any():
            self.skipped += 1
            return
        if strand == "-":
            part = np.where(part == UNKNOWN, part, 3 - part)[::-1]
        yield Window(record, start, end, strand, np.ascontiguousarray(part))


def read_regions(path: Path) -> Intervals:
    regions = read_bed(path)
    if not len(regions):
        raise UserError("the file holds no region", where=path, expected="lines of BED")
    return regions
