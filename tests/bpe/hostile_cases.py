"""Hostile genomes and cuts for the learner's exactness tests."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from grover_dist.bpe.learn import learn
from grover_dist.bpe.partition import Partition
from grover_dist.bpe.vocabulary import FIRST_BASE_ID, Vocabulary


def hostile_contig(rng: random.Random) -> list[int]:
    """A run of one base, a repeat of period 2 or 3, a two-letter or a random sequence, some with a run spliced in."""
    n = rng.choice([1, 1, 2, 3, 5, 8, 13, 30, 60, 90])
    kind = rng.randrange(6)
    if kind == 0:
        return [rng.randrange(4)] * n
    if kind in (1, 2):
        word = [rng.randrange(4) for _ in range(kind + 1)]
        return (word * n)[:n]
    contig = [rng.randrange(2 if kind == 3 else 4) for _ in range(n)]
    if kind == 5:
        middle = rng.randrange(n + 1)
        contig[middle:middle] = [rng.randrange(4)] * rng.randrange(1, 20)
    return contig


def hostile_case(rng: random.Random) -> tuple[list[list[int]], list[int]]:
    """Contigs, and cuts anywhere: inside runs, at contig ends, twice at the same place (an empty partition)."""
    contigs = [hostile_contig(rng) for _ in range(rng.randrange(1, 6))]
    n = sum(map(len, contigs))
    cuts = sorted(rng.randrange(n + 1) for _ in range(rng.choice([1, 2, 3, 7]) - 1))
    if cuts and rng.random() < 0.3:
        cuts[-1] = cuts[0]
    return contigs, sorted(cuts)


def hostile_options(rng: random.Random) -> dict[str, object]:
    """Strips one after the other or each in a thread of its own, in either memory mode."""
    side_by_side = rng.choice([{"strips": 1}, {"strips": 1}, {"strips": 2}, {"strips": 3}, {"threads": 2}, {"threads": 3}])
    return {**side_by_side, "memory": rng.choice(["fast", "lean"])}


def make_partitions(contigs: Sequence[Sequence[int]], cuts: Sequence[int], **options) -> list[Partition]:
    bases = np.concatenate([np.asarray(contig, np.uint8) for contig in contigs])
    starts = np.cumsum([0, *map(len, contigs)])[:-1]
    edges = [0, *cuts, len(bases)]
    return [Partition(bases[a:b], starts[(starts > a) & (starts < b)] - a, bool(np.isin(a, starts)), **options) for a, b in pairwise(edges)]


def learn_levels(
    contigs: Sequence[Sequence[int]], cuts: Sequence[int], cycles: int, *, strand: str = "forward", **options
) -> tuple[Vocabulary, np.ndarray]:
    workers = make_partitions(contigs, cuts, **options)
    vocabulary = learn(workers, cycles, strand=strand, say=lambda text: None)
    return vocabulary, np.concatenate([worker.levels() for worker in workers])


def merges_of(vocabulary: Vocabulary) -> list[tuple[int, int, int]]:
    """In the small ids of the reference."""
    return [
        (int(a) - FIRST_BASE_ID, int(b) - FIRST_BASE_ID, int(n))
        for a, b, n in zip(vocabulary.left, vocabulary.right, vocabulary.count, strict=True)
    ]
