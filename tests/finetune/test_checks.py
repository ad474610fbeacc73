"""Shared sequences between parts, and classes that composition alone tells apart."""

from __future__ import annotations

import numpy as np
import pytest

from grover_dist.config import TaskSettings
from grover_dist.errors import UserError
from grover_dist.finetune.checks import canonical_words, describe, shared_word_share, without_shared
from grover_dist.finetune.tables import Part, TaskTable, encode_letters, read_task


def part_of(sequences, labels=None):
    sequences = tuple(np.asarray(sequence, np.uint8) for sequence in sequences)
    labels = np.arange(len(sequences)) % 2 if labels is None else labels
    return Part(sequences, np.asarray(labels, np.int64), np.arange(len(sequences)))


def draw(n, length=80, seed=0, gc=0.5):
    return list(np.random.default_rng(seed).choice(4, size=(n, length), p=[(1 - gc) / 2, gc / 2, gc / 2, (1 - gc) / 2]).astype(np.uint8))


def test_canonical_words_equal_a_loop_on_text():
    codes = np.array([0, 1, 2, 3, 3, 4, 0, 0, 1, 2], np.uint8)
    found = []
    for start in range(len(codes) - 2):
        word = codes[start : start + 3]
        if (word != 4).all():
            reverse = 3 - word[::-1]
            found.append(min(int(word @ [16, 4, 1]), int(reverse @ [16, 4, 1])))
    assert canonical_words(codes, 3)[0].tolist() == found


def test_words_of_31_bases_are_the_same_on_both_strands():
    codes = draw(1, 90)[0]
    assert np.array_equal(canonical_words(codes)[0], canonical_words(3 - codes[::-1])[0][::-1])
    assert len(canonical_words(codes[:30])[0]) == 0


def test_share_of_shared_words():
    a, b = draw(2, 100)
    other = part_of([a])
    half = np.concatenate([a[:65], b[:35]])
    share = shared_word_share(part_of([a, 3 - a[::-1], b, half, a[:20]]), other)
    assert share == pytest.approx([1, 1, 0, 0.5, 0], abs=0.03)


def test_shared_sequences_leave_train_and_never_test():
    sequences = draw(30)
    train, validation, test = sequences[:14], sequences[14:20], sequences[20:]
    mutated = test[3].copy()
    mutated[5] = (mutated[5] + 1) % 4
    table = TaskTable(
        ("0", "1"),
        {
            "train": part_of([*train, test[0], test[1], validation[0], mutated]),
            "validation": part_of([*validation, test[2], test[2]]),
            "test": part_of(test),
        },
    )
    cleaned, report = without_shared(table, "t", drop_near_duplicates=True)
    assert report["duplicates"] == {"validation/test": 2, "train/validation": 1, "train/test": 2}
    assert report["near_duplicates"]["train/test"] == 1
    assert {split: len(part) for split, part in cleaned.parts.items()} == {"train": 14, "validation": 6, "test": 10}
    kept, _ = without_shared(table, "t", drop_near_duplicates=False)
    assert len(kept.parts["train"]) == 15


def test_a_train_part_inside_the_test_part_is_refused():
    sequences = draw(10)
    table = TaskTable(("0", "1"), {"train": part_of(sequences[:4]), "validation": part_of(draw(4, seed=9)), "test": part_of(sequences)})
    with pytest.raises(UserError, match="every train sequence is also in the test part"):
        without_shared(table, "t", drop_near_duplicates=True)


def table_with(negative, positive):
    parts = {split: part_of([*negative, *positive], [0] * len(negative) + [1] * len(positive)) for split in ("train", "validation", "test")}
    return TaskTable(("0", "1"), parts)


def test_length_and_gc_leaks_are_named():
    fair, warnings = describe(table_with(draw(50), draw(50, seed=1)))
    assert warnings == [] and fair["parts"]["train"]["0"]["rows"] == 50
    _, warnings = describe(table_with(draw(50), draw(50, seed=1, gc=0.8)))
    assert len(warnings) == 1 and "GC alone" in warnings[0]
    _, warnings = describe(table_with(draw(50), draw(50, length=120, seed=1)))
    assert len(warnings) == 1 and "length alone" in warnings[0]


def test_the_promoter_set_shares_six_sequences(data_dir, genome):
    files = {
        split: data_dir / "promoter" / f"GUE_prom_300_tata_{name}.csv.gz"
        for split, name in (("train", "train"), ("validation", "dev"), ("test", "test"))
    }
    table = read_task(genome.config, TaskSettings(name="tata", **files), genome)
    assert {split: len(part) for split, part in table.parts.items()} == {"train": 4_904, "validation": 613, "test": 613}
    _, report = without_shared(table, "tata", drop_near_duplicates=False)
    assert report["duplicates"]["train/test"] == 6


def test_the_ctcf_set_leaks_length_and_gc(data_dir):
    """Both leaks of the real set are found; cropping to one length removes the first."""
    import gzip

    sequences, labels = [], []
    for label, name in enumerate(("neg", "pos")):
        with gzip.open(data_dir / "ctcf" / f"CTCF_GM12878_hg19_{name}.fa.gz", "rt") as handle:
            for record in handle.read().split(">")[1:2_001]:
                sequences.append(encode_letters("".join(record.split("\n")[1:]), where=name, number=0))
                labels.append(label)
    parts = dict.fromkeys(("train", "validation", "test"), part_of(sequences, labels))
    _, warnings = describe(TaskTable(("unbound", "bound"), parts))
    assert [warning.split(" ")[0] for warning in warnings] == ["length", "GC"]
    middle = [sequence[(len(sequence) - 90) // 2 :][:90] for sequence in sequences]
    parts = dict.fromkeys(parts, part_of(middle, labels))
    assert [warning.split(" ")[0] for warning in describe(TaskTable(("unbound", "bound"), parts))[1]] == ["GC"]
