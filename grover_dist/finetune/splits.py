"""Train, validation and test parts of a task that came without them: whole genome blocks, or rows; the same share of every class."""

from __future__ import annotations

import numpy as np

VALIDATION_FRACTION, TEST_FRACTION = 0.1, 0.2  # of each class, where the table has no such part


def stratified_rows(labels: np.ndarray, rows: np.ndarray, fraction: float, generator: np.random.Generator) -> np.ndarray:
    """`fraction` of the rows of every class, one at least where a class has two."""
    taken = []
    for label in np.unique(labels[rows]):
        members = generator.permutation(rows[labels[rows] == label])
        taken.append(members[: min(max(1, round(fraction * len(members))), len(members) - 1)])
    return np.sort(np.concatenate(taken)) if taken else np.empty(0, np.int64)


def stratified_blocks(
    labels: np.ndarray, group: np.ndarray, rows: np.ndarray, fraction: float, generator: np.random.Generator
) -> np.ndarray:
    """Rows of whole blocks that together hold nearly `fraction` of every class. Blocks come in random order, and each is taken if it
    brings the counts of the classes nearer to the wished ones. One block at least is taken, and one stays.
    """
    blocks, owner = np.unique(group[rows], return_inverse=True)
    classes, label = np.unique(labels[rows], return_inverse=True)
    counts = np.zeros((len(blocks), len(classes)))
    np.add.at(counts, (owner, label), 1.0)
    wished = fraction * counts.sum(axis=0)
    held, taken = np.zeros(len(classes)), []
    order = generator.permutation(len(blocks))
    for block in order:
        if len(taken) + 1 < len(blocks) and _distance(held + counts[block], wished) < _distance(held, wished):
            held += counts[block]
            taken.append(block)
    if not taken and len(blocks) > 1:
        taken = [min(order.tolist(), key=lambda block: _distance(counts[block], wished))]
    return np.sort(rows[np.isin(owner, taken)])


def _distance(held: np.ndarray, wished: np.ndarray) -> float:
    return float(np.abs(held - wished).sum() / max(wished.sum(), 1.0) + np.abs(held / np.maximum(wished, 1.0) - 1.0).max())


def complete(
    splits: np.ndarray, labels: np.ndarray, group: np.ndarray, *, by_block: bool, generator: np.random.Generator
) -> tuple[np.ndarray, list[str]]:
    """Take the missing test and validation parts out of the training part. by_block: whole groups go, so that no block is on two sides."""
    splits, notes = splits.astype("<U10"), []
    for split, fraction in (("test", TEST_FRACTION), ("validation", VALIDATION_FRACTION)):
        if not (splits == split).any():
            rows = np.flatnonzero(splits == "train")
            whole_blocks = by_block and len(np.unique(group[rows])) > 1
            taken = (
                stratified_blocks(labels, group, rows, fraction, generator)
                if whole_blocks
                else stratified_rows(labels, rows, fraction, generator)
            )
            splits[taken] = split
            how = f"{len(np.unique(group[taken])):,} whole blocks" if whole_blocks else f"{fraction:.0%} of every class"
            notes.append(f"no {split} part was given: {len(taken):,} training rows ({how}) were taken for it")
    return splits, notes
