"""Motif sites of a genome: every place of both strands whose score reaches the threshold, overlapping ones thinned to the best."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from grover_dist.finetune.builders.motifs import SCALE, Motif, log_odds, threshold
from grover_dist.genome.contigs import ContigTable

_PIECE_ROWS = 1 << 22


@dataclass(frozen=True)
class Sites:
    """row int64[n]: first row of each site; minus bool[n]; score float64[n] in bits. threshold, best: of the scan, in bits."""

    row: np.ndarray
    minus: np.ndarray
    score: np.ndarray
    threshold: float
    best: float


def scan(store, motif: Motif, p_value: float) -> Sites:
    """Sites of `motif` in all contigs. The threshold is that of a random word with the genome's base frequencies, averaged over both
    strands. `store`: anything with `contigs` and `base(row_start, row_stop)`.
    """
    background = base_frequencies(store)
    scores = log_odds(motif, background)
    least = threshold(scores, background, p_value)
    reverse = np.ascontiguousarray(scores[::-1, ::-1])
    found, best = [], -np.inf
    contigs: ContigTable = store.contigs
    for start, stop in zip(contigs.row_start[:-1].tolist(), contigs.row_start[1:].tolist(), strict=True):
        for first in range(start, stop - motif.width_bp + 1, _PIECE_ROWS):
            codes = np.ascontiguousarray(store.base(first, min(stop, first + _PIECE_ROWS + motif.width_bp - 1)))
            score, minus = score_places(codes, scores, reverse)
            best = max(best, int(score.max(initial=-(1 << 60))))
            hits = np.flatnonzero(score >= least)
            hits = hits[first_of_overlapping(hits, score[hits], motif.width_bp)]
            found.append((hits + first, minus[hits], score[hits]))
    row, minus, score = (np.concatenate(column) for column in zip(*found, strict=True)) if found else (np.empty(0, int),) * 3
    # Once more over all: two pieces of a contig may each have kept one of two overlapping sites.
    kept = first_of_overlapping(row, score, motif.width_bp)
    return Sites(row[kept], minus[kept].astype(bool), score[kept] / SCALE, least / SCALE, best / SCALE)


def base_frequencies(store) -> np.ndarray:
    """float64[4] over both strands: A and T are equal, C and G too."""
    n_rows = store.contigs.n_rows
    counts = sum(
        np.bincount(store.base(row, min(row + _PIECE_ROWS, n_rows)), minlength=4)[:4] for row in range(0, n_rows, _PIECE_ROWS)
    ).astype(np.float64)
    both = counts + counts[::-1]
    return both / both.sum()


@njit(cache=True, nogil=True)
def score_places(codes: np.ndarray, forward: np.ndarray, reverse: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(score of the better strand int64, whether that is the minus strand) of each place of `codes`."""
    width = forward.shape[0]
    n = max(0, codes.size - width + 1)
    score, minus = np.empty(n, np.int64), np.zeros(n, np.bool_)
    for i in range(n):
        plus_score, minus_score = np.int64(0), np.int64(0)
        for j in range(width):
            base = codes[i + j]
            plus_score += forward[j, base]
            minus_score += reverse[j, base]
        if minus_score > plus_score:
            score[i], minus[i] = minus_score, True
        else:
            score[i] = plus_score
    return score, minus


def first_of_overlapping(start: np.ndarray, score: np.ndarray, width_bp: int) -> np.ndarray:
    """Indices, ascending, of the sites that stay when the best is taken first and whatever overlaps it goes. start: ascending."""
    taken = np.zeros(len(start), bool)
    gone = np.zeros(len(start), bool)
    for index in np.argsort(-score, kind="stable"):
        if gone[index]:
            continue
        taken[index] = True
        low, high = np.searchsorted(start, [start[index] - width_bp + 1, start[index] + width_bp])
        gone[low:high] = True
    return np.flatnonzero(taken)
