"""What can make a fine-tuning result worthless: sequences shared between splits, and classes that differ in length or GC alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from grover_dist.errors import UserError
from grover_dist.finetune.metrics import auroc
from grover_dist.finetune.tables import SPLITS, UNKNOWN, Part, TaskTable, check_part

WORD_BP = 31
NEAR_DUPLICATE_SHARE = 0.5  # of a sequence's 31-mers that lie in the other part, on either strand
LEAK_MARGIN = 0.1  # AUROC beyond 0.5 +- this is a warning


def without_shared(
    table: TaskTable, name: str, *, drop_near_duplicates: bool, share: float = NEAR_DUPLICATE_SHARE
) -> tuple[TaskTable, dict[str, Any]]:
    """Drop from train what lies in validation or test, and from validation what lies in test. The test part is never touched.

    Returns the table and counts: `duplicates` (exact, by the pair of splits) and `near_duplicates`.
    """
    parts = dict(table.parts)
    report: dict[str, Any] = {"duplicates": {}, "near_duplicates": {}, "near_duplicates_dropped": drop_near_duplicates}
    for later, earlier in (("validation", "test"), ("train", "validation"), ("train", "test")):
        known = {sequence.tobytes() for sequence in parts[earlier].sequences}
        exact = np.array([sequence.tobytes() in known for sequence in parts[later].sequences], bool)
        near = shared_word_share(parts[later], parts[earlier]) >= share
        near &= ~exact
        report["duplicates"][f"{later}/{earlier}"] = int(exact.sum())
        report["near_duplicates"][f"{later}/{earlier}"] = int(near.sum())
        drop = exact | near if drop_near_duplicates else exact
        parts[later] = parts[later].take(np.flatnonzero(~drop))
        if not len(parts[later]):
            raise UserError(
                f"every {later} sequence is also in the {earlier} part", where=f"task '{name}'", hint="give parts that do not overlap"
            )
        check_part(parts[later], table.classes, later, name)
    return replace(table, parts=parts), report


def shared_word_share(of: Part, other: Part) -> np.ndarray:
    """Share of each sequence's 31-mers that occur anywhere in `other`, on either strand; 0 for sequences shorter than 31 bases."""
    known = np.unique(_words_with_owner(other)[0])
    words, owner = _words_with_owner(of)
    if not len(known):
        return np.zeros(len(of))
    place = np.minimum(np.searchsorted(known, words), len(known) - 1)
    hits = np.bincount(owner, weights=known[place] == words, minlength=len(of))
    return hits / np.maximum(np.bincount(owner, minlength=len(of)), 1)


def _words_with_owner(part: Part) -> tuple[np.ndarray, np.ndarray]:
    """Canonical 31-mers of all sequences, and the sequence of each. One pass over the sequences joined by an ambiguity letter."""
    joined = np.full(sum(len(sequence) + 1 for sequence in part.sequences), UNKNOWN, np.uint8)
    ends = np.cumsum([len(sequence) + 1 for sequence in part.sequences])
    for end, sequence in zip(ends.tolist(), part.sequences, strict=True):
        joined[end - 1 - len(sequence) : end - 1] = sequence
    words, start = canonical_words(joined)
    return words, np.searchsorted(ends, start, side="right")


def canonical_words(codes: np.ndarray, word_bp: int = WORD_BP) -> tuple[np.ndarray, np.ndarray]:
    """Words of up to 31 bases as uint64, the smaller of both strands, and where each starts; those with an ambiguity letter left out."""
    n = len(codes) - word_bp + 1
    if n < 1:
        return np.empty(0, np.uint64), np.empty(0, np.int64)
    forward, reverse = np.zeros(n, np.uint64), np.zeros(n, np.uint64)
    known = codes.astype(np.uint64) & np.uint64(3)
    for offset in range(word_bp):
        forward = (forward << np.uint64(2)) | known[offset : offset + n]
        reverse |= (np.uint64(3) - known[offset : offset + n]) << np.uint64(2 * offset)
    unknown_before = np.concatenate(([0], np.cumsum(codes == UNKNOWN)))
    start = np.flatnonzero(unknown_before[word_bp:] == unknown_before[:-word_bp])
    return np.minimum(forward, reverse)[start], start


def composition(part: Part) -> tuple[np.ndarray, np.ndarray]:
    """Length in bases and share of G and C among the known bases, of each sequence."""
    length = np.array([len(sequence) for sequence in part.sequences], np.float64)
    gc = [np.count_nonzero((s == 1) | (s == 2)) / max(1, np.count_nonzero(s != UNKNOWN)) for s in part.sequences]
    return length, np.array(gc)


def describe(table: TaskTable) -> tuple[dict[str, Any], list[str]]:
    """Rows, length and GC of every class in every part; and a warning for each of length and GC that tells the classes apart alone."""
    parts: dict[str, Any] = {}
    for split in SPLITS:
        part = table.parts[split]
        length, gc = composition(part)
        parts[split] = {}
        for label, name in enumerate(table.classes):
            mine = part.labels == label
            lengths = length[mine]
            parts[split][name] = {
                "rows": int(mine.sum()),
                "length_bp": [float(lengths.min()), float(np.median(lengths)), float(lengths.max())] if len(lengths) else None,
                "gc": float(gc[mine].mean()) if len(lengths) else None,
            }
    alone = _alone(table.parts["train"], table.classes)
    warnings = []
    for feature, by_class in alone.items():
        worst = max(by_class, key=lambda name: abs(by_class[name] - 0.5))
        if abs(by_class[worst] - 0.5) > LEAK_MARGIN:
            advice = "crop or choose the sequences to one length" if feature == "length" else "compare with the GC-only baseline"
            warnings.append(
                f"{feature} alone tells class '{worst}' from the others (AUROC {max(by_class[worst], 1 - by_class[worst]):.2f}); {advice}"
            )
    return {"parts": parts, "auroc_alone": alone}, warnings


def class_lines(parts: Mapping[str, Any]) -> list[str]:
    """One line a part: rows, share, length and GC of each class, as people read them before training."""
    lines = []
    for split, classes in parts.items():
        total = max(1, sum(found["rows"] for found in classes.values()))
        told = []
        for name, found in classes.items():
            if found["rows"]:
                low, middle, high = found["length_bp"]
                length = f"{middle:,.0f} bp" if low == high else f"{middle:,.0f} bp ({low:,.0f} to {high:,.0f})"
                told.append(f"'{name}' {found['rows']:,} ({found['rows'] / total:.0%}), {length}, GC {found['gc']:.1%}")
        lines.append(f"{split}: " + "; ".join(told))
    return lines


def _alone(part: Part, classes: tuple[str, ...]) -> Mapping[str, Mapping[str, float]]:
    length, gc = composition(part)
    features = {"length": length, "GC": gc}
    return {
        name: {classes[label]: auroc(values, part.labels == label) for label in np.unique(part.labels)} for name, values in features.items()
    }
