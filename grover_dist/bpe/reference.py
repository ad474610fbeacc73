"""The rule itself, slow and obvious: lists of tokens, full recounts. The oracle of everything fast.

Tokens are small ids: A C G T = 0..3, merge m (0-based) = 4 + m; model ids are these plus 5.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise

NEVER = 65_535


def replace_pair(tokens: list[int], left: int, right: int, new: int) -> list[int]:
    """Left to right, without overlap."""
    merged, position = [], 0
    while position < len(tokens):
        if tokens[position : position + 2] == [left, right]:
            merged.append(new)
            position += 2
        else:
            merged.append(tokens[position])
            position += 1
    return merged


def learn_reference(contigs: Sequence[Sequence[int]], cycles: int) -> tuple[list[tuple[int, int, int]], list[list[int]]]:
    """Returns the merges (left, right, count) and, per contig, the boundary level of each base.

    Fewer than `cycles` merges come back when no pair occurs twice any more.
    """

    def choose(counts: Counter[tuple[int, int]], made: int) -> tuple[int, int] | None:
        pair, count = min(counts.items(), key=lambda item: (-item[1], item[0]))
        return pair if count >= 2 else None

    return _learn(contigs, cycles, choose)


def learn_symmetric_reference(contigs: Sequence[Sequence[int]], cycles: int) -> tuple[list[tuple[int, int, int]], list[list[int]]]:
    """The same for `strand: symmetric`: by classes of a pair and its reverse complement; the rule stands in symmetric.py."""
    complement = {0: 3, 1: 2, 2: 1, 3: 0}
    waiting: list[tuple[int, int]] = []

    def choose(counts: Counter[tuple[int, int]], made: int) -> tuple[int, int] | None:
        new = 4 + made
        if waiting:
            complement[new], complement[new - 1] = new - 1, new
            return waiting.pop()
        best: tuple[int, tuple[int, int]] | None = None
        for left, right in counts:
            partner = (complement[right], complement[left])
            value = counts[left, right] + (counts[partner] if partner != (left, right) else 0)
            rank = (-value, min((left, right), partner))
            best = rank if best is None else min(best, rank)
        if best is None or -best[0] < 2:
            return None
        left, right = best[1]
        partner = (complement[right], complement[left])
        if partner == (left, right):
            complement[new] = new
        else:
            waiting.append(partner)
        return left, right

    return _learn(contigs, cycles, choose)


def _learn(
    contigs: Sequence[Sequence[int]], cycles: int, choose: Callable[[Counter[tuple[int, int]], int], tuple[int, int] | None]
) -> tuple[list[tuple[int, int, int]], list[list[int]]]:
    tokens = [list(contig) for contig in contigs]
    levels = [[NEVER] * len(contig) for contig in contigs]
    lengths = {base: 1 for base in range(4)}
    merges: list[tuple[int, int, int]] = []
    for cycle in range(1, cycles + 1):
        counts: Counter[tuple[int, int]] = Counter()
        for contig in tokens:
            counts.update(pairwise(contig))
        pair = choose(counts, cycle - 1) if counts else None
        if pair is None:
            break
        left, right = pair
        new = 3 + cycle
        lengths[new] = lengths[left] + lengths[right]
        tokens = [replace_pair(contig, left, right, new) for contig in tokens]
        merges.append((left, right, counts[pair]))
        for contig, level in zip(tokens, levels, strict=True):
            starts, position = set(), 0
            for token in contig:
                starts.add(position)
                position += lengths[token]
            for position in range(len(level)):
                if level[position] == NEVER and position not in starts:
                    level[position] = cycle
    return merges, levels


def encode_reference(contig: Sequence[int], merges: Sequence[tuple[int, ...]]) -> list[int]:
    """Tokens of one contig: every merge in the order of learning, over the whole contig."""
    tokens = list(contig)
    for index, merge in enumerate(merges):
        tokens = replace_pair(tokens, merge[0], merge[1], 4 + index)
    return tokens
