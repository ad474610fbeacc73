from __future__ import annotations

import threading
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grover_dist.bpe import cost
from grover_dist.bpe.learn import call_local, learn
from grover_dist.bpe.messages import Reply, RoundMessage, sum_payloads
from grover_dist.bpe.partition import Partition, cut
from grover_dist.errors import UserError
from tests.bpe.test_tokenizer import codes_of, read_record


@given(st.lists(st.integers(1, 5_000), min_size=1, max_size=30), st.integers(1, 9))
def test_cuts_cover_all_rows_and_are_balanced(lengths, parts):
    starts = np.cumsum([0, *lengths])
    ranges = cut(starts[:-1], int(starts[-1]), parts)
    assert len(ranges) == parts and ranges[0][0] == 0 and ranges[-1][1] == starts[-1]
    assert all(a[1] == b[0] for a, b in pairwise(ranges))
    even = int(starts[-1]) / parts
    assert all(abs((stop - start) - even) <= even / 32 + 2 for start, stop in ranges)


def test_one_long_contig_spreads_over_all_parts():
    assert cut(np.array([0]), 250, 5) == [(0, 50), (50, 100), (100, 150), (150, 200), (200, 250)]


def test_a_cut_moves_to_a_contig_start_nearby():
    assert cut(np.array([0, 6_450]), 12_800, 2)[0] == (0, 6_450)
    assert cut(np.array([0, 6_700]), 12_800, 2)[0] == (0, 6_400)


def test_messages_come_back():
    message = RoundMessage(7, 600, np.array([[3, 4, 60], [0, 0, 61]]), np.array([-1, 1, 0]), np.array([0, -1, -1]))
    found = RoundMessage.unpack(message.pack())
    assert found.number == 7 and found.cycles == 600
    for name in ("merges", "drop", "take"):
        assert np.array_equal(getattr(found, name), getattr(message, name))


def test_a_repeated_round_is_answered_from_memory():
    partition = Partition(np.array([0, 1, 0, 1, 0, 1], np.uint8), np.array([], np.int64), True)
    first = partition.start()
    assert partition.start() == first
    message = RoundMessage(1, 2, np.array([[0, 1, 4]]), np.array([-1]), np.array([-1])).pack()
    reply = partition.round(message)
    assert partition.round(message) == reply
    assert Reply.unpack(reply).number == 1
    assert partition.levels().tolist() == [65_535, 1, 65_535, 1, 65_535, 1]


def test_levels_of_any_rows():
    rng = np.random.default_rng(1)
    bases = rng.integers(0, 2, 500).astype(np.uint8)
    partition = Partition(bases, np.array([1, 2, 77, 400]), True, strips=3)
    partition.start()
    partition.round(RoundMessage(1, 2, np.array([[0, 1, 4]]), np.full(3, -1), np.full(3, -1)).pack())
    whole = partition.levels()
    assert len(whole) == 500
    for start, stop in [(0, 1), (1, 2), (0, 500), (76, 78), (160, 340), (499, 500), (250, 250)]:
        assert np.array_equal(partition.levels(start, stop), whole[start:stop])


def test_too_little_memory_is_refused_before_anything_is_built(monkeypatch):
    monkeypatch.setattr(cost, "available_bytes", lambda: 10**7)
    needed = cost.partition_bytes(10**6, "lean")
    with pytest.raises(UserError, match=f"{10**7:,} bytes free.*{needed:,} bytes"):
        Partition(np.zeros(10**6, np.uint8), np.array([], np.int64), True, memory="auto")


def test_threads_end_with_their_partition():
    def helpers() -> int:
        return sum(thread.name.startswith("strip-") for thread in threading.enumerate())

    before = helpers()
    bases = np.random.default_rng(4).integers(0, 4, 3_000).astype(np.uint8)
    partition = Partition(bases, np.array([], np.int64), True, threads=3)
    learn([partition], 30, say=lambda text: None)
    assert helpers() == before + 2
    partition.levels()
    assert helpers() == before
    dropped = Partition(bases, np.array([], np.int64), True, threads=3)
    learn([dropped], 30, say=lambda text: None)
    del dropped
    assert helpers() == before


def test_rounds_and_replies_of_real_dna(data_dir):
    """Five merges a round and more, and replies below the step in Ray's round trip at 100 kB."""
    text = read_record(data_dir / "yeast" / "R64-1-1.fa.gz", "IV")
    codes = codes_of(text)
    sizes, rounds = [], []

    def call(workers, method, args):
        replies = call_local(workers, method, args)
        sizes.extend(map(len, replies))
        return replies

    partition = Partition(codes[codes < 4], np.array([], np.int64), True, threads=2)
    learn([partition], 600, call=call, say=lambda text: None, on_round=lambda number, learned: rounds.append(number))
    assert max(sizes) < 90_000
    assert len(rounds) <= 130  # 120; a whole genome has fewer ties and takes about 100


def test_payloads_add_up():
    one = np.array([5, 2, 0, 3, 4, 2, 1, 1, 5], np.uint8)  # 5 made; left 0: 3, 4: 2; right 1: 5
    two = np.array([200, 1, 1, 3, 200, 1, 0], np.uint8)  # 200 made; left 3: 200; right none
    assert sum_payloads([one, two], np.array([[0, 1, 4]])).tolist() == [205, 1, 3, 0, 3, 3, 200, 1, 1, 2, 1, 1, 5]
