"""The genome stage on small text, against the obvious way, and on two real genomes, against their answer keys."""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from grover_dist.config import config_from
from grover_dist.errors import UserError
from grover_dist.genome import stage
from grover_dist.genome.stage import assembly_name, build_genome, open_genome, runs_of_bases, write_genome
from grover_dist.run_dir import RunDir, Work


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(sequences=st.lists(st.text("ACGTacgtNnR", min_size=1, max_size=25), min_size=1, max_size=4), piece=st.integers(1, 30))
def test_any_text_gives_the_rows_that_the_obvious_way_gives(tmp_path_factory, monkeypatch, sequences, piece):
    real = re.sub("[^ACGTacgt]", "", "".join(sequences))
    if not real:
        return
    folder = tmp_path_factory.mktemp("genome")
    (folder / "genome.fa").write_text("".join(f">r{i}\n{text}\n" for i, text in enumerate(sequences)))
    monkeypatch.setattr(stage, "_SCAN_LETTERS", piece)
    monkeypatch.setattr(stage, "BATCH_ROWS", max(1, piece // 3))
    summary = write_genome((folder / "genome.fa",), ("*",), (), Work(folder, False))
    genome = open_genome(folder)
    assert "".join("ACGT"[code] for code in genome.bases(0, genome.n_rows)) == real.upper()
    assert genome.masked(0, genome.n_rows).tolist() == [letter.islower() for letter in real]
    assert genome.bases(1, genome.n_rows).tolist() == ["ACGT".index(letter) for letter in real.upper()[1:]]
    spans = [(i, found.start(), found.end()) for i, text in enumerate(sequences) for found in re.finditer("[ACGTacgt]+", text)]
    contigs = genome.contigs
    assert list(zip(contigs.record.tolist(), contigs.start_bp.tolist(), contigs.end_bp.tolist(), strict=True)) == spans
    others = re.sub("[ACGT]", "", "".join(sequences).upper())
    assert summary["other_letters"] == {letter: others.count(letter) for letter in sorted(set(others))}
    assert summary["bases"] == len(real)
    assert summary["gc"] == pytest.approx(sum(letter in "GCgc" for letter in real) / len(real))
    digest = hashlib.sha512(sequences[0].upper().encode()).digest()[:24]
    assert contigs.record_digests[0] == "SQ." + base64.urlsafe_b64encode(digest).decode()


def test_runs_of_bases():
    letters = np.frombuffer(b"NNacGTRyA", np.uint8)
    assert [(start, codes.tolist()) for start, codes in runs_of_bases(letters)] == [(2, [0, 1, 2, 3]), (8, [0])]
    assert list(runs_of_bases(np.frombuffer(b"NN", np.uint8))) == []


def test_a_genome_without_bases(genome_of, tmp_path):
    with pytest.raises(UserError, match="no A, C, G or T at all"):
        genome_of(">a\nNNNN\n>b\nRYK\n")
    assert not list((tmp_path / "run" / "genome").glob("genome-*"))
    assert not list((tmp_path / "run" / "genome").glob(".*.partial"))


def test_exclude_can_leave_nothing(genome_of):
    with pytest.raises(UserError, match="no record is left"):
        genome_of(">a\nACGT\n", exclude=["a"])


def test_the_artefact_follows_the_content_not_the_path(tmp_path):
    def build(path):
        config = config_from({"genome": {"fasta": str(path)}, "run": {"dir": str(path.with_suffix(""))}})
        return build_genome(config, RunDir.open(config), say=lambda _: None)

    for name, text in (("one.fa", ">a\nACGT\n"), ("two.fa", ">a\nACGA\n")):
        (tmp_path / name).write_text(text)
    first, other = build(tmp_path / "one.fa"), build(tmp_path / "two.fa")
    (tmp_path / "moved").mkdir()
    (tmp_path / "moved" / "one.fa").write_text(">a\nACGT\n")
    assert build(tmp_path / "moved" / "one.fa").digest == first.digest != other.digest
    (tmp_path / "one.fa").write_text(">a\nACGG\n")
    assert build(tmp_path / "one.fa").digest != first.digest


def test_slices_outside_the_genome(genome_of):
    genome = genome_of(">a\nACGT\n")
    assert genome.bases(2, 2).size == 0
    with pytest.raises(IndexError):
        genome.bases(0, 5)


def test_yeast(genome_of, data_dir):
    genome = genome_of([data_dir / "yeast" / "R64-1-1.fa.gz"])
    assert genome.summary["records"] == len(genome.contigs) == 17
    assert genome.n_rows == 12_157_105
    assert genome.summary["soft_masked"] == 0
    # The digest of chromosome I that refget servers know it by.
    assert genome.contigs.record_digests[0] == "SQ.lZyxiD_ByprhOUzrR1o1bq0ezO_1gkrn"


def test_chr22_soft_mask_equals_its_answer_key(genome_of, data_dir):
    genome = genome_of([data_dir / "human" / "hg19_chr22_1-22000000.fa.gz"])
    assert genome.n_rows == 5_699_979
    assert genome.summary["other_letters"] == {"N": 22_000_000 - 5_699_979}
    with gzip.open(data_dir / "human" / "hg19_chr22_softmask.bed.gz", "rt") as lines:
        key = np.array([line.split("\t")[1:3] for line in lines], np.int64)
    assert len(key) == 7_296
    wanted = np.zeros(22_000_001, np.int8)
    np.add.at(wanted, key[:, 0], 1)
    np.add.at(wanted, key[:, 1], -1)
    _, positions = genome.contigs.locate_rows(np.arange(genome.n_rows))
    masked = genome.masked(0, genome.n_rows)
    assert np.array_equal(masked, np.cumsum(wanted)[positions] > 0)
    assert masked.sum() == 2_743_023


def test_two_genomes_in_one(genome_of, data_dir):
    files = [data_dir / "yeast" / "R64-1-1.fa.gz", data_dir / "human" / "hg19_chr22_1-22000000.fa.gz"]
    genome = genome_of(files, include=["Mito", "22"])
    assert genome.contigs.record_names == ("Mito", "22")
    assert genome.contigs.record_sources == tuple(path.name for path in files)
    assert genome.n_rows == 85_779 + 5_699_979


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("hg19.fa.gz", "hg19"),
        ("R64-1-1.fasta", "R64-1-1"),
        ("mm39.2bit", "mm39"),
        ("x.y.fna.bgz", "x.y"),
        ("plain", "plain"),
        ("a.FA.GZ", "a"),
    ],
)
def test_a_genome_is_named_like_its_file(file, name):
    assert assembly_name(Path(file)) == name
