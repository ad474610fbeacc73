from __future__ import annotations

import numpy as np
import pytest

from grover_dist.bpe import health
from grover_dist.bpe.encode import encode_codes
from grover_dist.bpe.health import reverse_complement_closure, vocabulary_health
from grover_dist.bpe.vocabulary import Vocabulary
from tests.bpe.hostile_cases import learn_levels


@pytest.fixture(scope="module")
def genome():
    rng = np.random.default_rng(8)
    contigs = [rng.choice(4, n, p=[0.3, 0.2, 0.2, 0.3]).astype(np.uint8) for n in (9_000, 1, 300, 6_000)]
    vocabulary, levels = learn_levels(contigs, [], 120)
    masked = rng.random(len(levels)) < 0.4
    return contigs, vocabulary, levels, masked


@pytest.fixture(scope="module")
def figures(genome):
    contigs, vocabulary, levels, masked = genome
    codes = np.concatenate(contigs)
    row_start = np.cumsum([0, *map(len, contigs)])
    return vocabulary_health(vocabulary, [0, 40, 120], lambda a, b: (codes[a:b], levels[a:b], masked[a:b]), row_start, samples=300)


@pytest.mark.parametrize("cycles", [0, 40, 120])
def test_tallies_equal_a_direct_count(genome, figures, cycles, monkeypatch):
    contigs, vocabulary, levels, masked = genome
    found = figures[str(cycles)]
    ids = [encode_codes(contig, vocabulary, cycles) for contig in contigs]
    counts = np.bincount(np.concatenate(ids), minlength=vocabulary.at(cycles).size)
    lengths, strings = vocabulary.lengths(cycles).astype(int), vocabulary.strings(cycles)
    assert found["tokens"] == counts.sum() and found["bases_per_token"] == len(levels) / counts.sum()
    assert set(found["dead"]) == {strings[i] for i in range(5, len(counts)) if counts[i] == 0}
    per_token = np.repeat(np.concatenate(ids), lengths[np.concatenate(ids)])
    for token in np.flatnonzero(counts)[:20]:
        assert found["masked_share"][strings[token]] == pytest.approx(masked[per_token == token].mean(), abs=1e-4)
    assert sum(found["length_histogram"].values()) == vocabulary.at(cycles).size - 5
    assert sum(int(n) * k for n, k in found["length_occurrences"].items()) == len(levels)
    codes = np.concatenate(contigs)
    assert found["gc_occurrences"] == pytest.approx(((codes == 1) | (codes == 2)).mean())
    # Tokens that lie across the edges of chunks are counted once.
    monkeypatch.setattr(health, "CHUNK_ROWS", 1_013)
    row_start = np.cumsum([0, *map(len, contigs)])
    again = vocabulary_health(vocabulary, [cycles], lambda a, b: (codes[a:b], levels[a:b], masked[a:b]), row_start, samples=300)
    assert again[str(cycles)] == found


def test_single_bases_agree_everywhere(figures):
    found = figures["0"]
    assert found["boundary_agreement"] == 1.0
    assert found["resynchronisation_bp"] == {"p50": 0.0, "p95": 0.0, "p99": 0.0}
    assert found["substitution_footprint_bp"] == {"p50": 1.0, "p95": 1.0, "p99": 1.0}


def test_larger_vocabularies_take_longer_to_agree(figures):
    small, large = figures["40"], figures["120"]
    assert 0 < small["resynchronisation_bp"]["p95"] <= large["resynchronisation_bp"]["p99"] < health.PIECE_BP / 2
    assert small["substitution_footprint_bp"]["p50"] < large["substitution_footprint_bp"]["p99"]
    assert 0 < large["boundary_agreement"] < small["boundary_agreement"] < 1


def test_resynchronisation_is_the_last_difference():
    whole = np.array([[False, False, True, True, False, True, True, True, False, True]])
    inside = np.array([[True, False, True, False, True, True, True, True, False, True]])
    assert health._distances(inside, whole).tolist() == [4, 0]
    assert health._distances(whole, whole).tolist() == [2, 0]  # the cut fell inside a token of two more bases


def test_footprint_covers_the_tokens_that_differ():
    before = np.array([[True, True, False, True, False, True, True, True]])
    after = np.array([[True, True, False, True, True, True, True, True]])
    assert health._footprints(before, after, 4).tolist() == [2]  # the token of bases 3 and 4 was split
    assert health._footprints(before, before, 2).tolist() == [2]


def test_no_piece_no_figure(genome):
    _, vocabulary, levels, masked = genome
    codes = np.zeros(300, np.uint8)
    found = vocabulary_health(vocabulary, [0], lambda a, b: (codes[a:b], levels[:300][a:b], masked[a:b]), np.array([0, 300]))
    assert found["0"]["resynchronisation_bp"] is None


def test_closure():
    closed = Vocabulary.from_rows([(5, 5, 3), (8, 8, 3), (5, 8, 2)])
    assert reverse_complement_closure(closed) == 1.0
    assert reverse_complement_closure(closed.at(1)) == 0.0
