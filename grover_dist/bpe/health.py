"""Is a vocabulary healthy? What its tokens look like in the genome, before any model is trained. Needs only bases, levels and soft mask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numba import njit

from grover_dist.bpe.encode import encode_many
from grover_dist.bpe.vocabulary import FIRST_BASE_ID, FIRST_MERGE_ID, Vocabulary

Read = Callable[[int, int], tuple[np.ndarray, np.ndarray, np.ndarray]]
CHUNK_ROWS = 1 << 24
PIECE_BP = 512  # pieces cut out to measure re-synchronisation and footprints
SAMPLES = 2_000
_COMPLEMENT = str.maketrans("ACGT", "TGCA")
_QUANTILES = (50, 95, 99)


def vocabulary_health(
    vocabulary: Vocabulary, cycles: Sequence[int], read: Read, row_start: np.ndarray, *, seed: int = 0, samples: int = SAMPLES
) -> dict[str, dict[str, Any]]:
    """Figures of the vocabulary at each of `cycles`, by the cycle number as text; plain values, ready for JSON.

    read(start, stop): base codes uint8, boundary levels uint16 and soft mask bool of these rows. row_start int64[contigs + 1]: first row of
    each contig and the end.

    bases_per_token; dead_tokens (in the vocabulary, nowhere in the genome at this size) and which; length_histogram (dictionary) and
    length_occurrences by length; gc of the dictionary and of the occurrences; masked_share of each token's bases, by token; reverse
    complement: closure (share of merged tokens whose reverse complement is a token) and boundary_agreement of both strands' tokens (shared
    boundaries among all, on sampled pieces); resynchronisation_bp: how far from a cut the tokens of a cut-out piece differ from the whole;
    substitution_footprint_bp: bases whose token changes with one substitution. The last three as p50, p95, p99 or a share; None where no
    contig holds a piece of 512 bases.
    """
    n_rows = int(row_start[-1])
    tallies = {c: np.zeros((vocabulary.at(c).size, 2), np.int64) for c in cycles}
    state = {c: np.zeros(3, np.int64) for c in cycles}
    for start in range(0, n_rows, CHUNK_ROWS):
        codes, levels, masked = read(start, min(start + CHUNK_ROWS, n_rows))
        for c in cycles:
            _tally(codes, levels, masked, c, state[c], tallies[c])
    pieces, piece_levels = _sample_pieces(read, row_start, samples, seed)
    found = {}
    for c in cycles:
        _close_token(state[c], tallies[c])
        found[str(c)] = {
            **_of_tokens(vocabulary.at(c), tallies[c][:, 0], tallies[c][:, 1], n_rows),
            **_of_pieces(vocabulary, c, pieces, piece_levels, seed),
        }
    return found


def reverse_complement_closure(vocabulary: Vocabulary) -> float:
    """Share of the merged tokens whose reverse complement is a token too; 1.0 without merges."""
    tokens = vocabulary.strings()[FIRST_MERGE_ID:]
    known = set(tokens)
    return sum(token.translate(_COMPLEMENT)[::-1] in known for token in tokens) / len(tokens) if tokens else 1.0


def _of_tokens(vocabulary: Vocabulary, counts: np.ndarray, masked_bases: np.ndarray, n_rows: int) -> dict[str, Any]:
    strings, lengths = vocabulary.strings(), vocabulary.lengths().astype(np.int64)
    real = np.arange(FIRST_BASE_ID, vocabulary.size)
    gc = np.array([0.0] * FIRST_BASE_ID + [(s.count("G") + s.count("C")) / len(s) for s in strings[FIRST_BASE_ID:]])
    used = real[counts[real] > 0]
    dead = real[counts[real] == 0]
    bases = counts * lengths
    longest = int(lengths.max())
    by_length = np.bincount(lengths[real], minlength=longest + 1)
    occurrences = np.bincount(lengths, weights=counts, minlength=longest + 1).astype(np.int64)
    masked_share = masked_bases[used] / bases[used]
    return {
        "tokens": int(counts.sum()),
        "bases_per_token": n_rows / max(1, int(counts.sum())),
        "dead_tokens": len(dead),
        "dead": [strings[token] for token in dead],
        "length_histogram": {str(n): int(by_length[n]) for n in np.flatnonzero(by_length)},
        "length_occurrences": {str(n): int(occurrences[n]) for n in np.flatnonzero(occurrences)},
        "gc_dictionary": float(np.average(gc[real], weights=lengths[real])),
        "gc_occurrences": float((gc * bases).sum() / max(1, bases.sum())),
        "masked_share_of_bases": float(masked_bases.sum() / n_rows),
        "masked_share": {strings[token]: round(float(share), 4) for token, share in zip(used, masked_share, strict=True)},
        "reverse_complement_closure": reverse_complement_closure(vocabulary),
    }


def _of_pieces(vocabulary: Vocabulary, cycles: int, pieces: np.ndarray, levels: np.ndarray, seed: int) -> dict[str, Any]:
    names = ("resynchronisation_bp", "substitution_footprint_bp", "boundary_agreement")
    if len(pieces) == 0:
        return dict.fromkeys(names)
    inside = _boundaries(pieces, vocabulary, cycles)
    distances = _distances(inside, levels > cycles)
    rng = np.random.default_rng([seed, 1])
    changed = pieces.copy()
    middle = PIECE_BP // 2
    changed[:, middle] = (changed[:, middle] + rng.integers(1, 4, len(pieces))) % 4
    footprints = _footprints(inside, _boundaries(changed, vocabulary, cycles), middle)
    opposite = _boundaries(np.ascontiguousarray(3 - pieces[:, ::-1]), vocabulary, cycles)
    # The boundary before base i is the one before base n - i of the other strand; the piece's own ends are not compared.
    shared, either = _overlap(inside[:, 1:], opposite[:, :0:-1])
    return dict(zip(names, (_quantiles(distances), _quantiles(footprints), shared / max(1, either)), strict=True))


def _quantiles(values: np.ndarray) -> dict[str, float]:
    return {f"p{q}": float(np.percentile(values, q)) for q in _QUANTILES}


def _overlap(one: np.ndarray, other: np.ndarray) -> tuple[int, int]:
    return int((one & other).sum()), int((one | other).sum())


def _sample_pieces(read: Read, row_start: np.ndarray, samples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes uint8[m, PIECE_BP] and levels of pieces that lie inside contigs, at places drawn evenly from all there are."""
    starts, stops = np.asarray(row_start[:-1], np.int64), np.asarray(row_start[1:], np.int64)
    places = np.maximum(0, stops - starts - PIECE_BP + 1)
    total = int(places.sum())
    if total == 0:
        return np.empty((0, PIECE_BP), np.uint8), np.empty((0, PIECE_BP), np.uint16)
    drawn = np.sort(np.random.default_rng([seed, 0]).integers(0, total, samples))
    ends = np.cumsum(places)
    contig = np.searchsorted(ends, drawn, side="right")
    rows = starts[contig] + drawn - (ends[contig] - places[contig])
    found = [read(int(row), int(row) + PIECE_BP)[:2] for row in rows]
    return np.stack([codes for codes, _ in found]), np.stack([levels for _, levels in found])


def _boundaries(pieces: np.ndarray, vocabulary: Vocabulary, cycles: int) -> np.ndarray:
    """bool[m, width]: a token starts here when the piece is tokenized by itself."""
    ids, counts = encode_many(pieces, vocabulary, cycles)
    starts = np.zeros(pieces.shape, np.bool_)
    _mark_starts(ids, counts, vocabulary.lengths(cycles), starts)
    return starts


@njit(cache=True, nogil=True)
def _mark_starts(ids, counts, lengths, starts):
    for row in range(ids.shape[0]):
        at = 0
        for token in range(counts[row]):
            starts[row, at] = True
            at += np.int64(lengths[ids[row, token]])


@njit(cache=True, nogil=True)
def _close_token(state, tally):
    """state: length, highest level inside and masked bases of the open token. The highest level is the cycle that made it."""
    length, cycle, masked = state[0], state[1], state[2]
    if length > 0:
        # A single base is told by its code, kept in the place of the cycle as -1 - code.
        token = FIRST_MERGE_ID - 1 + cycle if length > 1 else FIRST_BASE_ID - 1 - cycle
        tally[token, 0] += 1
        tally[token, 1] += masked


@njit(cache=True, nogil=True)
def _tally(codes, levels, masked, cycles, state, tally):
    for row in range(codes.size):
        if levels[row] > cycles:
            _close_token(state, tally)
            state[0], state[1], state[2] = 1, -1 - np.int64(codes[row]), np.int64(masked[row])
        else:
            state[0] += 1
            state[1] = max(state[1], np.int64(levels[row]))
            state[2] += np.int64(masked[row])


@njit(cache=True, nogil=True)
def _distances(inside, whole):
    """From each end of each piece: the bases before the last boundary, on the way to the middle, in which piece and whole differ."""
    n, width = inside.shape
    found = np.zeros(2 * n, np.int64)
    for row in range(n):
        for at in range(1, width // 2):
            if inside[row, at] != whole[row, at]:
                found[2 * row] = at
        for at in range(width - 1, width // 2, -1):
            if inside[row, at] != whole[row, at]:
                found[2 * row + 1] = width - at
        # The piece starts a token where it was cut; if the whole does not, at least that token differs.
        if found[2 * row] == 0 and not whole[row, 0]:
            at = 1
            while at < width and not whole[row, at]:
                at += 1
            found[2 * row] = at
    return found


@njit(cache=True, nogil=True)
def _footprints(before, after, middle):
    """Bases in tokens that are not the same on both sides of the change; the token around the changed base always counts."""
    n, width = before.shape
    found = np.zeros(n, np.int64)
    for row in range(n):
        first, last = middle, middle + 1
        while first > 0 and not (before[row, first] and after[row, first]):
            first -= 1
        while last < width and not (before[row, last] and after[row, last]):
            last += 1
        for at in range(width):
            if before[row, at] != after[row, at]:
                low, high = at, at + 1
                while low > 0 and not (before[row, low] and after[row, low]):
                    low -= 1
                while high < width and not (before[row, high] and after[row, high]):
                    high += 1
                first, last = min(first, low), max(last, high)
        found[row] = last - first
    return found
