"""The rule itself, slow and obvious: lists of tokens, full recounts. The oracle of everything fast.

Tokens are small ids: A C G T = 0..3, merge m (0-based) = 4 + m; model ids are these plus 5.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
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
    tokens = [list(contig) for contig in contigs]
    levels = [[NEVER] * len(contig) for contig in contigs]
    lengths = {base: 1 for base in range(4)}
    merges: list[tuple[int, int, int]] = []
    for cycle in range(1, cycles + 1):
        counts: Counter[tuple[int, int]] = Counter()
        for contig in tokens:
            counts.update(pairwise(contig))
        if not counts:
            break
        (left, right), count = min(counts.items(), key=lambda item: (-item[1], item[0]))
        if count < 2:
            break
        new = 3 + cycle
        lengths[new] = lengths[left] + lengths[right]
        tokens = [replace_pair(contig, left, right, new) for contig in tokens]
        merges.append((left, right, count))
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
