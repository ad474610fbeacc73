"""CTCF sites on the real chr22 piece with the GM12878 peaks, and planted ones on a small genome."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from grover_dist.config import TaskSettings
from grover_dist.errors import UserError
from grover_dist.finetune.builders.ctcf import build_ctcf_bind
from grover_dist.finetune.tables import read_task


def silent(_text):
    return None


def rows_of(path):
    with open(path) as lines:
        return list(csv.DictReader(lines, delimiter="\t"))


@pytest.fixture(scope="module")
def built(chr22, data_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ctcf")
    peaks = data_dir / "ctcf" / "hg19_chr22_Gm12878_CTCF.narrowPeak.gz"
    manifest = build_ctcf_bind(chr22, peaks, folder / "c.tsv", piece=True, say=silent)
    return peaks, folder / "c.tsv", json.loads(manifest.read_text())


def test_sites_of_chr22_are_bound_far_more_often_than_chance(built, chr22):
    _, path, facts = built
    rows = rows_of(path)
    bound = np.array([row["label"] == "1" for row in rows])
    score = np.array([float(row["score"]) for row in rows])
    # 117 peaks of some 300 bp on 5.7 million bases: a site by chance is bound once in two hundred times.
    assert len(rows) > 100 and bound.mean() > 0.2 and facts["bound"] == bound.sum()
    assert score[bound].mean() > score[~bound].mean() and score.min() >= facts["threshold_bits"] - 1e-3
    assert all(int(row["end"]) - int(row["start"]) == 1_000 for row in rows)
    assert {row["strand"] for row in rows} == {"+", "-"}


def test_labels_equal_a_loop_over_all_peaks(built):
    import gzip

    peaks, path, _ = built
    with gzip.open(peaks, "rt") as lines:
        intervals = [(int(f[1]), int(f[2])) for f in (line.split("\t") for line in lines)]
    for row in rows_of(path):
        site = int(row["site"])
        assert (row["label"] == "1") == any(low < site + 19 and site < high for low, high in intervals)


def test_the_table_is_a_task(built, chr22):
    table = read_task(chr22.config, TaskSettings(name="ctcf", train=built[1]), chr22)
    assert all(len(sequence) == 1_000 for part in table.parts.values() for sequence in part.sequences)
    assert not set(table.parts["train"].group) & set(table.parts["validation"].group)
    assert not set(table.parts["train"].group) & set(table.parts["test"].group)


def test_summits_decide_where_asked_for(built, chr22, tmp_path):
    peaks = built[0]
    manifest = build_ctcf_bind(chr22, peaks, tmp_path / "s.tsv", summit_within_bp=30, piece=True, say=silent)
    assert 0 < json.loads(manifest.read_text())["bound"] < built[2]["bound"]
    (tmp_path / "p.bed").write_text("chr22\t17255482\t17255842\n")
    with pytest.raises(UserError, match="peaks without summits"):
        build_ctcf_bind(chr22, tmp_path / "p.bed", tmp_path / "t.tsv", summit_within_bp=30, say=silent)


def test_faults_are_named(built, chr22, tmp_path):
    peaks = built[0]
    with pytest.raises(UserError, match="past the end of their record"):
        build_ctcf_bind(chr22, peaks, tmp_path / "t.tsv", say=silent)
    lines = [" ".join("97" if base == 1 + place % 2 else "1" for place in range(40)) for base in range(4)]  # CGCGCG...
    (tmp_path / "long.jaspar").write_text("\n".join([">long", *lines]))
    with pytest.raises(UserError, match="matches nowhere in the genome"):
        build_ctcf_bind(chr22, peaks, tmp_path / "t.tsv", motif=tmp_path / "long.jaspar", p_value=1e-12, piece=True, say=silent)
    (tmp_path / "off.bed").write_text("22\t100\t200\n")
    with pytest.raises(UserError, match="one class only"):
        build_ctcf_bind(chr22, tmp_path / "off.bed", tmp_path / "t.tsv", say=silent)
    assert not (tmp_path / "t.tsv").exists()
