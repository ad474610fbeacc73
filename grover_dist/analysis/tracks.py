"""Annotations of the settings laid over the rows of the store: classes of intervals, signals, and anchors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from grover_dist.config import AnchorSettings, TrackSettings
from grover_dist.errors import UserError
from grover_dist.genome import intervals as readers
from grover_dist.genome.contigs import ContigTable
from grover_dist.genome.intervals import NO_POINT, Intervals, match_records

SIGNALS = ("bedgraph", "bigwig")
_READERS = {
    "bed": readers.read_bed,
    "narrowpeak": readers.read_narrow_peak,
    "bedgraph": readers.read_bed_graph,
    "refgene": readers.read_refgene,
    "sgd": readers.read_sgd_features,
    "rmsk": readers.read_rmsk,
    "repeatmasker": readers.read_repeat_masker,
}
_ONE = "annotated"


@dataclass(frozen=True)
class ClassTrack:
    """Intervals in rows, sorted by their first row; kind int64: index into `classes`."""

    name: str
    classes: tuple[str, ...]
    row_start: np.ndarray
    row_stop: np.ndarray
    kind: np.ndarray
    longest: int

    def over(self, row_start: int, row_stop: int) -> Iterator[tuple[int, int, int]]:
        """(class, first row, row after the last) of the intervals that overlap these rows, cut to them."""
        low = np.searchsorted(self.row_start, row_start - self.longest, side="left")
        high = np.searchsorted(self.row_start, row_stop, side="left")
        for place in range(int(low), int(high)):
            start, stop = max(row_start, int(self.row_start[place])), min(row_stop, int(self.row_stop[place]))
            if start < stop:
                yield int(self.kind[place]), start, stop

    def mask(self, kind: int, row_start: int, row_stop: int) -> np.ndarray:
        """bool [row_stop - row_start]: rows inside an interval of the class."""
        found = np.zeros(row_stop - row_start, bool)
        for which, start, stop in self.over(row_start, row_stop):
            if which == kind:
                found[start - row_start : stop - row_start] = True
        return found

    def of_rows(self, row_start: int, row_stop: int) -> np.ndarray:
        """int64 [row_stop - row_start]: class of each row, -1 where there is none; of overlapping intervals the later one."""
        found = np.full(row_stop - row_start, -1, np.int64)
        for which, start, stop in self.over(row_start, row_stop):
            found[start - row_start : stop - row_start] = which
        return found

    def labels(self, row_start: np.ndarray, row_stop: np.ndarray, *, at_least: float = 0.5) -> np.ndarray:
        """Text [n]: the class that covers most of each window, "" where none covers `at_least` of it."""
        found = np.full(len(row_start), "", object)
        for line, (start, stop) in enumerate(zip(row_start.tolist(), row_stop.tolist(), strict=True)):
            covered = np.zeros(len(self.classes))
            for kind in {kind for kind, _, _ in self.over(start, stop)}:
                covered[kind] = self.mask(kind, start, stop).mean()
            if len(covered) and covered.max() >= at_least:
                found[line] = self.classes[int(covered.argmax())]
        return found.astype(str)


@dataclass(frozen=True)
class SignalTrack:
    """A value along the genome. row float64: middles of the intervals in rows, ascending; value float64."""

    name: str
    row: np.ndarray
    value: np.ndarray
    contig: np.ndarray

    def of_windows(self, contigs: ContigTable, row_start: np.ndarray, row_stop: np.ndarray) -> np.ndarray:
        """float64 [n]: mean of the points inside each window; where there are none, between the nearest of its contig; NaN without any."""
        low, high = np.searchsorted(self.row, row_start), np.searchsorted(self.row, row_stop)
        sums = np.concatenate([[0.0], np.cumsum(self.value)])
        middle = (row_start + row_stop) / 2
        with np.errstate(invalid="ignore", divide="ignore"):
            found = np.where(high > low, (sums[high] - sums[low]) / (high - low), np.nan)
        for contig in np.unique(contigs.contig_of(row_start)):
            mine, here = contigs.contig_of(row_start) == contig, self.contig == contig
            if here.any():
                empty = mine & np.isnan(found)
                found[empty] = np.interp(middle[empty], self.row[here], self.value[here])
        return found

    def labels(self, contigs: ContigTable, row_start: np.ndarray, row_stop: np.ndarray) -> np.ndarray:
        """Text [n]: "low" and "high" for the outer thirds of the windows' values, "" between."""
        values = self.of_windows(contigs, row_start, row_stop)
        known = np.isfinite(values)
        found = np.full(len(values), "", "<U4")
        if known.any():
            low, high = np.quantile(values[known], [1 / 3, 2 / 3])
            found[known & (values <= low)], found[known & (values >= high)] = "low", "high"
            if low == high:
                found[:] = ""
        return found


Track = ClassTrack | SignalTrack


def load_track(settings: TrackSettings, contigs: ContigTable) -> Track:
    """UserError where the file is of another assembly, or no class is left."""
    where = f"analysis.tracks '{settings.name}', {settings.path}"
    if settings.format == "bigwig":
        return _signal(settings.name, read_big_wig(settings.path), contigs, where)
    found = _read(settings.path, settings.format, settings.feature)
    if settings.format == "bedgraph":
        return _signal(settings.name, found, contigs, where)
    names = _classes(found, settings)
    kept = np.array([any(fnmatchcase(name, pattern) for pattern in settings.select) for name in names], bool)
    if not kept.any():
        known = sorted(set(names.tolist()))
        expected = f"patterns over {', '.join(known[:12])}"
        raise UserError("no interval of the track is selected", where=where, got=", ".join(settings.select), expected=expected)
    matched, _ = match_records(_with_names(found.take(kept), names[kept]), contigs, where=where)
    # A genome may be a piece of the annotated one: what reaches past its records is left out.
    matched = matched.take(matched.end_bp > matched.start_bp).inside(contigs)
    classes = tuple(sorted(set(matched.name.tolist())))
    index = {name: place for place, name in enumerate(classes)}
    lines = zip(matched.record, matched.start_bp.tolist(), matched.end_bp.tolist(), matched.name, strict=True)
    rows = [
        (start, stop, index[name]) for record, start_bp, end_bp, name in lines for start, stop in contigs.rows_of(record, start_bp, end_bp)
    ]
    if not rows:
        raise UserError("no interval lies on a known base of the genome", where=where, hint="give the annotation of this assembly")
    table = np.array(sorted(rows), np.int64)
    return ClassTrack(settings.name, classes, table[:, 0], table[:, 1], table[:, 2], int((table[:, 1] - table[:, 0]).max()))


def load_anchors(settings: AnchorSettings, contigs: ContigTable) -> tuple[np.ndarray, np.ndarray]:
    """(rows int64, minus bool) of the anchors that lie on a known base; each place once."""
    where = f"grammar.anchors '{settings.name}', {settings.path}"
    found = _read(settings.path, settings.format, settings.feature)
    names = np.array([_class_of(str(name), settings.format) for name in found.name], object)
    found = found.take(np.array([any(fnmatchcase(name, pattern) for pattern in settings.select) for name in names], bool))
    found, _ = match_records(found, contigs, where=where)
    found = found.inside(contigs)
    minus = found.strand == "-"
    first, last = np.where(minus, found.end_bp - 1, found.start_bp), np.where(minus, found.start_bp, found.end_bp - 1)
    if settings.at == "summit" and (found.point_bp == NO_POINT).any():
        raise UserError("the annotation has lines without a summit", where=where, hint="set at: middle, or give a narrowPeak file")
    middle = (found.start_bp + found.end_bp) // 2
    position = {"start": first, "end": last, "middle": middle, "summit": found.point_bp}[settings.at]
    record = np.array([contigs.record_index(name) for name in found.record], np.int64)
    rows = contigs.rows_of_positions(record, position) if len(record) else np.empty(0, np.int64)
    places = np.unique(np.stack([rows, minus.astype(np.int64)], axis=1)[rows >= 0], axis=0).reshape(-1, 2)
    return places[:, 0], places[:, 1].astype(bool)


def read_big_wig(path: Path) -> Intervals:
    """The intervals of a bigWig with their values. UserError without the extra `tracks`."""
    try:
        import pybigtools
    except ImportError:
        raise UserError(
            "bigWig files need pybigtools", where=path, hint="install it with `pip install 'grover_dist[tracks]'`, or give a bedGraph"
        ) from None
    try:
        with pybigtools.open(str(path)) as handle:
            lines = [(name, start, end, value) for name in handle.chroms() for start, end, value in handle.records(name)]
    except (OSError, ValueError, pybigtools.BBIReadError) as error:
        raise UserError("the bigWig cannot be read", where=path, got=str(error)) from None
    n = len(lines)
    record, start, end, value = zip(*lines, strict=True) if lines else ((), (), (), ())
    dots, points = np.full(n, ".", object), np.full(n, NO_POINT, np.int64)
    return Intervals(
        np.array(record, object), np.array(start, np.int64), np.array(end, np.int64), dots, dots, np.array(value, np.float64), points
    )


def _read(path: Path, kind: str, feature: str) -> Intervals:
    if kind == "gtf":
        return readers.read_gtf(path, feature)
    if kind == "bigwig":
        return read_big_wig(path)
    return _READERS[kind](path)


def _signal(name: str, found: Intervals, contigs: ContigTable, where: str) -> SignalTrack:
    found, _ = match_records(found, contigs, where=where)
    found = found.inside(contigs)
    record = np.array([contigs.record_index(record) for record in found.record], np.int64)
    middle = (found.start_bp + np.maximum(found.end_bp, found.start_bp + 1) - 1) // 2
    rows = contigs.rows_of_positions(record, middle) if len(record) else np.empty(0, np.int64)
    known = np.flatnonzero((rows >= 0) & np.isfinite(found.score))
    if not len(known):
        raise UserError("no value of the track lies on a known base of the genome", where=where, hint="give the track of this assembly")
    order = known[np.argsort(rows[known], kind="stable")]
    return SignalTrack(name, rows[order].astype(np.float64), found.score[order], contigs.contig_of(rows[order]))


def _classes(found: Intervals, settings: TrackSettings) -> np.ndarray:
    if settings.classes == "strand":
        return found.strand
    if settings.classes == "one":
        return np.full(len(found), _ONE, object)
    return np.array([_class_of(str(name), settings.format) for name in found.name], object)


def _class_of(name: str, kind: str) -> str:
    """rmsk and .out: 'class/family'; SGD: the type; else the whole name."""
    return name.partition("|")[0] if kind in ("rmsk", "repeatmasker", "sgd") else name


def _with_names(found: Intervals, names: np.ndarray) -> Intervals:
    return Intervals(found.record, found.start_bp, found.end_bp, found.strand, names, found.score, found.point_bp)
