"""Bases to token ids with a learned vocabulary: merges by rank, left to right, as learning did."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import njit

from grover_dist.bpe.vocabulary import FIRST_BASE_ID, UNKNOWN_ID, Vocabulary

_SHORT = 256  # below this many bases rescanning beats lists
_CHUNK = 1 << 18  # bases; the lists take 48 bytes a base, so that a long sequence goes through them chunk by chunk
_OVERLAP = 1 << 12
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def encode_codes(codes: np.ndarray, vocabulary: Vocabulary, cycles: int | None = None, *, chunk: int = _CHUNK) -> np.ndarray:
    """Model ids (uint16) of one sequence of base codes (uint8[n]; anything above 3 is one [UNK] and breaks the sequence).

    Linear in practice; no [CLS] or [SEP]. Memory beside codes and ids: that of a chunk (in bases), unless every token of a chunk
    depends on bases beyond it.
    """
    cycles = vocabulary.cycles if cycles is None else cycles
    codes = np.ascontiguousarray(codes, np.uint8)
    table = _merge_table(vocabulary, cycles)

    def encode(start: int, stop: int) -> np.ndarray:
        out = np.empty(stop - start, np.uint16)
        return out[: _encode(codes[start:stop], *table, out)].copy()

    if len(codes) <= chunk:
        return encode(0, len(codes))
    pieces, at = [], 0
    while at < len(codes):
        long_end, stop = _next_piece(codes, at, chunk)
        if long_end > at:
            pieces += _in_chunks(encode, at, long_end, table[-1], chunk)
        else:
            pieces.append(encode(at, stop))
        at = max(long_end, stop)
    return np.concatenate(pieces)


def _in_chunks(encode: Callable[[int, int], np.ndarray], start: int, end: int, lengths: np.ndarray, chunk: int) -> list[np.ndarray]:
    """Ids of a stretch without unknown codes. Each chunk begins at a token of the one before, and takes over at a token that both have.

    This is exact. A row of tokens is the encoding of its bases if and only if each two neighbours are that of theirs: the first merge
    that crossed a boundary of the row would cross it in its two neighbours alone, too. The row that is put together has only
    neighbours from one of two encodings, since the token of the seam stands in both. Where two chunks share no token, all begins
    anew with longer ones, in the end with one.
    """
    pieces: list[np.ndarray] = []
    at, stop = start, min(start + chunk, end)
    ids = encode(at, stop)
    while stop < end:
        edges = _edges(ids, at, lengths)
        overlap = _OVERLAP
        while True:
            first = max(0, int(np.searchsorted(edges, stop - overlap, side="right")) - 1)
            seam = int(edges[first])
            following = min(max(seam + chunk, stop + overlap), end)
            more = encode(seam, following)
            more_edges = _edges(more, seam, lengths)
            _, own, other = np.intersect1d(edges[first:-1], more_edges[:-1], assume_unique=True, return_indices=True)
            shared = np.flatnonzero(ids[first + own] == more[other])
            if len(shared) or first == 0:
                break
            overlap *= 4
        if not len(shared):
            return _in_chunks(encode, start, end, lengths, 8 * chunk)
        pieces.append(ids[: first + own[shared[0]]])
        at, ids = int(more_edges[other[shared[0]]]), more[other[shared[0]] :]
        stop = following
    return [*pieces, ids]


def _edges(ids: np.ndarray, at: int, lengths: np.ndarray) -> np.ndarray:
    return at + np.concatenate([[0], np.cumsum(lengths[ids - FIRST_BASE_ID])])


def encode_many(codes: np.ndarray, vocabulary: Vocabulary, cycles: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Model ids of many sequences of one width: uint8[n, width] -> (uint16[n, longest] padded with [PAD] = 0, int32[n] token counts).

    Every sequence is tokenized by itself.
    """
    cycles = vocabulary.cycles if cycles is None else cycles
    codes = np.ascontiguousarray(codes, np.uint8)
    assert codes.ndim == 2
    table = _merge_table(vocabulary, cycles)
    out = np.zeros(codes.shape, np.uint16)
    counts = np.zeros(len(codes), np.int32)
    _encode_rows(codes, *table, out, counts)
    return np.ascontiguousarray(out[:, : counts.max(initial=0)]), counts


def _merge_table(vocabulary: Vocabulary, cycles: int) -> tuple[np.ndarray, ...]:
    """Open-addressing table (pair of small ids -> merge index), the parts of each merge and token lengths by small id. Made once a
    vocabulary and cycle number."""
    return vocabulary.derived(("merge table", cycles), lambda: _make_table(vocabulary.at(cycles)))


def _make_table(vocabulary: Vocabulary) -> tuple[np.ndarray, ...]:
    size = 16
    while size < 4 * vocabulary.cycles:
        size *= 2
    keys, ranks = np.full(size, -1, np.int64), np.full(size, -1, np.int32)
    left, right = vocabulary.left.astype(np.int64) - FIRST_BASE_ID, vocabulary.right.astype(np.int64) - FIRST_BASE_ID
    _fill_table(keys, ranks, left, right)
    return keys, ranks, left, right, vocabulary.lengths()[FIRST_BASE_ID:].astype(np.int64)


@njit(cache=True, nogil=True)
def _slot(key, size):
    return np.int64((np.uint64(key) * _MULTIPLIER) >> np.uint64(40)) & (size - 1)


@njit(cache=True, nogil=True)
def _fill_table(keys, ranks, left, right):
    for merge in range(left.size):
        key = left[merge] * 65_536 + right[merge]
        at = _slot(key, keys.size)
        while keys[at] >= 0:
            at = (at + 1) & (keys.size - 1)
        keys[at], ranks[at] = key, merge


@njit(cache=True, nogil=True)
def _rank(keys, ranks, left, right):
    """Index of the merge of this pair, or -1."""
    key = np.int64(left) * 65_536 + np.int64(right)
    at = _slot(key, keys.size)
    while keys[at] >= 0:
        if keys[at] == key:
            return np.int64(ranks[at])
        at = (at + 1) & (keys.size - 1)
    return np.int64(-1)


@njit(cache=True, nogil=True)
def _next_piece(codes, at, chunk):
    """(end of a stretch of known codes that begins here and is longer than a chunk, or -1; end of a piece of at most two chunks in which
    no such stretch begins)."""
    n, begin, i = codes.size, at, at
    while True:
        while i < n and codes[i] <= 3:
            i += 1
        if i - begin > chunk:
            return (i, -1) if begin == at else (-1, begin)
        if i == n:
            return -1, n
        i += 1
        begin = i
        if i - at >= chunk:
            return -1, i


@njit(cache=True, nogil=True)
def _encode_rows(codes, keys, ranks, left_parts, right_parts, lengths, out, counts):
    for row in range(codes.shape[0]):
        counts[row] = _encode(codes[row], keys, ranks, left_parts, right_parts, lengths, out[row])


@njit(cache=True, nogil=True)
def _encode(codes, keys, ranks, left_parts, right_parts, lengths, out):
    """Encode stretch by stretch between unknown codes; returns the number of ids written."""
    written = 0
    start = 0
    n = codes.size
    while start < n:
        if codes[start] > 3:
            out[written] = UNKNOWN_ID
            written += 1
            start += 1
            continue
        stop = start + 1
        while stop < n and codes[stop] <= 3:
            stop += 1
        if stop - start <= _SHORT:
            written += _encode_short(codes[start:stop], keys, ranks, out[written:])
        else:
            written += _encode_long(codes[start:stop], keys, ranks, left_parts, right_parts, lengths, out[written:])
        start = stop
    return written


@njit(cache=True, nogil=True)
def _encode_short(codes, keys, ranks, out):
    """Find the lowest rank, replace it everywhere from left to right, again until nothing merges."""
    n = codes.size
    tokens = np.empty(n, np.int64)
    pair_rank = np.empty(n, np.int64)
    for i in range(n):
        tokens[i] = codes[i]
    for i in range(n - 1):
        pair_rank[i] = _rank(keys, ranks, tokens[i], tokens[i + 1])
    while True:
        best = np.int64(1 << 40)
        for i in range(n - 1):
            if 0 <= pair_rank[i] < best:
                best = pair_rank[i]
        if best == 1 << 40:
            break
        kept, i = 0, 0
        changed_before = False  # the token before the next kept one is new, so its pair must be looked up again
        while i < n:
            merged = i < n - 1 and pair_rank[i] == best
            if merged:
                token, last = best + 4, i + 1
            else:
                token, last = tokens[i], i
            if kept > 0 and (merged or changed_before):
                pair_rank[kept - 1] = _rank(keys, ranks, tokens[kept - 1], token)
            if last < n - 1:
                pair_rank[kept] = pair_rank[last]
            tokens[kept] = token
            kept += 1
            changed_before = merged
            i = last + 1
        n = kept
    for i in range(n):
        out[i] = tokens[i] + FIRST_BASE_ID
    return n


@njit(cache=True, nogil=True)
def _encode_long(codes, keys, ranks, left_parts, right_parts, lengths, out):
    """Lists of places by rank. A new token only takes part in later ranks, so one pass over the ranks is enough."""
    n, cycles = codes.size, left_parts.size
    slots = np.empty(n, np.uint16)  # a token's id at its first and its last base
    first_entry, last_entry = np.full(cycles, -1, np.int64), np.full(cycles, -1, np.int64)
    place, following = np.empty(3 * n, np.int64), np.empty(3 * n, np.int64)
    entries = 0
    for i in range(n):
        slots[i] = codes[i]
    for i in range(n - 1):
        rank = _rank(keys, ranks, slots[i], slots[i + 1])
        if rank >= 0:
            entries = _append(first_entry, last_entry, place, following, entries, rank, i)
    for rank in range(cycles):
        entry = first_entry[rank]
        if entry < 0:
            continue
        a, b, new = left_parts[rank], right_parts[rank], rank + 4
        while entry >= 0:
            p = place[entry]
            entry = following[entry]
            q = p + lengths[a]
            if slots[p] != a or q >= n or slots[q] != b:  # merged in the meantime
                continue
            r = q + lengths[b]
            slots[p] = new
            slots[q] = new
            slots[r - 1] = new
            if p > 0:
                x = np.int64(slots[p - 1])
                found = _rank(keys, ranks, x, new)
                if found >= 0:
                    entries = _append(first_entry, last_entry, place, following, entries, found, p - lengths[x])
            if r < n:
                found = _rank(keys, ranks, new, slots[r])
                if found >= 0:
                    entries = _append(first_entry, last_entry, place, following, entries, found, p)
    written, p = 0, 0
    while p < n:
        out[written] = slots[p] + FIRST_BASE_ID
        written += 1
        p += lengths[slots[p]]
    return written


@njit(cache=True, nogil=True)
def _append(first_entry, last_entry, place, following, entries, rank, position):
    place[entries], following[entries] = position, -1
    if last_entry[rank] < 0:
        first_entry[rank] = entries
    else:
        following[last_entry[rank]] = entries
    last_entry[rank] = entries
    return entries + 1
