"""Annotations over rows: every format, both naming styles, records of another assembly, signals between their points."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from grover_dist.analysis.tracks import ClassTrack, SignalTrack, load_anchors, load_track
from grover_dist.config import AnchorSettings, TrackSettings
from grover_dist.errors import UserError
from grover_dist.genome.contigs import ContigTable

# chr1: bases 0-100 and 150-200 (rows 0-100 and 100-150); chr2: bases 0-50 (rows 150-200)
CONTIGS = ContigTable(
    np.array([0, 0, 1], np.int32),
    np.array([0, 150, 0]),
    np.array([100, 200, 50]),
    np.array([0, 100, 150, 200]),
    ("chr1", "chr2"),
    (200, 50),
    ("a", "a"),
    ("x", "y"),
    ("", ""),
)
OUT = """   SW   perc perc perc  query     position in query    matching  repeat      position in repeat
score   div. del. ins.  sequence  begin end   (left)   repeat    class/family begin end (left) ID

  463   1.3  0.6  1.7  chr1        11   20 (180) +  AluSx     SINE/Alu       1  300    (2)   1
  239  29.4  1.9  1.0  chr1       151  160  (40) C  L1MC4     LINE/L1      (10)  500  400   2
"""
RMSK = (
    "585\t463\t13\t6\t17\tchr1\t10\t20\t-180\t+\tAluSx\tSINE\tAlu\t1\t300\t-2\t1\n"
    "585\t239\t294\t19\t10\tchr1\t150\t160\t-40\t-\tL1MC4\tLINE\tL1\t-10\t500\t400\t2\n"
)


def track(tmp_path, text: str, **settings):
    path = tmp_path / "track"
    path.write_bytes(gzip.compress(text.encode()))
    return load_track(TrackSettings(name="t", path=path, **settings), CONTIGS)


@pytest.mark.parametrize(("kind", "text"), [("repeatmasker", OUT), ("rmsk", RMSK)])
def test_repeat_masker_and_ucsc_say_the_same(tmp_path, kind: str, text: str) -> None:
    found = track(tmp_path, text, format=kind)
    assert isinstance(found, ClassTrack) and found.classes == ("LINE/L1", "SINE/Alu")
    assert list(zip(found.row_start, found.row_stop, found.kind, strict=True)) == [(10, 20, 1), (100, 110, 0)]
    assert track(tmp_path, text, format=kind, select=["SINE*"]).classes == ("SINE/Alu",)
    assert track(tmp_path, text, format=kind, classes="strand").classes == ("+", "-")


def test_an_interval_over_a_gap_becomes_two(tmp_path) -> None:
    found = track(tmp_path, "1\t90\t160\tx\n2\t0\t50\ty\n")
    assert list(zip(found.row_start, found.row_stop, found.kind, strict=True)) == [(90, 100, 0), (100, 110, 0), (150, 200, 1)]
    assert found.of_rows(85, 115).tolist() == [-1] * 5 + [0] * 20 + [-1] * 5
    assert found.labels(np.array([95, 0, 140]), np.array([105, 20, 170])).tolist() == ["x", "", "y"]


def test_long_intervals_before_short_ones_are_seen(tmp_path) -> None:
    found = track(tmp_path, "chr1\t0\t90\tlong\nchr1\t10\t12\tshort\n")
    assert found.mask(found.classes.index("long"), 80, 95).tolist() == [True] * 10 + [False] * 5


def test_signals_are_means_inside_and_lines_between(tmp_path) -> None:
    found = track(tmp_path, "chr1\t10\t11\t1\nchr1\t20\t21\t3\nchr1\t40\t41\t5\nchr2\t5\t6\t9\n", format="bedgraph")
    assert isinstance(found, SignalTrack)
    starts, stops = np.array([5, 28, 0, 160, 105]), np.array([25, 32, 5, 170, 110])
    assert found.of_windows(CONTIGS, starts, stops)[:4].tolist() == [2.0, 4.0, 1.0, 9.0]
    assert np.isnan(found.of_windows(CONTIGS, starts, stops)[4])  # a contig without a point
    labels = found.labels(CONTIGS, starts, stops).tolist()
    assert labels[3] == "high" and labels[2] == "low" and labels[4] == ""


def test_anchors_are_read_along_their_strand(tmp_path) -> None:
    path = tmp_path / "points"
    path.write_text("chr1\t10\t20\ta\t0\t+\nchr1\t10\t20\tb\t0\t-\nchr1\t120\t130\tgap\t0\t+\nchr1\t10\t18\tc\t0\t+\n")
    rows, minus = load_anchors(AnchorSettings(name="p", path=path, at="start"), CONTIGS)
    assert list(zip(rows.tolist(), minus.tolist(), strict=True)) == [(10, False), (19, True)]  # one place once, none in the gap
    with pytest.raises(UserError, match="without a summit"):
        load_anchors(AnchorSettings(name="p", path=path, at="summit"), CONTIGS)


def test_other_assemblies_and_empty_selections_are_refused(tmp_path) -> None:
    with pytest.raises(UserError, match="records of the genome"):
        track(tmp_path, "scaffold_9\t0\t10\tx\n")
    with pytest.raises(UserError, match="no interval of the track is selected") as error:
        track(tmp_path, "chr1\t0\t10\tx\n", select=["y*"])
    assert "patterns over x" in str(error.value)
    with pytest.raises(UserError, match="no interval lies on a known base"):
        track(tmp_path, "chr1\t110\t120\tx\n")
    with pytest.raises(UserError, match="line 2"):
        track(tmp_path, "chr1\t0\t10\t1\nchr1\t0\tx\t1\n", format="bedgraph")
