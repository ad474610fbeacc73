"""The genome stage: FASTA in, one Arrow file of base codes and soft mask out, one row a base, contigs beside it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from grover_dist.config import Config
from grover_dist.errors import UserError
from grover_dist.genome.contigs import ContigTable
from grover_dist.genome.fasta import FastaRecord, check_exists, read_fasta_files
from grover_dist.run_dir import Artifact, RunDir, Work

BATCH_ROWS = 1 << 20
SCHEMA = pa.schema([pa.field("base", pa.uint8(), nullable=False), pa.field("masked", pa.bool_(), nullable=False)])
_SCAN_LETTERS = 1 << 22
OTHER_LETTER = 4
CODE_OF_LETTER = np.full(256, OTHER_LETTER, np.uint8)
for _code, _letter in enumerate(b"ACGT"):
    CODE_OF_LETTER[_letter] = CODE_OF_LETTER[_letter | 0x20] = _code


def build_genome(config: Config, run: RunDir, say: Callable[[str], None] = print) -> Artifact:
    """Stage "genome": `genome.arrow`, `contigs.json`, `summary.json`; for a synthetic genome also its FASTA and planted truth.

    The artefact is named by the content of the FASTA files, not by their place. UserError on any fault of the input.
    """
    settings: dict[str, Any] = {"include": config.genome.include, "exclude": config.genome.exclude}
    if config.genome.synthetic is not None:
        settings |= {"synthetic": config.genome.synthetic, "seed": config.seed}
    else:
        for path in config.genome.fasta:
            check_exists(path)
        settings["fasta_sha256"] = [_file_digest(path) for path in config.genome.fasta]
        if config.genome.assemblies:
            settings["assemblies"] = config.genome.assemblies

    def write(work: Work) -> None:
        paths = config.genome.fasta
        if config.genome.synthetic is not None:
            from grover_dist.genome.synthetic import make_genome  # compiles kernels that real genomes do not need

            make_genome(config.genome.synthetic, config.seed, work.path)
            paths = (work.path / "genome.fa",)
        summary = write_genome(paths, config.genome.include, config.genome.exclude, work, assemblies=config.genome.assemblies)
        work.counts |= {key: value for key, value in summary.items() if not isinstance(value, (dict, list))}
        work.counts["assemblies"] = summary["assemblies"]
        work.counts["sequences"] = {record["name"]: record["digest"] for record in summary["per_record"]}
        say(
            f"genome: {summary['bases']:,} bases in {summary['contigs']:,} contigs of {summary['records']:,} records, "
            f"GC {summary['gc']:.1%}, soft-masked {summary['soft_masked']:.1%}"
        )

    return run.once("genome", "genome", write, settings=settings, say=say)


def write_genome(
    paths: tuple[Path, ...], include: tuple[str, ...], exclude: tuple[str, ...], work: Work, *, assemblies: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Read the files and write the stage's three; returns the summary. Holds about one byte a base of the longest record. assemblies: of
    each file; by default its name without endings.
    """
    named = dict(zip(paths, assemblies or map(assembly_name, paths), strict=True))
    with pa.OSFile(str(work.file("genome.arrow")), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
        rows = _RowWriter(writer)
        scans = [_scan(record, rows) for record in read_fasta_files(paths, include, exclude)]
        rows.flush()
    if not scans:
        raise UserError(
            "no record is left to read", where="genome.include, genome.exclude", got=f"include {list(include)}, exclude {list(exclude)}"
        )
    starts = np.concatenate([scan.starts for scan in scans])
    ends = np.concatenate([scan.ends for scan in scans])
    if not len(starts):
        raise UserError("the genome has no A, C, G or T at all", where=", ".join(map(str, paths)), hint="check that this is the right file")
    contigs = ContigTable(
        record=np.repeat(np.arange(len(scans), dtype=np.int32), [len(scan.starts) for scan in scans]),
        start_bp=starts,
        end_bp=ends,
        row_start=np.concatenate([[0], np.cumsum(ends - starts)]),
        record_names=tuple(scan.name for scan in scans),
        record_lengths_bp=tuple(scan.length_bp for scan in scans),
        record_sources=tuple(scan.path.name for scan in scans),
        record_digests=tuple(scan.digest for scan in scans),
        record_assemblies=tuple(named[scan.path] for scan in scans),
    )
    summary = _summary(scans, contigs)
    work.write_json("contigs.json", contigs.to_json())
    work.write_json("summary.json", summary)
    return summary


def assembly_name(path: Path) -> str:
    """A FASTA file's name without its endings: what its genome is called where the settings do not name it."""
    return re.sub(r"(\.(fa|fasta|fna))?(\.(gz|bgz))?$|\.2bit$", "", path.name, flags=re.IGNORECASE) or path.name


def runs_of_bases(letters: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """(start, base codes uint8) of each maximal run of A, C, G, T in ASCII letters of either case."""
    codes = CODE_OF_LETTER[letters]
    edges = np.flatnonzero(np.diff(np.concatenate([[False], codes != OTHER_LETTER, [False]])))
    for start, stop in zip(edges[0::2].tolist(), edges[1::2].tolist(), strict=True):
        yield start, codes[start:stop]


@dataclass(frozen=True)
class _RecordScan:
    name: str
    path: Path
    length_bp: int
    digest: str
    starts: np.ndarray
    ends: np.ndarray
    bases: np.ndarray  # counts of A, C, G, T
    masked: int
    other: dict[str, int]


def _scan(record: FastaRecord, rows: _RowWriter) -> _RecordScan:
    """One pass over a record in pieces: its rows to the writer, its contigs, counts and digest back."""
    digest = hashlib.sha512()
    edges: list[np.ndarray] = []
    bases, masked, other = np.zeros(4, np.int64), 0, Counter()
    inside = False  # is the letter before this piece a base?
    for offset in range(0, len(record.letters), _SCAN_LETTERS):
        letters = record.letters[offset : offset + _SCAN_LETTERS]
        digest.update(letters.tobytes().upper())
        codes = CODE_OF_LETTER[letters]
        real = codes != OTHER_LETTER
        changes = np.flatnonzero(real[1:] != real[:-1]) + 1
        if real[0] != inside:
            changes = np.concatenate([[0], changes])
        edges.append(changes + offset)
        inside = bool(real[-1])
        lower = letters >= ord("a")
        if not real.all():
            counts = np.bincount(letters[~real], minlength=256)
            for letter in np.flatnonzero(counts):
                other[chr(letter).upper()] += int(counts[letter])
            codes, lower = codes[real], lower[real]
        bases += np.bincount(codes, minlength=4)
        masked += int(np.count_nonzero(lower))
        rows.add(codes, lower)
    if inside:
        edges.append(np.array([len(record.letters)]))
    flat = np.concatenate(edges).astype(np.int64)
    refget = "SQ." + base64.urlsafe_b64encode(digest.digest()[:24]).decode()
    return _RecordScan(
        record.name, record.source, len(record.letters), refget, flat[0::2], flat[1::2], bases, masked, dict(sorted(other.items()))
    )


class _RowWriter:
    """Cuts the stream of rows into record batches of exactly BATCH_ROWS (the last may be shorter)."""

    def __init__(self, writer: pa.ipc.RecordBatchFileWriter) -> None:
        self.writer = writer
        self.base, self.masked = np.empty(BATCH_ROWS, np.uint8), np.empty(BATCH_ROWS, bool)
        self.filled = 0

    def add(self, base: np.ndarray, masked: np.ndarray) -> None:
        done = 0
        while done < len(base):
            take = min(len(base) - done, BATCH_ROWS - self.filled)
            self.base[self.filled : self.filled + take] = base[done : done + take]
            self.masked[self.filled : self.filled + take] = masked[done : done + take]
            self.filled += take
            done += take
            if self.filled == BATCH_ROWS:
                self.flush()

    def flush(self) -> None:
        if self.filled:
            arrays = [pa.array(self.base[: self.filled]), pa.array(self.masked[: self.filled])]
            self.writer.write_batch(pa.record_batch(arrays, schema=SCHEMA))
            self.filled = 0


def _summary(scans: list[_RecordScan], contigs: ContigTable) -> dict[str, Any]:
    bases = sum(scan.bases for scan in scans)
    other: Counter[str] = Counter()
    for scan in scans:
        other.update(scan.other)
    per_record = np.bincount(contigs.record, minlength=len(scans))
    n_bases = int(bases.sum())
    return {
        "records": len(scans),
        "letters": sum(scan.length_bp for scan in scans),
        "bases": n_bases,
        "contigs": len(contigs),
        "gc": float((bases[1] + bases[2]) / n_bases),
        "soft_masked": sum(scan.masked for scan in scans) / n_bases,
        "other_letters": dict(sorted(other.items())),
        "assemblies": {
            name: {
                "records": contigs.record_assemblies.count(name),
                "bases": sum(int(scan.bases.sum()) for scan, of in zip(scans, contigs.record_assemblies, strict=True) if of == name),
            }
            for name in contigs.assemblies
        },
        "per_record": [
            {
                "name": scan.name,
                "source": scan.path.name,
                "assembly": assembly,
                "digest": scan.digest,
                "letters": scan.length_bp,
                "bases": int(scan.bases.sum()),
                "contigs": int(count),
                "gc": float((scan.bases[1] + scan.bases[2]) / max(1, scan.bases.sum())),
                "soft_masked_bases": scan.masked,
                "other_letters": scan.other,
            }
            for scan, assembly, count in zip(scans, contigs.record_assemblies, per_record, strict=True)
        ],
    }


def _file_digest(path: Path) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


class Genome:
    """A genome stage's rows, memory-mapped. Slices inside a record batch of bases are views, others are copies."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.contigs = ContigTable.from_json((path / "contigs.json").read_bytes())
        self.summary = json.loads((path / "summary.json").read_text())
        reader = pa.ipc.open_file(pa.memory_map(str(path / "genome.arrow")))
        batches = [reader.get_batch(index) for index in range(reader.num_record_batches)]
        self._bases = [batch.column(0).to_numpy() for batch in batches]
        self._masks = [batch.column(1) for batch in batches]  # a bit a row: unpacked where it is asked for
        self._batch_edges = [0, *accumulate(map(len, self._bases))]

    @property
    def n_rows(self) -> int:
        return self.contigs.n_rows

    def bases(self, row_start: int, row_stop: int) -> np.ndarray:
        """Base codes uint8[row_stop - row_start]: A 0, C 1, G 2, T 3."""
        return self._slice(self._bases, row_start, row_stop, np.uint8)

    def masked(self, row_start: int, row_stop: int) -> np.ndarray:
        """bool[row_stop - row_start]: was the base lower case (a repeat) in the FASTA?"""
        return self._slice(self._masks, row_start, row_stop, bool)

    def _slice(self, column: list, row_start: int, row_stop: int, dtype: type) -> np.ndarray:
        if not 0 <= row_start <= row_stop <= self.n_rows:
            raise IndexError(f"rows {row_start}..{row_stop} are not inside 0..{self.n_rows}")
        pieces = []
        batch = bisect_right(self._batch_edges, row_start) - 1
        while row_start < row_stop:
            edge, stop = self._batch_edges[batch], min(row_stop, self._batch_edges[batch + 1])
            piece = column[batch][row_start - edge : stop - edge]
            pieces.append(piece if isinstance(piece, np.ndarray) else piece.to_numpy(zero_copy_only=False))
            row_start, batch = stop, batch + 1
        if len(pieces) == 1:
            return pieces[0]
        return np.concatenate(pieces) if pieces else np.empty(0, dtype)


def open_genome(artifact: Artifact | str | Path) -> Genome:
    """The genome of a stage artefact or of its folder."""
    return Genome(artifact.path if isinstance(artifact, Artifact) else Path(artifact))
