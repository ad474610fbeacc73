"""Words enriched in annotated bases (soft mask, repeat classes, any track), against a null that keeps the structure of both.

The null pairs the tokens of each genome block with the track of another block: runs of the track and runs of the tokens stay as they are,
only their alignment goes. p is the normal tail of the z-score over the permutations, since 199 of them cannot give a smaller one than
0.005 where hundreds of words are tested; q is Benjamini and Hochberg's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numba import njit
from scipy import stats

from grover_dist.analysis.correlation import false_discovery_rate
from grover_dist.corpus.corpus import Corpus

BLOCK_ROWS = 10_000
PERMUTATIONS = 199
MOST_BLOCKS = 400  # 4 Mb: what larger genomes add is precision that no word needs


@dataclass(frozen=True)
class Enrichment:
    """By model id, [vocabulary]: bases of the token in the sampled blocks, share of them in the class, the null's mean share, p, q. NaN
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
    """track: bool [rows of the genome]; None: the soft mask."""

    def labels(row_start: int, row_stop: int) -> np.ndarray:
        marked = corpus.store.masked(row_start, row_stop) if track is None else track[row_start:row_stop]
        return marked.astype(np.int64) - 1

    return class_enrichment(corpus, cycles, labels, 1, seed=seed, permutations=permutations)[0]


def class_enrichment(
    corpus: Corpus,
    cycles: int,
    labels: Callable[[int, int], np.ndarray],
    classes: int,
    *,
    seed: int = 0,
    permutations: int = PERMUTATIONS,
) -> list[Enrichment]:
    """One result a class. labels(row_start, row_stop): class of each row from 0, -1 for none. Each block is read once; q is over all
    words and classes.
    """
    blocks = _blocks(corpus.store.n_rows)
    size = len(corpus.vocabulary.strings(cycles))
    nothing = np.zeros((len(blocks), BLOCK_ROWS), np.int32)
    tokens, marked = nothing.copy(), nothing.copy()
    for line, start in enumerate(blocks.tolist()):
        tokens[line] = _token_of_base(corpus, cycles, start, start + BLOCK_ROWS, size)
        marked[line] = labels(start, start + BLOCK_ROWS)
    bases = np.bincount(tokens.ravel(), minlength=size + 1)[:size]
    observed = np.zeros((classes, size + 1))
    _covered(tokens, marked, np.arange(len(blocks)), 0, observed)
    random = np.random.default_rng([seed, 0x656E72])
    mean, squares = np.zeros((classes, size + 1)), np.zeros((classes, size + 1))
    for _ in range(permutations):
        null = np.zeros((classes, size + 1))
        shift = int(random.integers(BLOCK_ROWS))
        _covered(tokens, marked, _derangement(len(blocks), random), shift, null)
        mean += null
        squares += null**2
    mean /= permutations
    spread = np.sqrt(np.maximum(squares - permutations * mean**2, 0.0) / max(permutations - 1, 1))
    used = bases > 0
    observed, mean, spread = (values[:, :size] for values in (observed, mean, spread))
    with np.errstate(divide="ignore", invalid="ignore"):
        z = (observed - mean) / spread
        share, expected = np.where(used, observed / bases, np.nan), np.where(used, mean / bases, np.nan)
    p = np.where(used & (spread > 1e-9), stats.norm.sf(z), np.nan)
    q = false_discovery_rate(p.ravel()).reshape(p.shape)
    return [Enrichment(bases, share[kind], expected[kind], p[kind], q[kind]) for kind in range(classes)]


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


@njit(cache=True, nogil=True)
def _covered(tokens, marked, partner, shift, out):
    """Add up rows by class and token, each block's tokens under the labels of its partner moved by `shift`."""
    rows = tokens.shape[1]
    for block in range(tokens.shape[0]):
        other = partner[block]
        for row in range(rows):
            label = marked[other, (row - shift) % rows]
            if label >= 0:
                out[label, tokens[block, row]] += 1


def _derangement(n: int, random: np.random.Generator) -> np.ndarray:
    """A random cyclic order: every block gets the track of another one, where there is more than one."""
    order = random.permutation(n)
    partner = np.empty(n, np.int64)
    partner[order] = np.roll(order, 1)
    return partner
