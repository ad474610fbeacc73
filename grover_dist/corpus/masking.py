"""Masked-language-model targets (80/10/10, Devlin et al. 2019), from a generator keyed by (seed, epoch, sample)."""

from __future__ import annotations

import numpy as np
from numba import njit, uint64

from grover_dist.config import MaskSettings
from grover_dist.corpus.counter_random import MASKS, below, philox, stream_key

MASK_ID, FIRST_BASE_ID = 4, 5
_WHOLE = 2.0**32


def mask_tokens(
    ids: np.ndarray, *, seed: int, sample_key: tuple[int, int], vocab_size: int, settings: MaskSettings
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mask one window. ids: integer[n]; sample_key: (epoch, sample), both below 2**32.

    Returns (inputs int64[n], positions int64[m] ascending, labels int64[m]). Spans of `settings.span` tokens begin with the
    probability that gives each token `settings.fraction`; a span is cut by the window's ends and by special ids. Of the chosen tokens
    80 % become [MASK], 10 % a random token that is not special, 10 % stay. Special ids (below 5) are neither chosen nor drawn. At
    least one token is chosen, unless all are special.
    """
    ids = np.ascontiguousarray(ids, np.int64)
    inputs = ids.copy()
    positions = np.empty(len(ids), np.int64)
    epoch, sample = sample_key
    count = mask_window(inputs, positions, stream_key(seed, MASKS), epoch, sample, vocab_size, start_threshold(settings), settings.span)
    positions = positions[:count].copy()
    return inputs, positions, ids[positions]


def start_threshold(settings: MaskSettings) -> int:
    """A span begins where a uint32 falls below this: the chance p with 1 - (1 - p)**span = fraction."""
    return round((1.0 - (1.0 - settings.fraction) ** (1.0 / settings.span)) * _WHOLE)


@njit(cache=True, nogil=True)
def mask_window(ids, positions, key, epoch, sample, vocab_size, threshold, span):
    """Mask `ids` in place, write the chosen positions, return how many."""
    n = len(ids)
    count, eligible = 0, 0
    remaining = 0  # tokens of the current span still to come
    # Spans may begin before the window, so that its first tokens are chosen as often as the others.
    for i in range(1 - span, n):
        starts, replace, which, _ = philox(key, i, 0, epoch, sample)
        if starts < threshold:
            remaining = span
        if i < 0:
            remaining -= remaining > 0
            continue
        if ids[i] >= FIRST_BASE_ID:
            eligible += 1
            if remaining > 0:
                positions[count] = i
                count += 1
                _replace(ids, i, replace, which, vocab_size)
        remaining -= remaining > 0
    if count == 0 and eligible > 0:
        first, _, _, _ = philox(key, 0, 1, epoch, sample)
        chosen = np.int64(below(first, eligible))
        i = -1
        while chosen >= 0:  # the position of the chosen one among those that may be masked
            i += 1
            chosen -= ids[i] >= FIRST_BASE_ID
        while i < n and count < span and ids[i] >= FIRST_BASE_ID:
            _, replace, which, _ = philox(key, i, 0, epoch, sample)
            _replace(ids, i, replace, which, vocab_size)
            positions[count] = i
            count += 1
            i += 1
    return count


@njit(cache=True, nogil=True)
def mask_lines(input_ids, lengths, epochs, samples, key, vocab_size, threshold, span):
    """Mask every line of a padded batch in place, between its first token ([CLS]) and the one after `lengths` more.

    Returns (positions in the flattened batch, labels).
    """
    width = input_ids.shape[1]
    positions, labels = np.empty(lengths.sum(), np.int64), np.empty(lengths.sum(), np.int64)
    original = np.empty(width, np.int64)
    total = 0
    for line in range(len(lengths)):
        window = input_ids[line, 1 : lengths[line] + 1]
        original[: len(window)] = window
        found = positions[total:]
        count = mask_window(window, found, key, epochs[line], samples[line], vocab_size, threshold, span)
        for j in range(count):
            labels[total + j] = original[found[j]]
            found[j] += line * width + 1
        total += count
    return positions[:total].copy(), labels[:total].copy()


@njit(cache=True, nogil=True)
def _replace(ids, i, number, which, vocab_size):
    share = below(number, 10)
    if share < uint64(8):
        ids[i] = MASK_ID
    elif share == uint64(8):
        ids[i] = FIRST_BASE_ID + np.int64(below(which, vocab_size - FIRST_BASE_ID))
