"""Is a vocabulary learned from hg19 the one of GROVER? Known statistics and the checksum of the published vocab.txt.

Source: Sanabria, Hirsch, Joubert, Poetsch, Nature Machine Intelligence 2024, s42256-024-00872-0, at 600 cycles. The checksum is of the file
that comes with the published model; the order of its lines is not known, so several are tried.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from grover_dist.bpe.vocabulary import BASES, FIRST_BASE_ID, FIRST_MERGE_ID, SPECIAL_TOKENS, Vocabulary
from grover_dist.errors import UserError

CYCLES = 600
VOCAB_BYTES = 3_848
VOCAB_SHA256 = "affab9041e04e027bbcd359648e0fbc8af1610e58a16dc7954a81fd4b28f4e76"


@dataclass(frozen=True)
class Check:
    """One statement about the vocabulary: what was expected, what was found, and whether a piece of the genome should show it too."""

    name: str
    expected: str
    found: str
    passed: bool
    whole_genome: bool


def line_orders(vocabulary: Vocabulary) -> dict[str, list[str]]:
    """The orders of vocab.txt's lines that are tried, by name: special tokens first or last, pieces by merge, alphabet, length."""
    strings = vocabulary.strings()
    merged, bases = strings[FIRST_MERGE_ID:], list(BASES)
    pieces = {
        "merge order": bases + merged,
        "merge order, bases last": merged + bases,
        "alphabetical": sorted(bases + merged),
        "bases, then alphabetical": bases + sorted(merged),
        "by length, then alphabetical": sorted(bases + merged, key=lambda s: (len(s), s)),
        "by length, then merge order": sorted(bases + merged, key=len),
        "longest first, then alphabetical": sorted(bases + merged, key=lambda s: (-len(s), s)),
        "longest first, then merge order": sorted(bases + merged, key=lambda s: -len(s)),
    }
    special = list(SPECIAL_TOKENS)
    orders = {f"special tokens, {name}": special + lines for name, lines in pieces.items()}
    return orders | {f"{name}, special tokens": lines + special for name, lines in pieces.items()}


def check_grover(vocabulary: Vocabulary, counts: np.ndarray | None = None, bases: int | None = None) -> list[Check]:
    """All known statements about the vocabulary of hg19 at 600 cycles, with the outcome of each.

    counts int64[609]: occurrences by model id in the genome at 600 cycles, and its number of bases, for the statements that need them.
    `whole_genome` marks what only a full hg19 can show. Raises UserError when fewer than 600 cycles were learned.
    """
    if vocabulary.cycles < CYCLES:
        raise UserError(
            "the vocabulary is too small to compare with GROVER",
            got=f"{vocabulary.cycles} cycles",
            expected=f"{CYCLES} or more",
            hint="learn again with bpe.cycles=600",
        )
    vocabulary = vocabulary.at(CYCLES)
    strings = vocabulary.strings()[FIRST_BASE_ID:]
    merged = strings[len(BASES) :]
    lengths = np.array([len(s) for s in strings])
    checks: list[Check] = []

    def add(name: str, expected: object, found: object, passed: bool, whole_genome: bool = True) -> None:
        checks.append(Check(name, str(expected), str(found), bool(passed), whole_genome))

    with_cg = [s for s in merged if "CG" in s]
    add("no token holds CG", 0, len(with_cg), not with_cg)
    at_start = np.mean([s[0] in "AT" for s in merged])
    add("tokens that start with A or T", "97 %", f"{at_start:.1%}", abs(at_start - 0.97) < 0.025, False)
    five, six = int((lengths == 5).sum()), int((lengths == 6).sum())
    top = set(np.argsort(-np.bincount(lengths), kind="stable")[:2].tolist())
    add("5-mers and 6-mers are the most frequent lengths", "5, 6", sorted(top), top == {5, 6}, False)
    add("five-mers", 213, five, five == 213)
    add("six-mers", 224, six, six == 224)
    longest = sorted(s for s in strings if len(s) == lengths.max())
    add("the longest tokens", "A16, T16", ", ".join(longest), longest == ["A" * 16, "T" * 16])
    total = sum(map(len, merged))
    add("total length of the 600 pieces", 3_208, total, total == 3_208)
    for token in ("ATTACAGGC", "TGTAATCCCAGC", "TTTAGG"):
        add(f"{token} is a token", "yes", "yes" if token in strings else "no", token in strings)
    if counts is not None and bases is not None:
        mean = bases / int(counts.sum())
        add("mean token by occurrence", "4.07 nt", f"{mean:.2f} nt", abs(mean - 4.07) < 0.005)
        median = float(np.median(counts[FIRST_MERGE_ID:]))
        add("median occurrences of a token", "about 400,000", f"{median:,.0f}", 300_000 < median < 500_000)
    add(*_check_file(line_orders(vocabulary)))
    return checks


def _check_file(orders: dict[str, list[str]]) -> tuple[str, str, str, bool]:
    endings: dict[str, Callable[[list[str]], str]] = {
        "newline at the end": lambda lines: "\n".join(lines) + "\n",
        "no newline at the end": "\n".join,
    }
    sizes = set()
    for order, lines in orders.items():
        for ending, join in endings.items():
            content = join(lines).encode()
            sizes.add(len(content))
            if hashlib.sha256(content).hexdigest() == VOCAB_SHA256:
                return "vocab.txt by SHA-256", VOCAB_SHA256, f"equal ({order}, {ending})", True
    found = (
        f"none of {len(orders) * len(endings)} orders ({'; '.join(orders)}; each with and without the last newline); {sorted(sizes)} bytes"
    )
    return "vocab.txt by SHA-256", f"{VOCAB_SHA256} ({VOCAB_BYTES} bytes)", found, False
