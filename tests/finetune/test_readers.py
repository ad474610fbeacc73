"""Files as they are published: FASTA with labels or regions, a file for each class, Genomic Benchmarks' folders."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from grover_dist.config import TaskSettings, config_from
from grover_dist.errors import UserError
from grover_dist.finetune.checks import class_lines, describe
from grover_dist.finetune.readers import read_rows
from grover_dist.finetune.stage import file_digest
from grover_dist.finetune.tables import read_task


def draw(n, seed=0, length=24):
    generator = np.random.default_rng(seed)
    return ["".join(generator.choice(list("ACGT"), length)) for _ in range(n)]


def fasta(path, records):
    text = "".join(f">{name}\n{sequence[:10]}\n{sequence[10:]}\n" for name, sequence in records)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def test_nucleotide_transformer_fasta_has_its_labels_in_the_names(tmp_path):
    sequences = draw(4)
    path = fasta(tmp_path / "train.fna", [(f"seq{i}|{i % 2}", sequence) for i, sequence in enumerate(sequences)])
    header, rows = read_rows(path)
    assert header == ["sequence", "label"] and [row for _, row in rows] == [[s, str(i % 2)] for i, s in enumerate(sequences)]


def test_a_fasta_for_each_class_is_split_by_chromosome(tmp_path, genome):
    files = {}
    for number, label in enumerate(("unbound", "bound")):
        records = [(f"chr{20 + i % 3}:{1_000_000 * i}-{1_000_000 * i + 24}", s) for i, s in enumerate(draw(60, number))]
        files[label] = fasta(tmp_path / f"{label}.fa.gz", records)
    task = TaskSettings(name="t", classes=files, test_records=["22"], validation_records=["chr21"])
    table = read_task(genome.config, task, genome)
    assert table.classes == ("bound", "unbound")
    assert {split: len(part) for split, part in table.parts.items()} == {"train": 40, "validation": 40, "test": 40}
    assert "not of the run's genome" in table.notes[0]
    assert table.parts["test"].sequences[0].tolist() == ["ACGT".index(x) for x in draw(60, 0)[2]]
    by_blocks = read_task(genome.config, task.model_copy(update={"test_records": (), "validation_records": ()}), genome)
    groups = [set(part.group.tolist()) for part in by_blocks.parts.values()]
    assert sum(map(len, groups)) == len(set.union(*groups)) and "whole blocks" in by_blocks.notes[-1]
    assert abs(len(by_blocks.parts["test"]) - 24) <= 6
    with pytest.raises(UserError, match="no row lies on the record 'chrX'"):
        read_task(genome.config, task.model_copy(update={"test_records": ("chrX",)}), genome)


def test_genomic_benchmarks_folders(tmp_path, genome):
    intervals, texts = tmp_path / "intervals", tmp_path / "texts"
    intervals.mkdir()
    for number, label in enumerate(("negative", "positive")):
        starts = [start for start in range(20 + number, 2_900, 60) if not 930 < start < 1_015]
        lines = [f"{i},chr7,{start},{start + 40},+\n" for i, start in enumerate(starts)]
        (intervals / f"{label}.csv.gz").write_bytes(gzip.compress(("id,region,start,end,strand\n" + "".join(lines)).encode()))
        (texts / label).mkdir(parents=True)
        for i, sequence in enumerate(draw(20, number)):
            (texts / label / f"{i}.txt").write_text(sequence + "\n")
    table = read_task(genome.config, TaskSettings(name="t", train=intervals), genome)
    assert table.classes == ("negative", "positive") and len(table.parts["test"]) > 10
    letters = "".join("ACGT"[code] for code in table.parts["train"].sequences[0])
    assert letters in genome.letters
    table = read_task(genome.config, TaskSettings(name="t", train=texts), genome)
    assert sum(map(len, table.parts.values())) == 40
    before = file_digest(texts)
    (texts / "negative" / "0.txt").write_text("ACGTACGTACGT")
    assert file_digest(texts) != before
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no class"):
        read_rows(tmp_path / "empty")


def test_cropping_takes_the_middle_and_counts_the_short(tmp_path, genome):
    sequences = [s + "A" * (i % 3) for i, s in enumerate(draw(60))]
    (tmp_path / "t.csv").write_text("sequence,label\n" + "".join(f"{s},{i % 2}\n" for i, s in enumerate(sequences)) + "ACGT,0\n")
    table = read_task(genome.config, TaskSettings(name="t", train=tmp_path / "t.csv", crop_bp=10), genome)
    assert "middle 10 bp; 1 shorter" in table.notes[0]
    expected = {s[(len(s) - 10) // 2 :][:10] for s in sequences}
    assert {"".join("ACGT"[c] for c in s) for part in table.parts.values() for s in part.sequences} == expected
    described, _ = describe(table)
    assert class_lines(described["parts"])[0].startswith("train: '0' ") and "10 bp, GC" in class_lines(described["parts"])[0]


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({}, "give one of train"),
        ({"train": "a.csv", "classes": {"a": "a.fa", "b": "b.fa"}}, "give one of train"),
        ({"classes": {"a": "a.fa"}}, "two classes at least"),
        ({"classes": {"a": "a.fa", "b": "b.fa"}, "test": "t.csv"}, "use test_records"),
        ({"train": "a.csv", "test_records": ["chr1"], "validation_records": ["1"]}, "test and validation at once"),
    ],
)
def test_tasks_that_contradict_themselves_are_refused(task, message):
    with pytest.raises(UserError, match=message):
        config_from({"genome": {"fasta": "g.fa"}, "finetune": {"tasks": [{"name": "t", **task}]}})


def test_the_whole_ctcf_set_is_read_as_it_is(data_dir, genome):
    """Both leaks of the file are named, and cropping removes the first."""
    files = {label: data_dir / "ctcf" / f"CTCF_GM12878_hg19_{name}.fa.gz" for label, name in (("unbound", "neg"), ("bound", "pos"))}
    task = TaskSettings(name="ctcf", classes=files, test_records=["chr21", "chr22"], validation_records=["chr20"])
    table = read_task(genome.config, task, genome)
    assert sum(map(len, table.parts.values())) == 23_818
    _, warnings = describe(table)
    assert [warning.split(" alone ")[0] for warning in warnings] == ["length", "GC"]
    cropped = read_task(genome.config, task.model_copy(update={"crop_bp": 200}), genome)
    _, warnings = describe(cropped)
    assert [warning.split(" alone ")[0] for warning in warnings] == ["GC"]
