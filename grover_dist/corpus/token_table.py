"""From rows to model ids in one pass: a boundary test, a rolling key, an open-addressing table.

A token's key is a polynomial over its bases with a leading one, modulo 2**64. No key is trusted blindly: the multiplier is chosen so that
all keys of the vocabulary differ, so a token of any length (tandem repeats give thousands of bases) has exactly one entry.
"""

from __future__ import annotations

import numpy as np
from numba import njit, uint64

_MULTIPLIERS = (0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93, 0xA0761D6478BD642F, 0xE7037ED1A0B428DB)
_SPREAD = np.uint64(0x2545F4914F6CDD1D)
_FIRST_BASE_ID = 5


class TokenTable:
    """Keys and ids of one vocabulary. slot_keys uint64[slots] (0: empty), slot_ids uint16[slots]; slots is a power of two."""

    def __init__(self, left: np.ndarray, right: np.ndarray) -> None:
        """left, right: model ids of each merge, in order."""
        for multiplier in _MULTIPLIERS:
            keys = token_keys(left, right, multiplier)
            if len(np.unique(keys)) == len(keys) and keys.all():
                break
        else:
            raise AssertionError("two tokens of the vocabulary are the same string")
        self.multiplier = np.uint64(multiplier)
        bits = max(4, (4 * len(keys) - 1).bit_length())
        self.shift = np.uint64(64 - bits)
        self.slot_keys, self.slot_ids = np.zeros(1 << bits, np.uint64), np.zeros(1 << bits, np.uint16)
        _fill(keys, self.slot_keys, self.slot_ids, self.shift)


def token_keys(left: np.ndarray, right: np.ndarray, multiplier: int) -> np.ndarray:
    """uint64[4 + merges]: the key of each token from id 5 up, composed from its two halves without writing out a string."""
    return _compose(left.astype(np.int64), right.astype(np.int64), np.uint64(multiplier))


@njit(cache=True, nogil=True)
def _compose(left, right, multiplier):
    n = 4 + len(left)
    value = np.empty(n, np.uint64)  # the polynomial without its leading one
    power = np.empty(n, np.uint64)  # multiplier ** length
    for base in range(4):
        value[base], power[base] = base, multiplier
    for merge in range(len(left)):
        a, b = left[merge] - _FIRST_BASE_ID, right[merge] - _FIRST_BASE_ID
        value[4 + merge] = value[a] * power[b] + value[b]
        power[4 + merge] = power[a] * power[b]
    return value + power


@njit(cache=True, nogil=True)
def _fill(keys, slot_keys, slot_ids, shift):
    mask = len(slot_keys) - 1
    for token in range(len(keys)):
        slot = np.int64((keys[token] * _SPREAD) >> shift)
        while slot_keys[slot] != 0:
            slot = (slot + 1) & mask
        slot_keys[slot] = keys[token]
        slot_ids[slot] = token + _FIRST_BASE_ID


@njit(cache=True, nogil=True, inline="always")
def _find(key, slot_keys, slot_ids, shift):
    """The id of a key; 0 where the table has none."""
    slot = np.int64((key * _SPREAD) >> shift)
    while slot_keys[slot] != key:
        if slot_keys[slot] == 0:
            return np.int64(0)
        slot = (slot + 1) & (len(slot_keys) - 1)
    return np.int64(slot_ids[slot])


@njit(cache=True, nogil=True)
def encode_rows(base, level, cycles, multiplier, shift, slot_keys, slot_ids, carry, out):
    """Ids of the tokens that end inside these rows, and how many; -1 where a token is not in the vocabulary.

    carry uint64[1]: key of the token that the rows before left unfinished (0: none), and of the one that these leave.
    """
    key, count = carry[0], 0
    for i in range(len(base)):
        if level[i] > cycles:
            if key != 0:
                token = _find(key, slot_keys, slot_ids, shift)
                if token == 0:
                    return -1
                out[count] = token
                count += 1
            key = uint64(1)
        key = key * multiplier + uint64(base[i])
    carry[0] = key
    return count


@njit(cache=True, nogil=True)
def encode_windows(
    file_bytes, file_words, base_at, level_at, batch_bits, starts, stops, cycles, multiplier, shift, slot_keys, slot_ids, out, lines, column
):
    """Ids of many windows of one mapped part, each into `out[lines[w], column:]`. starts, stops: rows of the part.

    Returns the index of the first window with a token that is not in the vocabulary or more tokens than fit, else -1.
    """
    for w in range(len(starts)):
        row, stop = starts[w], stops[w]
        at, end, line = column, out.shape[1], lines[w]
        key = uint64(0)
        while row < stop:
            batch = row >> batch_bits
            offset = row - (batch << batch_bits)
            take = min(stop - row, (1 << batch_bits) - offset)
            base, level = base_at[batch] + offset, level_at[batch] + offset
            for i in range(take):
                if file_words[level + i] > cycles:
                    if key != 0:
                        token = _find(key, slot_keys, slot_ids, shift)
                        if token == 0 or at >= end:
                            return w
                        out[line, at] = token
                        at += 1
                    key = uint64(1)
                key = key * multiplier + uint64(file_bytes[base + i])
            row += take
        token = _find(key, slot_keys, slot_ids, shift)
        if token == 0 or at >= end:
            return w
        out[line, at] = token
    return -1
