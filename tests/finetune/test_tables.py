"""Labelled tables as people have them, and every fault of theirs."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from grover_dist.config import TaskSettings
from grover_dist.errors import UserError
from grover_dist.finetune.places import region_codes
from grover_dist.finetune.tables import class_names, encode_letters, read_task
from grover_dist.genome.split import split_blocks

LETTERS = np.array(list("ACGTN"))


def text_of(codes):
    return "".join(LETTERS[codes])


def random_rows(n, labels=("0", "1"), seed=0, length=20):
    generator = np.random.default_rng(seed)
    return [("".join(generator.choice(list("ACGT"), length)), labels[i % len(labels)]) for i in range(n)]


def write(path, rows, header="sequence,label", separator=","):
    text = "\n".join([header.replace(",", separator), *(separator.join(map(str, row)) for row in rows)]) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def read(genome, **files):
    return read_task(genome.config, TaskSettings(name="t", **files), genome)


@pytest.mark.parametrize(("name", "separator"), [("t.csv", ","), ("t.tsv", "\t"), ("t.csv.gz", ",")])
def test_sequences_and_labels_come_back(tmp_path, genome, name, separator):
    train, test = random_rows(60), random_rows(20, seed=1)
    table = read(
        genome, train=write(tmp_path / name, train, separator=separator), test=write(tmp_path / f"x{name}", test, separator=separator)
    )
    assert table.classes == ("0", "1")
    assert [text_of(sequence) for sequence in table.parts["test"].sequences] == [sequence for sequence, _ in test]
    assert table.parts["test"].labels.tolist() == [int(label) for _, label in test]
    together = {text_of(sequence) for split in ("train", "validation") for sequence in table.parts[split].sequences}
    assert together == {sequence for sequence, _ in train}
    assert table.parts["validation"].labels.tolist().count(0) == table.parts["validation"].labels.tolist().count(1) == 3
    assert "no validation part was given: 6" in table.notes[0]


def test_parquet_is_read(tmp_path, genome):
    import pyarrow as pa
    from pyarrow import parquet

    rows = random_rows(40)
    parquet.write_table(pa.table({"sequence": [s for s, _ in rows], "label": [int(label) for _, label in rows]}), tmp_path / "t.parquet")
    table = read(genome, train=tmp_path / "t.parquet")
    assert sum(len(part) for part in table.parts.values()) == 40


def test_a_split_column_is_followed(tmp_path, genome):
    rows = [(*row, split) for split, n in (("train", 8), ("dev", 4), ("test", 6)) for row in random_rows(n, seed=n)]
    table = read(genome, train=write(tmp_path / "t.csv", rows, header="sequence,label,split"))
    assert {split: len(part) for split, part in table.parts.items()} == {"train": 8, "validation": 4, "test": 6}


def test_regions_are_read_from_the_genome_and_split_by_its_blocks(tmp_path, genome):
    rows = [
        ("chr7", 7 * i, 7 * i + 30, "pos" if i % 2 else "neg", "-" if i % 3 == 0 else "+") for i in range(420) if not 955 < 7 * i < 1_015
    ]
    table = read(genome, train=write(tmp_path / "t.tsv", rows, header="chrom,start,end,label,strand", separator="\t"))
    assert table.classes == ("neg", "pos") and "chr7 -> 7" in table.notes[0] and "held-out blocks" in table.notes[1]
    complement = str.maketrans("ACGT", "TGCA")
    expected = {}
    for _, start, end, _, strand in rows:
        text = genome.letters[start:end]
        expected[text if strand == "+" else text.translate(complement)[::-1]] = (start // 1_000, (end - 1) // 1_000)
    split = split_blocks(genome.contigs, genome.config.split, genome.config.seed)
    assert 0 < split.held_out.sum() < 3
    for name, part in table.parts.items():
        for sequence, block in zip(part.sequences, part.group, strict=True):
            first, last = expected.pop(text_of(sequence))
            assert first == block and split.held_out[first] == split.held_out[last] == (name == "test")
    assert all(split.held_out[first] != split.held_out[last] for first, last in expected.values())


def test_other_letters_of_the_genome_are_unknown_bases(genome):
    assert text_of(region_codes(genome, "7", 990, 1_020, minus=False, where="here")) == genome.letters[990:1_020]
    backwards = text_of(region_codes(genome, "7", 990, 1_020, minus=True, where="here"))
    assert backwards == genome.letters[990:1_020].translate(str.maketrans("ACGT", "TGCA"))[::-1]


def test_labels_keep_their_numeric_order():
    assert class_names(["10", "9", "2"] * 10, where="t") == ("2", "9", "10")
    assert class_names(["b", "a"] * 10, where="t") == ("a", "b")


def test_letters_in_either_case_and_ambiguity_letters():
    assert encode_letters("acgtNRx"[:6], where="t", number=1).tolist() == [0, 1, 2, 3, 4, 4]


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        (random_rows(20), "sequence,klass", "lacks columns"),
        ([], "sequence,label", "holds no rows"),
        ([("ACGT", 0), ("ACXT", 1)], "sequence,label", "row 2, position 3"),
        ([("ACGT", 0), ("", 1)], "sequence,label", "sequence is empty"),
        ([("ACGT", 0), ("ACGT", "")], "sequence,label", "row has no label"),
        ([("ACGT", 0), ("ACGT", 1, 2)], "sequence,label", "another number of fields"),
        ([(s, i / 7) for i, (s, _) in enumerate(random_rows(20))], "sequence,label", "labels are not classes"),
        ([(s, f"name{i}") for i, (s, _) in enumerate(random_rows(20))], "sequence,label", "labels are not classes"),
        (random_rows(20, labels=("1",)), "sequence,label", "one class only"),
        ([("chr7", 1_001, 1_005, i % 2) for i in range(9)], "chrom,start,end,label", "no known base"),
        ([("chr7", 10, 5_000, i % 2) for i in range(9)], "chrom,start,end,label", "not inside its record"),
        ([("chr9", 10, 50, i % 2) for i in range(9)], "chrom,start,end,label", "lie on records of the genome"),
        ([("chr7", "x", 50, i % 2) for i in range(9)], "chrom,start,end,label", "whole numbers"),
        ([(*row, "holdout") for row in random_rows(9)], "sequence,label,split", "not the name of a split"),
        ([(*row, "test") for row in random_rows(9)], "sequence,label,split", "part is empty"),
        ([(s, label, "test" if label == "0" and i < 4 else "train") for i, (s, label) in enumerate(random_rows(40))],
         "sequence,label,split", "test part holds one class only"),
    ],
)  # fmt: skip
def test_faults_are_named(tmp_path, genome, rows, header, message):
    with pytest.raises(UserError, match=message):
        read(genome, train=write(tmp_path / "t.csv", rows, header=header))


def test_missing_and_broken_files_are_named(tmp_path, genome):
    with pytest.raises(UserError, match="no such table"):
        read(genome, train=tmp_path / "nothing.csv")
    whole = write(tmp_path / "t.csv.gz", random_rows(50)).read_bytes()
    (tmp_path / "t.csv.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="cannot be read"):
        read(genome, train=tmp_path / "t.csv.gz")
