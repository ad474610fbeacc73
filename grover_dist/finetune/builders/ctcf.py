"""CTCF-bind: sites of a motif, bound where they lie in a ChIP-seq peak. Any other factor's motif and peaks do as well."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from grover_dist.errors import UserError
from grover_dist.finetune.builders.annotations import on_genome, read_peaks
from grover_dist.finetune.builders.motifs import MA0139_1, read_motif
from grover_dist.finetune.builders.scan import Sites, scan
from grover_dist.finetune.builders.table import check_output, write_table
from grover_dist.genome.intervals import NO_POINT, Intervals

WIDTH_BP = 1_000
P_VALUE = 1e-5  # about as many sites in the human genome as the paper's 85,000


def build_ctcf_bind(
    store,
    peaks: Path,
    output: Path,
    *,
    motif: Path = MA0139_1,
    motif_name: str | None = None,
    p_value: float = P_VALUE,
    width_bp: int = WIDTH_BP,
    summit_within_bp: int | None = None,
    piece: bool = False,
    say: Callable[[str], None] = print,
) -> Path:
    """One row a motif site: `chrom,start,end,strand,label,site,score`, the region of `width_bp` around the site's middle, label 1 where
    the site overlaps a peak by a base, or lies within `summit_within_bp` of a summit. Sites that overlap are thinned to the best.

    store: `contigs` and `base(row_start, row_stop)`. Returns the manifest's path. UserError for a motif that is nowhere, peaks of another
    assembly, one class only, and peaks without summits where they are asked for.
    """
    check_output(output)
    matrix = read_motif(motif, motif_name)
    lines, notes = on_genome(read_peaks(peaks), store.contigs, where=peaks, piece=piece)
    if summit_within_bp is not None and (lines.point_bp == NO_POINT).any():
        raise UserError(
            "peaks without summits",
            where=peaks,
            got=f"{int((lines.point_bp == NO_POINT).sum()):,} of {len(lines):,} peaks have none",
            expected="narrowPeak with its tenth column, the summit's offset",
            hint="give such a file, or leave --summit-within out: then overlap with the peak decides",
        )
    sites = scan(store, matrix, p_value)
    if not len(sites.row):
        raise UserError(
            "the motif matches nowhere in the genome",
            where=f"{motif}, motif '{matrix.name}'",
            got=f"best score {sites.best:.2f} bits",
            expected=f"{sites.threshold:.2f} bits or more (p = {p_value:g})",
            hint="raise --p-value, or check that it is the right motif",
        )
    columns, bound, at_edge = _label(store, lines, sites, matrix.width_bp, width_bp, summit_within_bp)
    n, n_bound = len(bound), int(bound.sum())
    if n_bound in (0, n):
        raise UserError(
            f"{'no' if n_bound == 0 else 'every'} motif site is bound: there is one class only",
            where=peaks,
            got=f"{n:,} sites, {len(lines):,} peaks",
            hint="is it the peaks of this assembly and this factor? a higher --p-value gives more sites",
        )
    say(
        f"ctcf-bind: {n:,} sites of {matrix.name} at p {p_value:g} ({sites.threshold:.2f} bits or more), {n_bound:,} bound; "
        f"{at_edge:,} too near to an end left out; {len(lines):,} peaks"
    )
    for note in notes:
        say(f"ctcf-bind: {note}")
    facts = {
        "motif": matrix.name,
        "threshold_bits": sites.threshold,
        "best_bits": sites.best,
        "sites": n,
        "bound": n_bound,
        "peaks": len(lines),
        "left_out": {"too near to an end": at_edge},
        "notes": notes,
        "genome": dict(zip(store.contigs.record_names, store.contigs.record_digests, strict=True)),
    }
    settings = {"p_value": p_value, "width_bp": width_bp, "summit_within_bp": summit_within_bp}
    return write_table(output, columns, kind="ctcf-bind", settings=settings, inputs={"peaks": peaks, "motif": motif}, **facts)


def _label(
    store, peaks: Intervals, sites: Sites, motif_bp: int, width_bp: int, summit_within_bp: int | None
) -> tuple[dict[str, Any], np.ndarray, int]:
    """The table's columns, bool of the bound ones, and how many sites lie too near to the end of a record."""
    contigs = store.contigs
    record, start_bp = contigs.locate_rows(sites.row)
    lengths = np.array(contigs.record_lengths_bp, np.int64)[record]
    left = start_bp + motif_bp // 2 - width_bp // 2
    inside = (left >= 0) & (left + width_bp <= lengths)
    record, start_bp, left, minus, score = (values[inside] for values in (record, start_bp, left, sites.minus, sites.score))
    bound = np.zeros(len(record), bool)
    for index, name in enumerate(contigs.record_names):
        of_peaks = peaks.record == name
        if summit_within_bp is None:
            low, high = peaks.start_bp[of_peaks], peaks.end_bp[of_peaks]
        else:
            low, high = peaks.point_bp[of_peaks] - summit_within_bp, peaks.point_bp[of_peaks] + summit_within_bp + 1
        mine = np.flatnonzero(record == index)
        # Sites and peaks overlap where more peaks begin before the site's end than end at or before its start.
        begun = np.searchsorted(np.sort(low), start_bp[mine] + motif_bp, side="left")
        ended = np.searchsorted(np.sort(high), start_bp[mine], side="right")
        bound[mine] = begun > ended
    names = np.array(contigs.record_names, object)[record]
    columns = {
        "chrom": names.tolist(),
        "start": left.tolist(),
        "end": (left + width_bp).tolist(),
        "strand": np.where(minus, "-", "+").tolist(),
        "label": bound.astype(int).tolist(),
        "site": start_bp.tolist(),
        "score": np.round(score, 3).tolist(),
    }
    return columns, bound, int((~inside).sum())
