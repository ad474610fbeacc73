"""The order of samples: a keyed permutation, a pure function of (seed, epoch, index). Resume state is one integer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit, uint32, uint64

from grover_dist.corpus.counter_random import GENOME_ORDER, SAMPLE_ORDER, philox, stream_key

_ROUNDS = 6


@dataclass(frozen=True)
class Draws:
    """Which window stands at each place of the endless sequence of samples: a pure function of (seed, place).

    windows: for each genome the int64 indices of its windows; quotas: its draws in an epoch, weight times windows to the nearest whole
    number. A genome runs through its windows pass by pass: draw t of a genome of n windows belongs to pass t // n, and every pass holds
    each window once. Epoch e takes the draws e * quota and following of every genome, mixed by the keyed permutation of the epoch.
    So a window of a genome of weight 2 is drawn twice an epoch, and one of weight 0.5 in every second epoch.
    """

    windows: tuple[np.ndarray, ...]
    quotas: tuple[int, ...]

    @classmethod
    def weighted(cls, genome: np.ndarray, weights: Sequence[float]) -> Draws:
        """genome: int[n_windows], which genome each window is of; weights: of each, above 0. Genomes without windows are left out."""
        members = [np.flatnonzero(genome == index) for index in range(len(weights))]
        present = [(each, max(1, round(weight * len(each)))) for each, weight in zip(members, weights, strict=True) if len(each)]
        return cls(tuple(each for each, _ in present), tuple(quota for _, quota in present))

    @classmethod
    def uniform(cls, n_windows: int) -> Draws:
        """Every window once an epoch."""
        return cls((np.arange(n_windows),), (n_windows,))

    @property
    def per_epoch(self) -> int:
        return sum(self.quotas)

    def mean(self, values: np.ndarray) -> float:
        """The mean of a figure of each window over the draws."""
        means = [float(np.mean(values[members])) for members in self.windows]
        return float(np.average(means, weights=self.quotas))

    def at(self, places: np.ndarray, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """(pass, window) at each place; the two together never come twice, so they key what is random about a sample."""
        epochs, slots = places // self.per_epoch, places % self.per_epoch
        for epoch in np.unique(epochs):
            here = epochs == epoch
            slots[here] = sample_at(slots[here], n=self.per_epoch, seed=seed, epoch=int(epoch))
        edges = np.cumsum((0, *self.quotas))
        genome = np.searchsorted(edges, slots, side="right") - 1
        passes, windows = np.empty_like(places), np.empty_like(places)
        for index, (members, quota) in enumerate(zip(self.windows, self.quotas, strict=True)):
            here = genome == index
            number, position = np.divmod(epochs[here] * quota + slots[here] - edges[index], len(members))
            if quota % len(members):  # an epoch ends inside a pass: it must not be always the same part of the genome
                for each in np.unique(number):
                    now = number == each
                    position[now] = sample_at(position[now], n=len(members), seed=seed, epoch=int(each), purpose=GENOME_ORDER)
            passes[here], windows[here] = number, members[position]
        return passes, windows


def sample_at(indices: np.ndarray | int, *, n: int, seed: int, epoch: int, purpose: int = SAMPLE_ORDER) -> np.ndarray:
    """Which of `n` samples stands at each position `indices` (0..n - 1) of an epoch; int64 of the same shape.

    A Feistel network on the next even power of two, with cycle walking back into 0..n - 1 (Black and Rogaway, CT-RSA 2002).
    """
    indices = np.asarray(indices, np.int64)
    if n < 1:
        raise ValueError(f"there is no sample to order (n = {n})")
    if indices.size and (indices.min() < 0 or indices.max() >= n):
        raise IndexError(f"sample positions run from 0 to {n - 1}")
    half_bits = max(1, -(-max(1, (n - 1).bit_length()) // 2))
    flat = _permute(np.ascontiguousarray(indices.ravel()), n, half_bits, stream_key(seed, purpose), epoch)
    return flat.reshape(indices.shape)


@njit(cache=True, nogil=True)
def _permute(indices, n, half_bits, key, epoch):
    out = np.empty_like(indices)
    mask = uint32((1 << half_bits) - 1)
    for i in range(len(indices)):
        value = indices[i]
        while True:
            left, right = uint32(value >> half_bits), uint32(value) & mask
            for step in range(_ROUNDS):
                mixed, _, _, _ = philox(key, right, step, uint32(epoch), uint32(uint64(epoch) >> uint64(32)))
                left, right = right, uint32((left ^ mixed) & mask)
            value = (np.int64(left) << half_bits) | np.int64(right)
            if value < n:
                break
        out[i] = value
    return out
