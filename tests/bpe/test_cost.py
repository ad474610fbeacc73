from __future__ import annotations

import pytest

from grover_dist.bpe.cost import available_bytes, choose_memory, learn_rounds, learn_seconds, partition_bytes
from grover_dist.errors import UserError


def test_auto_takes_fast_where_it_fits_twice():
    assert choose_memory(10**6, "auto", 2 * partition_bytes(10**6, "fast") + 2) == "fast"
    assert choose_memory(10**6, "auto", 2 * partition_bytes(10**6, "fast")) == "lean"
    assert choose_memory(10**6, "lean", 10**9) == "lean"


@pytest.mark.parametrize("memory", ["auto", "fast", "lean"])
def test_too_little_is_refused_with_the_bytes(memory):
    mode = "lean" if memory == "auto" else memory
    with pytest.raises(UserError, match=f"{partition_bytes(10**9, mode):,} bytes"):
        choose_memory(10**9, memory, 10**9)


def test_this_machine_tells_what_is_free():
    free = available_bytes()
    assert free is None or free > 0


def test_seconds_fall_with_cores_down_to_the_round_trips():
    one, many = learn_seconds(10**9, 600, 1), learn_seconds(10**9, 600, 10**6)
    assert 20 < one < 100 and many == pytest.approx(0.003 * learn_rounds(600), rel=0.01)
    assert learn_rounds(10) == 10 and 90 < learn_rounds(600) < 110 and 450 < learn_rounds(5_000) < 500
