"""From rows to model ids: boundaries and a rolling register in one pass without branches, then one table look-up a token.

A token of up to 23 bases is its own key: two bits a base behind a leading one. The entry of the open-addressing table holds this key
and the id in one word. Longer tokens (tandem repeats give thousands of bases) go by a polynomial over their bases modulo 2**64, with a
multiplier chosen so that all long tokens of the vocabulary differ. So every token of any length has exactly one entry.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import carray, njit, types, uint8, uint16, uint64
from numba.extending import intrinsic

_SPREAD = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIERS = (0xD6E8FEB86659FD93, 0xA0761D6478BD642F, 0xE7037ED1A0B428DB, 0x8EBC6AF09C88C6E3)
_FIRST_BASE_ID = 5
_SHORT_BASES = 23  # 47 bits of key and 16 of id
_BLOCK_ROWS = 4_096
_ID_BITS, _ID_MASK = np.uint64(16), np.uint64(0xFFFF)
_ONE, _TWO, _ZERO = np.uint64(1), np.uint64(2), np.uint64(0)


class TokenTable(NamedTuple):
    """entries uint64[power of two]: key << 16 | id of the short tokens, 0 where empty. long_keys uint64, long_ids uint16: of the others."""

    entries: np.ndarray
    shift: np.uint64
    long_keys: np.ndarray
    long_ids: np.ndarray
    long_shift: np.uint64
    multiplier: np.uint64


def make_table(left: np.ndarray, right: np.ndarray) -> TokenTable:
    """The table of all tokens from id 5 up; left, right: model ids of each merge, in order."""
    left, right = left.astype(np.int64), right.astype(np.int64)
    for multiplier in _MULTIPLIERS:
        lengths, short_keys, long_keys = _keys(left, right, np.uint64(multiplier))
        long = np.flatnonzero(lengths > _SHORT_BASES)
        if len(np.unique(long_keys[long])) == len(long) and long_keys[long].all():
            break
    else:
        raise AssertionError("two tokens of the vocabulary are the same string")
    short = np.flatnonzero(lengths <= _SHORT_BASES)
    entries, shift = _slots(len(short), 6)
    _fill_short(short_keys[short], short + _FIRST_BASE_ID, entries, shift)
    slots, long_shift = _slots(len(long), 2)
    long_ids = np.zeros(len(slots), np.uint16)
    _fill_long(long_keys[long], long + _FIRST_BASE_ID, slots, long_ids, long_shift)
    return TokenTable(entries, shift, slots, long_ids, long_shift, np.uint64(multiplier))


def _slots(count: int, room: int) -> tuple[np.ndarray, np.uint64]:
    bits = max(4, (room * count).bit_length())
    return np.zeros(1 << bits, np.uint64), np.uint64(64 - bits)


@njit(cache=True, nogil=True)
def _keys(left, right, multiplier):
    """Of each token: bases, key as a short one (worthless for long ones), polynomial; composed from its halves."""
    n = 4 + len(left)
    lengths = np.ones(n, np.int64)
    packed, value, power = np.zeros(n, np.uint64), np.zeros(n, np.uint64), np.full(n, multiplier)
    for base in range(4):
        packed[base] = value[base] = base
    for merge in range(len(left)):
        a, b, new = left[merge] - _FIRST_BASE_ID, right[merge] - _FIRST_BASE_ID, 4 + merge
        lengths[new] = lengths[a] + lengths[b]
        if lengths[new] <= _SHORT_BASES:
            packed[new] = (packed[a] << uint64(2 * lengths[b])) | packed[b]
        value[new] = value[a] * power[b] + value[b]
        power[new] = power[a] * power[b]
    for token in range(n):
        if lengths[token] <= _SHORT_BASES:
            packed[token] |= _ONE << uint64(2 * lengths[token])
    return lengths, packed, value + power


@njit(cache=True, nogil=True)
def _fill_short(keys, ids, entries, shift):
    for i in range(len(keys)):
        slot = (keys[i] * _SPREAD) >> shift
        while entries[slot] != _ZERO:
            slot = (slot + _ONE) & uint64(len(entries) - 1)
        entries[slot] = (keys[i] << _ID_BITS) | uint64(ids[i])


@njit(cache=True, nogil=True)
def _fill_long(keys, ids, slots, slot_ids, shift):
    for i in range(len(keys)):
        slot = (keys[i] * _SPREAD) >> shift
        while slots[slot] != _ZERO:
            slot = (slot + _ONE) & uint64(len(slots) - 1)
        slots[slot], slot_ids[slot] = keys[i], ids[i]


@njit(cache=True, nogil=True, inline="always")
def _find(start, stop, register, base, table):
    """Id of the token of rows start to stop, whose last 32 bases are in the register; 0 where the table has none."""
    length = stop - start
    if length <= _SHORT_BASES:
        high = _ONE << uint64(2 * length)
        key = (register & (high - _ONE)) | high
        slot = (key * _SPREAD) >> table.shift
        entry = table.entries[slot]
        while (entry >> _ID_BITS) != key:
            if entry == _ZERO:
                return np.int64(0)
            slot = (slot + _ONE) & uint64(len(table.entries) - 1)
            entry = table.entries[slot]
        return np.int64(entry & _ID_MASK)
    key = _ONE
    for i in range(start, stop):
        key = key * table.multiplier + uint64(base[i])
    slot = (key * _SPREAD) >> table.long_shift
    while table.long_keys[slot] != key:
        if table.long_keys[slot] == _ZERO:
            return np.int64(0)
        slot = (slot + _ONE) & uint64(len(table.long_keys) - 1)
    return np.int64(table.long_ids[slot])


@njit(cache=True, nogil=True)
def _encode(base, level, cycles, table, places, registers, out):
    """Ids of whole tokens; returns how many, or -1 where one is not in the table or `out` is too short.

    The first loop stores every row's place and register and moves on only after a boundary, so that no branch has to be guessed.
    """
    register, start, written = _ZERO, 0, 0
    n_rows = len(base)
    for block in range(0, n_rows, _BLOCK_ROWS):
        count = 0
        for i in range(block, min(block + _BLOCK_ROWS, n_rows)):
            places[count] = i
            registers[count] = register
            count += level[i] > cycles
            register = (register << _TWO) | uint64(base[i])
        if written + count >= len(out) + (start == 0):
            return -1
        for t in range(count):
            stop = np.int64(places[t])
            if stop > start:
                token = _find(start, stop, registers[t], base, table)
                if token == 0:
                    return -1
                out[written] = token
                written += 1
                start = stop
    token = _find(start, n_rows, register, base, table)
    if token == 0 or written >= len(out):
        return -1
    out[written] = token
    return written + 1


@njit(cache=True, nogil=True)
def encode_rows(base, level, cycles, table, out):
    """Ids of the tokens of these rows (base uint8[n], level uint16[n]), which begin and end at boundaries, into `out`; returns how many,
    or -1 where a token is not in the table.
    """
    places, registers = np.empty(_BLOCK_ROWS, np.int32), np.empty(_BLOCK_ROWS, np.uint64)
    return _encode(base, level, cycles, table, places, registers, out)


@intrinsic
def _array_at(typing_context, address, like):
    """A pointer of a scalar's type from an address, for `carray`."""

    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(like)(address, like), generate


@njit(cache=True, nogil=True)
def encode_windows(base_address, level_address, n_rows, cycles, table, out, lines, column):
    """The same for many windows, each into `out[lines[w], column:]`. base_address, level_address: where in memory a window's rows
    begin; n_rows: how many.

    Returns the first window with a token that is not in the table or more tokens than fit, else -1.
    """
    places, registers = np.empty(_BLOCK_ROWS, np.int32), np.empty(_BLOCK_ROWS, np.uint64)
    for w in range(len(lines)):
        base = carray(_array_at(base_address[w], uint8(0)), n_rows[w])
        level = carray(_array_at(level_address[w], uint16(0)), n_rows[w])
        if _encode(base, level, cycles, table, places, registers, out[lines[w], column:]) < 0:
            return w
    return -1
