"""Transcription start sites and peaks from the files that people have, checked against the genome that they are used with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from grover_dist.errors import UserError
from grover_dist.genome.contigs import ContigTable
from grover_dist.genome.intervals import (
    Intervals,
    match_records,
    read_bed,
    read_bed_thick,
    read_gtf,
    read_narrow_peak,
    read_refgene,
    text_lines,
)

TssFormat = Literal["auto", "bed", "epdnew", "gtf", "refgene"]
TSS_FORMATS = ("auto", "bed", "epdnew", "gtf", "refgene")
EPDNEW_BP, EPDNEW_THICK_BP = 60, 11  # an EPDnew line reaches from -49 to +10, its thick part from the TSS to +10


def read_tss(path: Path, format: TssFormat = "auto") -> tuple[Intervals, str]:
    """(one base a line: the 5' end of a transcript or promoter, the format). Sorted, each place and strand once.

    bed: the 5' end of each line, by its strand. epdnew: the first base of the thick part. gtf: transcripts, or genes where there are
    none. UserError for lines without a strand.
    """
    if format not in TSS_FORMATS:
        raise UserError("unknown format of start sites", got=format, expected=", ".join(TSS_FORMATS))
    format = _tss_format(path) if format == "auto" else format
    if format == "gtf":
        lines = read_gtf(path, "transcript")
        lines = lines if len(lines) else read_gtf(path, "gene")
    elif format == "refgene":
        lines = read_refgene(path)
    elif format == "epdnew":
        lines = read_bed_thick(path)
    else:
        lines = read_bed(path)
    if not len(lines):
        raise UserError("the file holds no transcription start site", where=path, expected=f"lines of {format}")
    lost = ~np.isin(lines.strand, ("+", "-"))
    if lost.any():
        first = int(np.flatnonzero(lost)[0])
        raise UserError(
            "a transcription start site needs a strand",
            where=path,
            got=f"{int(lost.sum()):,} of {len(lines):,} lines have none, the first on {lines.record[first]} at {lines.start_bp[first]:,}",
            hint="give a BED of six columns, refGene, GTF or EPDnew",
        )
    tss = np.where(lines.strand == "+", lines.start_bp, lines.end_bp - 1)
    _, once = np.unique(np.stack([_numbers(lines.record), tss, lines.strand == "-"]), axis=1, return_index=True)
    return replace(lines.take(once), start_bp=tss[once], end_bp=tss[once] + 1), format


def _numbers(names: np.ndarray) -> np.ndarray:
    return np.unique(names.astype(str), return_inverse=True)[1]


def _tss_format(path: Path) -> TssFormat:
    fields = next((text.split("\t") for _, text in text_lines(Path(path))), [])
    if len(fields) == 9 and fields[3].isdigit():
        return "gtf"
    if len(fields) >= 13 and fields[3] in ("+", "-") and fields[4].isdigit():
        return "refgene"
    if len(fields) >= 8 and all(fields[i].isdigit() for i in (1, 2, 6, 7)):
        whole, thick = int(fields[2]) - int(fields[1]), int(fields[7]) - int(fields[6])
        if (whole, thick) == (EPDNEW_BP, EPDNEW_THICK_BP):
            return "epdnew"
    return "bed"


def read_peaks(path: Path) -> Intervals:
    """narrowPeak where the first line has its ten columns, else BED."""
    fields = next((text.split("\t") for _, text in text_lines(Path(path))), [])
    peaks = read_narrow_peak(path) if len(fields) == 10 else read_bed(path)
    if not len(peaks):
        raise UserError("the file holds no peak", where=path, expected="lines of narrowPeak or BED")
    return peaks


def on_genome(lines: Intervals, contigs: ContigTable, *, where: Path, piece: bool) -> tuple[Intervals, list[str]]:
    """(the lines under the genome's record names, what was done). UserError where names or lengths are those of another assembly.

    piece: the genome's records are pieces of the annotated ones from their start, so lines beyond their ends are left out.
    """
    matched, match = match_records(lines, contigs, where=where)
    notes = [f"{Path(where).name}: {match}"] if match.unknown or any(old != new for old, new in match.renamed.items()) else []
    lengths = dict(zip(contigs.record_names, contigs.record_lengths_bp, strict=True))
    beyond = matched.end_bp > np.array([lengths[record] for record in matched.record], np.int64)
    if beyond.any():
        reach = {
            name: int(matched.end_bp[(matched.record == name) & beyond].max()) for name in dict.fromkeys(matched.record[beyond].tolist())
        }
        told = "; ".join(f"{name} has {lengths[name]:,} bases and the file goes to {end_bp:,}" for name, end_bp in list(reach.items())[:5])
        if not piece:
            raise UserError(
                f"{int(beyond.sum()):,} of {len(matched):,} lines reach past the end of their record",
                where=where,
                got=told,
                expected="an annotation of this assembly",
                hint="give the file of the genome's own assembly; if the genome is a piece of it, add --piece and these lines are left out",
            )
        notes.append(f"{Path(where).name}: left out {int(beyond.sum()):,} lines beyond the piece of the genome ({told})")
        matched = matched.take(~beyond)
    if not len(matched):
        raise UserError("no line of the annotation lies on the genome", where=where, hint="give the file of the genome's own assembly")
    return matched, notes
