from __future__ import annotations

import pytest

from grover_dist.doctor.network import RankGroup, judge, run_ranks
from grover_dist.doctor.node import Examiner

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(200)]


def group(world):
    return RankGroup(world, "127.0.0.1", Examiner().free_port("127.0.0.1"), "gloo", timeout_seconds=10.0)


def test_two_ranks_measure_the_line():
    pair = group(2)
    outcomes = run_ranks(pair, 0, 2, seconds=90)
    found = judge(outcomes, pair, nodes=1)
    assert found.state == "ok" and "GB/s" in found.found, found
    assert {outcome["rank"] for outcome in outcomes} == {0, 1} and all(outcome["seconds"] > 0 for outcome in outcomes)


def test_a_rank_whose_partner_never_comes_ends_and_says_what_to_do():
    pair = group(2)
    outcomes = run_ranks(pair, 0, 1, seconds=60)
    found = judge(outcomes, pair, nodes=2)
    assert found.state == "failed" and "rank 0:" in found.found
    assert "GLOO_SOCKET_IFNAME" in found.remedy and "security group" in found.remedy


def test_a_slow_line_is_warned_of_between_nodes_only():
    pair = RankGroup(2, "a", 1, "nccl")
    slow = [{"rank": rank, "seconds": 10.0, "bytes": 16_000_000} for rank in range(2)]
    assert judge(slow, pair, nodes=2).state == "warning" and judge(slow, pair, nodes=1).state == "ok"
