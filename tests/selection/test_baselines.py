"""Baselines of next-k-mer prediction against slow oracles, and against genomes with a known answer."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from grover_dist.selection import baselines
from grover_dist.selection.baselines import build_baselines
from grover_dist.selection.task import KmerTask, Positions


def naive_counts(codes, word_bp):
    counts = np.zeros(4**word_bp, int)
    for start in range(len(codes) - word_bp + 1):
        counts[int("".join(map(str, codes[start : start + word_bp])), 4)] += 1
    return counts


@pytest.mark.parametrize("length", [0, 2, 3, 10, 41])
def test_word_counts_equal_a_loop(length, monkeypatch):
    monkeypatch.setattr(baselines, "_CHUNK_BASES", 7)
    codes = np.random.default_rng(length).integers(0, 4, length).astype(np.uint8)
    assert np.array_equal(baselines.word_counts(codes, 3), naive_counts(codes, 3))


def test_conditional_probabilities_are_normalized_and_approach_the_frequencies():
    codes = np.random.default_rng(0).choice(4, p=[0.1, 0.2, 0.3, 0.4], size=20_000).astype(np.uint8)
    counts = baselines.word_counts(codes, 4)
    for order in range(4):
        table = np.exp(baselines.conditional(counts, order))
        assert table.shape == (4**order, 4)
        np.testing.assert_allclose(table.sum(axis=1), 1.0)
    np.testing.assert_allclose(table.mean(axis=0), [0.1, 0.2, 0.3, 0.4], atol=0.02)


def test_an_unseen_context_falls_back_to_the_shorter_one():
    codes = np.array([0, 1, 0, 1, 0, 1, 0, 1], np.uint8)
    table = np.exp(baselines.conditional(baselines.word_counts(codes, 3), 2))
    never = table[4 * 3 + 0]  # TA was not seen; after A alone comes C
    assert never.argmax() == 1


def test_chain_predicts_the_likeliest_whole_kmer():
    """Against the enumeration of all k-mers, on a chain where base by base would be wrong."""
    generator = np.random.default_rng(4)
    for order in (1, 2, 3):
        table = np.log(generator.dirichlet(np.full(4, 0.5), size=4**order))
        contexts = generator.integers(0, 4**order, 20)
        found = baselines.chain_predictions(table, contexts, 4)
        for k in (1, 2, 3, 4):
            for context, prediction in zip(contexts, found[k], strict=True):
                scores = []
                for kmer in itertools.product(range(4), repeat=k):
                    state, score = context, 0.0
                    for base in kmer:
                        score += table[state, base]
                        state = (state * 4 + base) % 4**order
                    scores.append(score)
                assert prediction == int(np.argmax(scores))
                digits = np.array([[int(digit) for digit in np.base_repr(prediction, 4).zfill(k)]])
                cumulative = baselines.chain_log_probability(table, np.array([context]), digits)
                assert cumulative[0, -1] == pytest.approx(max(scores))


def test_no_baseline_beats_chance_on_a_random_genome(random_run):
    artifact = build_baselines(random_run.config, random_run.run, random_run.genome, random_run.task, say=lambda text: None)
    n = random_run.config.selection.evaluate_positions
    for accuracies in artifact.counts["accuracy"].values():
        for k, accuracy in accuracies.items():
            chance = 4.0 ** -int(k)
            assert abs(accuracy - chance) < 4 * np.sqrt(chance / n)
    assert set(artifact.counts["markov_order"]) == {"1", "2"}


def periodic_task():
    """Inputs from a genome of one repeated 7-mer: everything is known from the last bases."""
    generator = np.random.default_rng(0)
    motif = np.array([0, 1, 1, 3, 2, 0, 3], np.uint8)
    genome = np.tile(motif, 200)

    def cut(count):
        rows = np.sort(generator.integers(0, 1_000, count))
        codes = np.stack([genome[row : row + 26] for row in rows])
        return Positions(rows, np.zeros(count, np.int32), codes, 20)

    return genome, KmerTask(cut(300), cut(100), cut(100), np.array([0]), (2, 6))


def test_chain_and_forest_learn_a_repeat():
    genome, positions = periodic_task()
    counts = baselines.word_counts(genome, 9)
    _, orders, markov, log_probability = baselines._chains(positions, counts, np.zeros_like(counts))
    forest = baselines.forest_predictions(positions, trees=5, at_most=200, seed=1)
    for k in positions.ks:
        labels = positions.held_out.labels(k)
        assert (markov[k] == labels).all()
        assert (forest[k] == labels).mean() > 0.9
        assert (log_probability[k] < 0).all() and log_probability[k].mean() > -0.2
        assert orders[k] >= 2
