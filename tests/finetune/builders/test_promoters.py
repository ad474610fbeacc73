"""PromID and PromScan on a small genome whose letters are known, and on the real chr22 piece with refGene."""

from __future__ import annotations

import csv
import gzip
import json
from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np
import pytest
from pyarrow import parquet

from grover_dist.bpe.vocabulary import Vocabulary
from grover_dist.config import TaskSettings
from grover_dist.errors import UserError
from grover_dist.finetune.builders.promoters import NEGATIVES, build_promid, build_promscan
from grover_dist.finetune.tables import read_task

COMPLEMENT = str.maketrans("ACGTN", "TGCAN")
VOCABULARY = Vocabulary(np.array([5, 9, 7]), np.array([8, 6, 7]), np.array([9, 8, 7]))


def silent(_text):
    return None


def pairs(text):
    return Counter(pairwise(text))


def write_bed(path, sites):
    path.write_text("".join(f"chr7\t{at}\t{at + 1}\tp{at}{strand}\t0\t{strand}\n" for at, strand in sites))
    return path


def test_promoters_and_negatives(tmp_path, genome):
    sites = [(at, "+-"[at % 2]) for at in (100, 300, 731, 980, 1_005, 1_500, 1_501, 1_600, 2_301, 2_990)]
    tss = write_bed(tmp_path / "tss.bed", sites)
    said = []
    manifest = build_promid(genome, tss, tmp_path / "p.parquet", vocabulary=VOCABULARY, cycles=3, away_bp=20, apart_bp=150, say=said.append)
    table = parquet.read_table(tmp_path / "p.parquet").to_pydict()
    kept = {int(name[1:-1]) for name in table["name"]}
    assert kept == {300, 731, 1_500, 1_501, 2_301}  # 1,600 is too near to 1,500; 100, 980, 1,005 and 2,990 touch an end or an N
    for row, name in enumerate(table["name"]):
        at, strand = int(name[1:-1]), name[-1]
        text = genome.letters[at - 249 : at + 51] if strand == "+" else genome.letters[at - 50 : at + 250].translate(COMPLEMENT)[::-1]
        assert table["sequence"][row] == text and text[249] == (
            genome.letters[at] if strand == "+" else genome.letters[at].translate(COMPLEMENT)
        )
        assert genome.letters[table["start"][row] : table["end"][row]] in (text, text.translate(COMPLEMENT)[::-1])
        assert Counter(table["base_shuffled"][row]) == Counter(table["token_shuffled"][row]) == Counter(text)
        assert pairs(table["dinucleotide_shuffled"][row]) == pairs(text)
        negative = table["genomic"][row]
        places = {genome.letters.find(negative), genome.letters.find(negative.translate(COMPLEMENT)[::-1])} - {-1}
        assert len(places) == 1
        start = places.pop()
        assert all(at < start - 20 or at >= start + 320 for at, _ in sites)
    facts = json.loads(manifest.read_text())
    assert facts["promoters"] == facts["rows"] == 5 and facts["left_out"]["nearer_than_apart_bp"] == 1
    assert facts["left_out"]["with unknown bases"] == 2 and facts["left_out"]["past the end of the record"] == 2
    assert facts["columns"][-4:] == list(NEGATIVES) and "p.parquet" in facts["table"] and "5 promoters" in said[0]


def test_a_task_reads_one_column_of_negatives(tmp_path, genome):
    generator = np.random.default_rng(0)
    sites = sorted({(int(at), "+-"[int(at) % 2]) for at in (*generator.integers(300, 700, 30), *generator.integers(1_300, 2_700, 80))})
    tss = write_bed(tmp_path / "tss.bed", sites)
    build_promid(genome, tss, tmp_path / "p.tsv.gz", negatives=["base_shuffled", "genomic"], apart_bp=1, away_bp=5, say=silent)
    with gzip.open(tmp_path / "p.tsv.gz", "rt") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t"))
    assert rows and set(rows[0]) == {"chrom", "start", "end", "strand", "name", "sequence", "base_shuffled", "genomic"}
    table = read_task(genome.config, TaskSettings(name="p", train=tmp_path / "p.tsv.gz", negatives="base_shuffled"), genome)
    assert table.classes == ("base_shuffled", "promoter")
    texts = {label: set() for label in table.classes}
    for part in table.parts.values():
        for sequence, label in zip(part.sequences, part.labels, strict=True):
            texts[table.classes[label]].add("".join("ACGTN"[code] for code in sequence))
    assert texts["promoter"] <= {row["sequence"] for row in rows} and texts["base_shuffled"] <= {row["base_shuffled"] for row in rows}
    assert not set(table.parts["train"].group) & set(table.parts["test"].group)
    with pytest.raises(UserError, match="no column 'dinucleotide_shuffled'"):
        read_task(genome.config, TaskSettings(name="p", train=tmp_path / "p.tsv.gz", negatives="dinucleotide_shuffled"), genome)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"negatives": ["nothing"]}, "unknown kind"),
        ({"negatives": ["token_shuffled"]}, "need a vocabulary"),
        ({"output": "p.xlsx"}, "does not say its format"),
        ({"output": "nowhere/p.tsv"}, "no such folder"),
    ],
)
def test_faults_are_named(tmp_path, genome, options, message):
    tss = write_bed(tmp_path / "tss.bed", [(1_500, "+")])
    options = {"negatives": ["base_shuffled"], "say": silent, **options}
    with pytest.raises(UserError, match=message):
        build_promid(genome, tss, tmp_path / options.pop("output", "p.tsv"), **options)
    assert {path.name for path in tmp_path.iterdir()} == {"tss.bed"}


def read_windows(path):
    with open(path) as lines:
        return list(csv.DictReader(lines, delimiter="\t"))


def test_the_real_piece_of_chr22_builds_promoters(tmp_path, chr22, data_dir):
    refgene = data_dir / "human" / "hg19_refGene_chr22.txt.gz"
    with pytest.raises(UserError, match="past the end of their record") as error:
        build_promid(chr22, refgene, tmp_path / "p.parquet", negatives=["genomic"], say=silent)
    assert "22 has 22,000,000 bases" in str(error.value)
    manifest = build_promid(chr22, refgene, tmp_path / "p.parquet", vocabulary=VOCABULARY, cycles=3, piece=True, say=silent)
    facts = json.loads(manifest.read_text())
    assert facts["format"] == "refgene" and facts["promoters"] > 80 and facts["without_genomic_negative"] == 0
    table = parquet.read_table(tmp_path / "p.parquet").to_pydict()
    promoters = "".join(table["sequence"])
    genomic = "".join(table["genomic"])
    assert promoters.count("CG") > 2 * genomic.count("CG")  # CpG islands: these are promoters
    # The sites are those of a direct reading of the file.
    with gzip.open(refgene, "rt") as lines:
        starts = {(int(f[4]) if f[3] == "+" else int(f[5]) - 1, f[3]) for f in (line.split("\t") for line in lines)}
    for start, end, strand in zip(table["start"], table["end"], table["strand"], strict=True):
        assert ((start + 249 if strand == "+" else end - 250), strand) in starts


def test_the_real_piece_of_chr22_builds_scans(tmp_path, chr22, data_dir):
    refgene = data_dir / "human" / "hg19_refGene_chr22.txt.gz"
    manifest = build_promscan(chr22, refgene, tmp_path / "s.tsv", piece=True, say=silent)
    facts, rows = json.loads(manifest.read_text()), read_windows(tmp_path / "s.tsv")
    assert facts["scans"] > 60 and facts["positives"] == facts["scans"] and len(rows) == facts["rows"]
    with gzip.open(refgene, "rt") as lines:
        starts = np.array(sorted({int(f[4]) if f[3] == "+" else int(f[5]) - 1 for f in (line.split("\t") for line in lines)}))
    scans, phases = defaultdict(list), []
    for row in rows:
        start, end = int(row["start"]), int(row["end"])
        inside = starts[(starts >= start) & (starts < end)]
        assert end - start == 1_000 and bool(len(inside)) == (row["label"] == "1")
        scans[row["scan"]].append((start, row["label"]))
        phases += (inside - start).tolist()
    for windows in scans.values():
        assert 2 <= len(windows) <= 10 and [label for _, label in windows].count("1") == 1
        assert max(start for start, _ in windows) - min(start for start, _ in windows) <= 9_000
        assert len({start % 1_000 for start, _ in windows}) == 1
    assert min(phases) < 200 and max(phases) > 800  # the site lies anywhere in its window
    task = read_task(chr22.config, TaskSettings(name="scan", train=tmp_path / "s.tsv"), chr22)
    assert all(part.scan is not None for part in task.parts.values())
    assert not set(task.parts["train"].scan) & set(task.parts["test"].scan) or not set(task.parts["train"].group) & set(
        task.parts["test"].group
    )
