from __future__ import annotations

import hashlib

import numpy as np
import pytest

from grover_dist.bpe import grover_check
from grover_dist.bpe.grover_check import CYCLES, check_grover, line_orders
from grover_dist.errors import UserError
from tests.bpe.hostile_cases import learn_levels
from tests.bpe.test_tokenizer import codes_of, contigs_of, read_record


@pytest.fixture(scope="module")
def chr22(data_dir):
    text = read_record(data_dir / "human" / "hg19_chr22_1-22000000.fa.gz", "22")
    return learn_levels(contigs_of(codes_of(text)), [], CYCLES)[0]


def test_a_piece_of_hg19_shows_what_a_piece_can(chr22):
    checks = {check.name: check for check in check_grover(chr22)}
    assert all(check.passed for check in checks.values() if not check.whole_genome)
    assert sum(not check.whole_genome for check in checks.values()) >= 2
    assert checks["ATTACAGGC is a token"].passed and checks["TGTAATCCCAGC is a token"].passed  # Alu
    checksum = checks["vocab.txt by SHA-256"]
    assert not checksum.passed and all(order in checksum.found for order in line_orders(chr22))


def test_the_order_whose_checksum_fits_is_named(chr22, monkeypatch):
    lines = line_orders(chr22)["special tokens, by length, then alphabetical"]
    assert len(lines) == len(set(lines)) == 609
    monkeypatch.setattr(grover_check, "VOCAB_SHA256", hashlib.sha256("\n".join(lines).encode()).hexdigest())
    found = check_grover(chr22)[-1]
    assert found.passed and "by length, then alphabetical, no newline" in found.found


def test_statistics_of_occurrences(chr22):
    counts = np.zeros(609, np.int64)
    counts[5:] = 400_000
    checks = {check.name: check for check in check_grover(chr22, counts, int(4.07 * counts.sum()))}
    assert checks["mean token by occurrence"].passed and checks["median occurrences of a token"].passed
    assert not {check.name: check for check in check_grover(chr22, counts, 4 * int(counts.sum()))}["mean token by occurrence"].passed


def test_too_few_cycles_are_an_error(chr22):
    with pytest.raises(UserError, match="too small"):
        check_grover(chr22.at(599))
