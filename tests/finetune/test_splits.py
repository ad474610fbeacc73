"""Parts that a table came without: whole blocks, nearly the same share of every class."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from grover_dist.finetune.splits import complete, stratified_blocks


@given(st.integers(2, 60), st.integers(0, 2**32))
@settings(max_examples=80, deadline=None)
def test_blocks_are_whole_and_one_stays(n_blocks, seed):
    generator = np.random.default_rng(seed)
    group = generator.integers(0, n_blocks, 300)
    labels = generator.integers(0, 2, 300)
    if len(np.unique(group)) < 2:
        return
    taken = stratified_blocks(labels, group, np.arange(300), 0.2, np.random.default_rng(1))
    inside = np.zeros(300, bool)
    inside[taken] = True
    assert 0 < inside.sum() < 300 and not set(group[inside]) & set(group[~inside])


def test_every_class_has_its_share():
    generator = np.random.default_rng(0)
    group = np.repeat(np.arange(200), 10)
    labels = (generator.random(2_000) < np.where(group % 4 == 0, 0.4, 0.02)).astype(int)  # positives cluster in some blocks
    taken = stratified_blocks(labels, group, np.arange(2_000), 0.2, np.random.default_rng(2))
    for label in (0, 1):
        share = (labels[taken] == label).sum() / (labels == label).sum()
        assert 0.17 < share < 0.23


def test_missing_parts_are_taken_from_train_and_never_from_test():
    labels, group = np.tile([0, 1], 100), np.arange(200) // 4
    splits = np.array(["train"] * 160 + ["test"] * 40)
    found, notes = complete(splits, labels, group, by_block=True, generator=np.random.default_rng(0))
    assert (found[160:] == "test").all() and (found[:160] == "validation").sum() == 16 and len(notes) == 1
    rows, _ = complete(np.full(200, "train"), labels, np.arange(200), by_block=False, generator=np.random.default_rng(0))
    assert [(rows == split).sum() for split in ("test", "validation", "train")] == [40, 16, 144]
