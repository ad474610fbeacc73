"""Both rules of choice on one genome: what counting the strands together buys, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np

from grover_dist.bpe.cost import Memory
from grover_dist.bpe.health import vocabulary_health
from grover_dist.bpe.learn import learn
from grover_dist.bpe.partition import Partition

Strand = Literal["forward", "symmetric"]


def compare_strands(
    bases: np.ndarray, contig_starts: np.ndarray, cycles: Sequence[int], *, threads: int = 1, memory: Memory = "auto", seed: int = 0
) -> dict[Strand, dict[int, dict[str, Any]]]:
    """Learn a genome by both rules; the figures of health.py at each of `cycles`, by rule and cycles.

    bases: uint8[n] base codes. contig_starts: int64, the rows at which contigs start, row 0 included. `reverse_complement_closure` and
    `boundary_agreement` are what the rules are compared by: a model that is to read both strands alike wants both near 1.
    """
    row_start = np.append(np.asarray(contig_starts, np.int64), len(bases))
    found: dict[Strand, dict[int, dict[str, Any]]] = {}
    for strand in get_args(Strand):
        partition = Partition(bases, row_start[1:-1], True, threads=threads, memory=memory)
        vocabulary = learn([partition], max(cycles), strand=strand, say=lambda _: None)
        levels = partition.levels()

        def read(start: int, stop: int, levels: np.ndarray = levels) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            return bases[start:stop], levels[start:stop], np.zeros(stop - start, np.bool_)

        figures = vocabulary_health(vocabulary, cycles, read, row_start, seed=seed)
        found[strand] = {each: figures[str(each)] for each in cycles}
    return found
