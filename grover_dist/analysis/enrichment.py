"""Words enriched in annotated bases (soft mask, repeat classes, any track), against a null that keeps the structure of both.

The null pairs the tokens of each genome block with the track of another block: runs of the track and runs of the tokens stay as they are,
only their alignment goes. p is the normal tail of the z-score over the permutations, since 199 of them cannot give a smaller one than
0.005 where hundreds of words are tested; q is Benjamini and Hochberg's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from grover_dist.analysis.correlation import false_discovery_rate
from grover_dist.corpus.corpus import Corpus

BLOCK_ROWS = 10_000
PERMUTATIONS = 199
MOST_BLOCKS = 400  # 4 Mb: what larger genomes add is precision that no word needs


@dataclass(frozen=True)
class Enrichment:
    """By model id, [vocabulary]: bases of the token in the sampled blocks, share of them in the track, the null's mean share, p, q. NaN
    for tokens that do not occur.
    """

    bases: np.ndarray
    share: np.ndarray
    expected: np.ndarray
    p: np.ndarray
    q: np.ndarray

    @property
    def fold(self) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.share / self.expected


def enrichment(
    corpus: Corpus, cycles: int, track: np.ndarray | None = None, *, seed: int = 0, permutations: int = PERMUTATIONS
) -> Enrichment:
    """track: bool [rows of the genome]; None: the soft mask. Each block is read once."""
    blocks = _blocks(corpus.store.n_rows)
    size = len(corpus.vocabulary.strings(cycles))
    ids, tracks = [], []
    for start in blocks:
        ids.append(_token_of_base(corpus, cycles, start, start + BLOCK_ROWS, size))
        tracks.append(corpus.store.masked(start, start + BLOCK_ROWS) if track is None else track[start : start + BLOCK_ROWS])
    tokens = np.stack(ids)
    marked = np.stack(tracks)
    bases = np.bincount(tokens.ravel(), minlength=size + 1)[:size]
    observed = _covered(tokens, marked, size)
    random = np.random.default_rng([seed, 0x656E72])
    null = np.empty((permutations, size))
    for index in range(permutations):
        shift = int(random.integers(BLOCK_ROWS))
        null[index] = _covered(tokens, np.roll(marked[_derangement(len(blocks), random)], shift, axis=1), size)
    used = bases > 0
    mean, spread = null.mean(axis=0), null.std(axis=0, ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = (observed - mean) / spread
        share, expected = np.where(used, observed / bases, np.nan), np.where(used, mean / bases, np.nan)
    p = np.where(used & (spread > 0), stats.norm.sf(z), np.nan)
    return Enrichment(bases, share, expected, p, false_discovery_rate(p))


def _blocks(n_rows: int) -> np.ndarray:
    """First rows of at most MOST_BLOCKS whole blocks, spread evenly."""
    count = n_rows // BLOCK_ROWS
    chosen = np.unique(np.linspace(0, count - 1, min(count, MOST_BLOCKS)).astype(np.int64)) if count else np.empty(0, np.int64)
    return chosen * BLOCK_ROWS


def _token_of_base(corpus: Corpus, cycles: int, row_start: int, row_stop: int, nothing: int) -> np.ndarray:
    """The token over each row; `nothing` over the pieces of tokens that the block's edges cut."""
    starts = corpus.starts_of_rows(row_start, row_stop, cycles)
    found = np.full(row_stop - row_start, nothing, np.int64)
    if len(starts) > 1:
        ids = corpus.ids_of_rows(int(starts[0]), int(starts[-1]), cycles)
        found[starts[0] - row_start : starts[-1] - row_start] = np.repeat(ids, np.diff(starts))
    return found


def _covered(tokens: np.ndarray, marked: np.ndarray, size: int) -> np.ndarray:
    return np.bincount(tokens[marked], minlength=size + 1)[:size].astype(np.float64)


def _derangement(n: int, random: np.random.Generator) -> np.ndarray:
    """A random cyclic order: every block gets the track of another one, where there is more than one."""
    order = random.permutation(n)
    partner = np.empty(n, np.int64)
    partner[order] = np.roll(order, 1)
    return partner
