"""The background of the synthetic genome: a strand-symmetric Markov chain, tilted to the G+C of each isochore."""

from __future__ import annotations

import numpy as np

from grover_dist.config import SyntheticSettings

ORDER = 4  # of the Markov chain
ENERGY_SIGMA = 0.45  # spread of the 5-mer energies, in nats: about 1.9 bits a base
PIECE_BP = 500  # the chain is drawn as many short pieces side by side


def background(settings: SyntheticSettings, lengths_bp: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Codes uint8 of all records, isochore by isochore."""
    isochores_of = [-(-int(n) // settings.isochore_bp) for n in lengths_bp]
    targets = random.uniform(settings.gc_low, settings.gc_high, sum(isochores_of))
    energies = _symmetric_energies(random)
    tilts = np.linspace(-2.0, 2.0, 33)
    _, gc_at_tilt = _chain(energies, tilts)
    chosen, _ = _chain(energies, np.interp(targets, gc_at_tilt, tilts))
    thresholds = np.cumsum(chosen, axis=2)[:, :, :3].astype(np.float32)

    piece_bp = min(PIECE_BP, settings.isochore_bp)
    pieces = -(-settings.isochore_bp // piece_bp)
    isochore = np.repeat(np.arange(len(targets)), pieces)
    state = random.integers(0, 4**ORDER, len(isochore))
    drawn = np.empty((len(isochore), piece_bp), dtype=np.uint8)
    for step in range(-16, piece_bp):  # the first 16 bases only forget the random start
        base = (random.random(len(isochore), dtype=np.float32)[:, None] > thresholds[isochore, state]).sum(axis=1)
        state = (state * 4 + base) % 4**ORDER
        if step >= 0:
            drawn[:, step] = base
    blocks = drawn.reshape(len(targets), -1)[:, : settings.isochore_bp]
    first = np.cumsum([0, *isochores_of])
    return np.concatenate([blocks[a:b].ravel()[:n] for a, b, n in zip(first, first[1:], lengths_bp, strict=False)])


def _symmetric_energies(random: np.random.Generator) -> np.ndarray:
    """Energy of each 5-mer, equal for its reverse complement: [4 ** ORDER, 4]."""
    words = np.arange(4 ** (ORDER + 1))
    complement = np.zeros_like(words)
    for place in range(ORDER + 1):
        complement = complement * 4 + (3 - (words >> (2 * place)) % 4)
    energies = random.normal(0.0, ENERGY_SIGMA, len(words))
    return ((energies + energies[complement]) / np.sqrt(2.0)).reshape(4**ORDER, 4)


def _chain(energies: np.ndarray, tilts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The Markov chains of the Gibbs distributions of these energies plus `tilt` for each C or G.

    Returns the probabilities [len(tilts), 4 ** ORDER, 4] and the stationary G+C share of each. The transition is
    weight(context, base) r(next context) / (growth r(context)), r the leading right eigenvector, by power iteration.
    """
    is_gc = np.array([0.0, 1.0, 1.0, 0.0])
    weights = np.exp(energies[None] + tilts[:, None, None] * is_gc)
    following = (np.arange(4**ORDER)[:, None] * 4 + np.arange(4)) % 4**ORDER
    right = np.ones((len(tilts), 4**ORDER))
    for _ in range(60):
        right = (weights * right[:, following]).sum(axis=2)
        right /= right.mean(axis=1, keepdims=True)
    chances = weights * right[:, following]
    chances /= chances.sum(axis=2, keepdims=True)
    visited = np.full((len(tilts), 4**ORDER), 4.0**-ORDER)
    for _ in range(60):
        spread = (visited[:, :, None] * chances).reshape(len(tilts), 4, 4 ** (ORDER - 1), 4)
        visited = spread.sum(axis=1).reshape(len(tilts), 4**ORDER)  # the oldest base of the context is forgotten
    return chances, (visited[:, :, None] * chances).sum(axis=1) @ is_gc
