from __future__ import annotations

import numpy as np
import pytest

from grover_dist.bpe.merge_log import MergeLog
from grover_dist.errors import UserError

ROWS = np.array([[5, 5, 100], [8, 8, 90], [9, 10, 7]])


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "merges.log"
    with MergeLog.open(path, "genome-a") as log:
        log.append(0, ROWS[:2])
        log.append(2, ROWS[2:])
    return path


def test_merges_come_back_and_go_on(path):
    with MergeLog.open(path, "genome-a") as log:
        assert np.array_equal(log.merges, ROWS)
        log.append(1, ROWS[1:])  # known ones are compared, not written twice
        log.append(3, np.array([[5, 6, 2]]))
    with MergeLog.open(path, "genome-a") as log:
        assert len(log.merges) == 4


@pytest.mark.parametrize("cut", [1, 5, 19, 21])
def test_a_torn_tail_is_cut_off_aloud(path, cut):
    content = path.read_bytes()
    path.write_bytes(content[:-cut])
    said = []
    with MergeLog.open(path, "genome-a", say=said.append) as log:
        assert np.array_equal(log.merges, ROWS[: 2 if cut < 20 else 1])
        log.append(len(log.merges), ROWS[len(log.merges) :])
    assert "damaged after" in said[0]
    assert path.read_bytes() == content


def test_a_flipped_bit_is_found(path):
    content = bytearray(path.read_bytes())
    content[-30] ^= 4  # inside the second record
    path.write_bytes(bytes(content))
    said = []
    with MergeLog.open(path, "genome-a", say=said.append) as log:
        assert np.array_equal(log.merges, ROWS[:1])
    assert "damaged after 1 merges" in said[0]


def test_a_damaged_header_starts_again_aloud(path):
    path.write_bytes(b"x" + path.read_bytes())
    said = []
    with MergeLog.open(path, "genome-a", say=said.append) as log:
        assert len(log.merges) == 0
    assert "header is damaged" in said[0]


def test_the_log_of_another_genome_or_rule_is_refused(path):
    with pytest.raises(UserError, match="another genome"):
        MergeLog.open(path, "genome-b")
    with pytest.raises(UserError, match="another rule"):
        MergeLog.open(path, "genome-a", strand="symmetric")
