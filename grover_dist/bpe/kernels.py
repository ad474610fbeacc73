"""Compiled inner loops of one strip: a contiguous stretch of the genome that one thread merges.

Layout of a strip. One uint16 slot a base, with an EDGE slot before the first base, after the last one and between contigs, and one scratch
slot at the very end. A token's id stands at its first and its last base (and at older starts inside it, where any id but the old one will
do). So the next token begins at `position + length[id]`, the previous one ends at `position - 1`, where its id stands. The last token of a
strip may reach past the strip's end: then the first tokens of the next strip were dropped there.

Occurrences. Every adjacent pair inside the strip stands in exactly one list of start positions, in ascending order, filed when the younger
token of the pair was made (a pair never gains occurrences later). Frequent neighbours of a token have a list of their own; rare ones share
one (REST). A list may hold stale positions: an entry counts only if both tokens still stand there.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

EDGE = 65_535  # slot value: nothing can be merged across
REST = 65_535  # table key: the shared list of rare neighbours
NEVER = 65_535  # level: this boundary never disappears
AHEAD = 24  # list entries between the prefetch and the use

# Places in a strip's int64 state vector.
POOL_USED, TABLE_USED, FIRST, HEAD_END, LAST, END, SINGLE, INDEXED, TOKENS = range(9)
STATE_SIZE = 9
# Columns of an edges row, one row a strip.
E_HEAD, E_FIRST, E_TAIL, E_LAST, E_RUN, E_WHOLE, E_AFTER_DROP = range(7)
EDGE_COLUMNS = 7


@intrinsic
def prefetch(typing_context, array, index):
    """Ask for the cache line of array[index], to be written soon."""

    def generate(context, builder, signature, arguments):
        view = context.make_array(signature.args[0])(context, builder, arguments[0])
        offset = context.cast(builder, arguments[1], signature.args[1], types.intp)
        pointer = builder.bitcast(builder.gep(view.data, [offset]), cgutils.voidptr_t)
        word = ir.IntType(32)
        function = builder.module.declare_intrinsic(
            "llvm.prefetch", [cgutils.voidptr_t], ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, word, word, word])
        )
        builder.call(function, [pointer, word(1), word(3), word(1)])
        return context.get_dummy_value()

    return types.void(array, index), generate


@intrinsic
def trailing_zeros(typing_context, word):
    """Zero bits below the lowest set bit of a uint64 that is not 0."""

    def generate(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate


@njit(cache=True, nogil=True)
def _scan(slots, state, lengths, a, b, new, hist_left, hist_right):
    """Replace a pair by walking over all tokens: for strips without an index yet. Returns how often."""
    end = state[END]
    p, made, follower, last = state[FIRST], np.int64(0), np.int64(EDGE), np.int64(-1)
    while p < end:
        token = np.int64(slots[p])
        if token == EDGE:
            p += 1
            continue
        q = p + np.int64(lengths[token])
        if token != a or slots[min(q, end)] != b:
            p = q
            continue
        r = q + np.int64(lengths[b])
        x, y = np.int64(slots[p - 1]), np.int64(slots[min(r, end)])
        slots[p] = new
        slots[q] = new
        slots[r - 1 if r <= end else end + 1] = new
        if x == new:
            hist_right[follower] -= np.uint32(1)
            hist_right[new] += np.uint32(1)
        hist_left[x] += np.uint32(1)
        hist_right[y] += np.uint32(1)
        follower, last = y, p
        made += 1
        p = r
    return made, follower, last


@njit(cache=True, nogil=True)
def _find_list(a, b, table_key, table_begin, table_first):
    """Range in the pool of the list that holds the pair (a, b), and whether other pairs share it."""
    if a > b or b < 4:
        entry, key = table_first[2 * a + 1], b
    else:
        entry, key = table_first[2 * b], a
    while table_key[entry] != key and table_key[entry] != REST:
        entry += 1
    return table_begin[entry], table_begin[entry + 1], table_key[entry] == REST


@njit(cache=True, nogil=True)
def put_varint(out, at, value):
    while value >= 128:
        out[at] = (value & 127) | 128
        at += 1
        value >>= 7
    out[at] = value
    return at + 1


@njit(cache=True, nogil=True)
def _walk(slots, listed, made_at, length_a, length_b, a, b, new, end, left_of, right_of, hist_left, hist_right):
    """Replace the pair at every listed place where it still stands. Returns how often; fills the places, both neighbours and their
    histograms.

    Everything is unsigned: indexing by signed numbers costs a test each. The memory of `listed` goes on for AHEAD entries.
    """
    one, ahead, made = np.uint64(1), np.uint64(AHEAD), np.uint64(0)
    for i in range(np.uint64(listed.size)):
        prefetch(slots, listed[i + ahead])
        p = np.uint64(listed[i])
        if slots[p] != a:
            continue
        q = min(p + length_a, end)
        if slots[q] != b:
            continue
        r = q + length_b
        x = slots[p - one]
        y = slots[min(r, end)]
        slots[p] = new
        slots[q] = new
        slots[r - one if r <= end else end + one] = new
        if x == new:  # the token made just before touches this one
            before = right_of[made - one]
            hist_right[before] -= np.uint32(1)
            hist_right[new] += np.uint32(1)
            right_of[made - one] = new
        hist_left[x] += np.uint32(1)
        hist_right[y] += np.uint32(1)
        left_of[made] = x
        right_of[made] = y
        made_at[made] = p
        made += one
    return np.int64(made)


@njit(cache=True, nogil=True)
def _scatter(made_at, made, neighbour_of, back, bucket, offsets, pool):
    """Write every place, minus the length that `back` gives its neighbour, to its neighbour's list."""
    one = np.uint64(1)
    for i in range(np.uint64(made)):
        neighbour = neighbour_of[i]
        place = bucket[neighbour]
        at = offsets[place]
        pool[at] = made_at[i] - back[neighbour]
        offsets[place] = at + one


@njit(cache=True, nogil=True)
def _distinct(histogram, neighbour_of, made, limit, listed, marks, keys):
    """The neighbours that occur, ascending, into keys. Returns how many."""
    n = 0
    if made > limit // 4 or not listed:
        for key in range(limit):
            if histogram[key] != 0:
                keys[n] = key
                n += 1
        return n
    for i in range(made):
        neighbour = np.int64(neighbour_of[i])
        marks[neighbour >> 6] |= np.uint64(1) << np.uint64(neighbour & 63)
    for word in range((limit + 63) >> 6):
        bits = marks[word]
        marks[word] = 0
        while bits != 0:
            key = np.int64(64 * word + trailing_zeros(bits))
            bits &= bits - np.uint64(1)
            if histogram[key] != 0:
                keys[n] = key
                n += 1
    marks[EDGE >> 6] = 0
    return n


@njit(cache=True, nogil=True)
def _file_side(histogram, keys, n_keys, skip, rare_below, bucket, offsets, pool_used, total, table_key, table_begin, table_used, out, at):
    """Turn one side's histogram into list offsets, table entries and the message; the histogram is zero afterwards."""
    histogram[EDGE] = 0
    bucket[EDGE] = 0
    at = put_varint(out, at, n_keys - (1 if histogram[skip] != 0 else 0))
    previous = 0
    used = pool_used
    n_lists = 1
    for index in range(n_keys):
        key = keys[index]
        count = np.int64(histogram[key])
        histogram[key] = 0
        bucket[key] = 0
        if key == skip:
            continue
        at = put_varint(out, at, key - previous)
        at = put_varint(out, at, count)
        previous = key
        if count >= rare_below:
            bucket[key] = n_lists
            offsets[n_lists] = used
            table_key[table_used] = key
            table_begin[table_used] = used
            table_used += 1
            used += count
            n_lists += 1
    offsets[0] = used
    table_key[table_used] = REST
    table_begin[table_used] = used
    table_key[table_used + 1] = REST
    table_begin[table_used + 1] = pool_used + total
    return table_used + 2, at


@njit(cache=True, nogil=True)
def run_round(slots, state, lengths, merges, drop, take, pool, tables, scratch, rarity, edges, out):
    """Make the merges of one round, in order. Returns the length of the message written to `out`.

    lengths uint32[65536]; the EDGE has 0. merges int64[k, 3] (left, right, new). drop, take: the index of the merge that takes this strip's
    first token away to the left, or gives its last token the first one of the right neighbour; -1 for none. A merge's message: occurrences
    inside the strip, then per side the number of distinct neighbours and their (id difference, count), all as LEB128. rarity: a neighbour
    with fewer than `rarity` times the occurrences of its merge shares a list.
    """
    table_key, table_begin, table_first = tables
    left_of, right_of, made_at, hist_left, hist_right, bucket, offsets, keys, marks, no_length = scratch
    at = np.int64(0)
    end = state[END]
    edges[E_AFTER_DROP] = -1
    for index in range(merges.shape[0]):
        a, b, new = merges[index, 0], merges[index, 1], merges[index, 2]
        length_a, length_b = np.int64(lengths[a]), np.int64(lengths[b])
        dropping, taking = drop == index, take == index
        if dropping:
            first = state[FIRST]
            slots[first] = EDGE
            first += length_b
            if first < state[HEAD_END]:
                slots[first - 1] = EDGE
            state[FIRST] = first
        begin, stop, shared = np.int64(0), np.int64(0), True
        if state[INDEXED]:
            begin, stop, shared = _find_list(a, b, table_key, table_begin, table_first)
            made = _walk(
                slots, pool[begin:stop], made_at, np.uint64(length_a), np.uint64(length_b), np.uint16(a), np.uint16(b), np.uint16(new),
                np.uint64(end), left_of, right_of, hist_left, hist_right,
            )  # fmt: skip
            last = np.int64(made_at[made - 1]) if made > 0 else np.int64(-1)
        else:
            made, follower, last = _scan(slots, state, lengths, a, b, new, hist_left, hist_right)
            right_of[max(0, made - 1)] = follower
        if made > 0 and last + length_a + length_b >= end:
            state[LAST] = last
        state[TOKENS] -= made
        taken_left = np.int64(EDGE)
        if taking:
            p = state[LAST]
            taken_left = np.int64(slots[p - 1])
            slots[p] = new
            if taken_left == new:
                hist_right[right_of[made - 1]] -= np.uint32(1)
                hist_right[new] += np.uint32(1)
                right_of[made - 1] = new
            left_of[made] = taken_left
            hist_left[taken_left] += np.uint32(1)
        if dropping and state[FIRST] < state[HEAD_END]:
            edges[E_AFTER_DROP] = slots[state[FIRST]]
        at = put_varint(out, at, made)
        rare_below = max(2, np.int64(made * rarity))
        n_left = made + (1 if taking else 0)
        used, table_used = state[POOL_USED], state[TABLE_USED]
        table_first[2 * new] = table_used
        n_keys = _distinct(hist_left, left_of, n_left, new + 1, state[INDEXED], marks, keys)
        table_used, at = _file_side(
            hist_left, keys, n_keys, np.int64(EDGE), rare_below, bucket, offsets, used, n_left, table_key, table_begin, table_used, out, at
        )
        if state[INDEXED]:
            _scatter(made_at, made, left_of, lengths, bucket, offsets, pool)
            if taking:
                pool[offsets[bucket[taken_left]]] = state[LAST] - np.int64(lengths[taken_left])
            used += n_left
        # The list that was used up has room for the right side, unless other pairs share it.
        place = used if shared else begin
        table_first[2 * new + 1] = table_used
        n_keys = _distinct(hist_right, right_of, made, new + 1, state[INDEXED], marks, keys)
        table_used, at = _file_side(
            hist_right, keys, n_keys, new, rare_below, bucket, offsets, place, made, table_key, table_begin, table_used, out, at
        )
        if state[INDEXED]:
            _scatter(made_at, made, right_of, no_length, bucket, offsets, pool)
            if shared:
                used += made
        table_first[2 * new + 2] = table_used
        state[POOL_USED], state[TABLE_USED] = used, table_used
    describe_edges(slots, state, lengths, edges)
    return at


@njit(cache=True, nogil=True)
def describe_edges(slots, state, lengths, edges):
    """First token, last token and the run of equal tokens that ends the strip, for the junctions."""
    head = state[FIRST] < state[HEAD_END]
    edges[E_HEAD] = head
    edges[E_FIRST] = slots[state[FIRST]] if head else -1
    tail = head or state[SINGLE] == 0
    edges[E_TAIL] = tail
    edges[E_LAST] = -1
    edges[E_RUN] = 0
    edges[E_WHOLE] = 0
    if tail:
        p = state[LAST]
        last = slots[p]
        run = 1
        while slots[p - 1] == last:
            p -= np.int64(lengths[last])
            run += 1
        edges[E_LAST] = last
        edges[E_RUN] = run
        edges[E_WHOLE] = state[SINGLE] != 0 and slots[p - 1] == EDGE
