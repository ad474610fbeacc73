"""The packed bytes between the coordinator and the workers. Little-endian; every message and every reply names its round.

Down: header (round, merges, strips, cycles asked for), merges uint16[k, 3] (left, right, new), then int16 a strip twice: which merge drops
its first token and which merge lets its last token take the right neighbour's (-1: none). Up: header (round, payloads, strips, 0), edges
int64[strips, 7] (columns in kernels.py), bytes of each payload int64, payloads. A payload of a round is what `kernels.run_round` writes, of
a strip or summed over strips; that of the start is int64: 16 base-pair counts, then rows, soft left border and single piece of each strip.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numba import njit

from grover_dist.bpe.kernels import EDGE_COLUMNS, put_varint, trailing_zeros

MAX_MERGES_A_ROUND = 64
_HEADER = struct.Struct("<qqqq")


def pack_rounds(number: int, cycles: int, merges: np.ndarray, drop: np.ndarray, take: np.ndarray, edges: list[int]) -> list[bytes]:
    """One round's message to each worker: worker w has the strips edges[w] to edges[w + 1] of drop and take, int64[all strips]."""
    packed, drop, take = merges.astype("<u2").tobytes(), drop.astype("<i2").tobytes(), take.astype("<i2").tobytes()
    return [
        b"".join([_HEADER.pack(number, len(merges), b - a, cycles), packed, drop[2 * a : 2 * b], take[2 * a : 2 * b]])
        for a, b in pairwise(edges)
    ]


@dataclass(frozen=True)
class RoundMessage:
    number: int
    cycles: int
    merges: np.ndarray  # int64[k, 3]
    drop: np.ndarray  # int64[strips]
    take: np.ndarray  # int64[strips]

    def pack(self) -> bytes:
        return pack_rounds(self.number, self.cycles, self.merges, self.drop, self.take, [0, len(self.drop)])[0]

    @classmethod
    def unpack(cls, message: bytes) -> RoundMessage:
        number, k, strips, cycles = _HEADER.unpack_from(message)
        merges = np.frombuffer(message, "<u2", 3 * k, 32).astype(np.int64).reshape(k, 3)
        flags = np.frombuffer(message, "<i2", 2 * strips, 32 + 6 * k).astype(np.int64)
        return cls(number, cycles, merges, flags[:strips], flags[strips:])


@dataclass(frozen=True)
class Reply:
    number: int
    edges: np.ndarray  # int64[strips, EDGE_COLUMNS]
    payloads: list[np.ndarray]  # uint8

    def pack(self) -> bytes:
        sizes = struct.pack(f"<{len(self.payloads)}q", *map(len, self.payloads))
        header = _HEADER.pack(self.number, len(self.payloads), len(self.edges), 0)
        return b"".join([header, self.edges.astype("<i8").tobytes(), sizes, *(payload.tobytes() for payload in self.payloads)])

    @classmethod
    def unpack(cls, reply: bytes) -> Reply:
        number, k, strips, _ = _HEADER.unpack_from(reply)
        edges = np.frombuffer(reply, "<i8", strips * EDGE_COLUMNS, 32).reshape(strips, EDGE_COLUMNS)
        at, payloads = 32 + edges.nbytes + 8 * k, []
        for size in struct.unpack_from(f"<{k}q", reply, 32 + edges.nbytes):
            payloads.append(np.frombuffer(reply, np.uint8, size, at))
            at += size
        return cls(number, edges, payloads)


@njit(cache=True, nogil=True)
def get_varint(buffer, at):
    value, shift = np.int64(0), 0
    while buffer[at] >= 128:
        value |= np.int64(buffer[at] & 127) << shift
        shift += 7
        at += 1
    return value | (np.int64(buffer[at]) << shift), at + 1


def join_payloads(payloads: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """One buffer uint8, and where each begins int64."""
    if len(payloads) == 1:
        return payloads[0], np.zeros(1, np.int64)
    return np.concatenate(payloads), np.cumsum([0, *(len(payload) for payload in payloads[:-1])])


@njit(cache=True, nogil=True)
def read_side(buffer, cursor, histogram, marks, keys):
    """One side of a merge, summed over the payloads at cursor, which moves on: into histogram and keys (those that occur, ascending).
    Returns how many. marks: uint64, a bit for each token, zero before and after.
    """
    for source in range(cursor.size):
        entries, at = get_varint(buffer, cursor[source])
        key = np.int64(0)
        for _ in range(entries):
            step, at = get_varint(buffer, at)
            count, at = get_varint(buffer, at)
            key += step
            histogram[key] += count
            marks[key >> 6] |= np.uint64(1) << np.uint64(key & 63)
        cursor[source] = at
    n = 0
    for word in range(marks.size):
        bits = marks[word]
        marks[word] = 0
        while bits != 0:
            keys[n] = 64 * word + trailing_zeros(bits)
            bits &= bits - np.uint64(1)
            n += 1
    return n


@njit(cache=True, nogil=True)
def read_occurrences(buffer, cursor):
    """How often a merge was made, summed over the payloads at cursor, which moves on."""
    total = np.int64(0)
    for source in range(cursor.size):
        made, cursor[source] = get_varint(buffer, cursor[source])
        total += made
    return total


def sum_payloads(payloads: list[np.ndarray], merges: np.ndarray) -> np.ndarray:
    """One payload that is the sum of several of the same merges."""
    buffer, begins = join_payloads(payloads)
    out = np.empty(len(buffer) + 16 * len(merges), np.uint8)
    return out[: _sum_payloads(buffer, begins, len(merges), int(merges[-1, 2]) + 1, out)].copy()


@njit(cache=True, nogil=True)
def _sum_payloads(buffer, begins, n_merges, n_tokens, out):
    cursor = begins.copy()
    histogram, keys = np.zeros(n_tokens, np.int64), np.empty(n_tokens, np.int64)
    marks = np.zeros((n_tokens + 63) >> 6, np.uint64)
    written = np.int64(0)
    for _ in range(n_merges):
        written = put_varint(out, written, read_occurrences(buffer, cursor))
        for _ in range(2):
            n = read_side(buffer, cursor, histogram, marks, keys)
            written = put_varint(out, written, n)
            previous = np.int64(0)
            for index in range(n):
                key = keys[index]
                written = put_varint(out, written, key - previous)
                written = put_varint(out, written, histogram[key])
                histogram[key] = 0
                previous = key
    return written
