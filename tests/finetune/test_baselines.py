"""Each baseline learns what it can see, and nothing else."""

from __future__ import annotations

import numpy as np

from grover_dist.finetune.baselines import run_baselines
from grover_dist.finetune.cnn import cnn
from grover_dist.finetune.metrics import evaluate_metrics
from grover_dist.finetune.tables import Part

MOTIF = np.array([3, 0, 3, 0, 0, 0, 2, 2], np.uint8)


def part(n, seed, motif=False, gc=False, longer=False):
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    sequences = []
    for label in labels:
        share = 0.35 if gc and label else 0.25
        codes = generator.choice(4, 70 if longer and label else 60, p=[0.5 - share, share, share, 0.5 - share]).astype(np.uint8)
        if motif and label:
            at = int(generator.integers(0, 50))
            codes[at : at + 8] = MOTIF
        sequences.append(codes)
    return Part(tuple(sequences), labels, np.arange(n))


def scores(**signal):
    parts = {"train": part(300, 1, **signal), "validation": part(80, 2, **signal), "test": part(200, 3, **signal)}
    ids = {split: [codes.astype(np.uint16) + 5 for codes in own.sequences] for split, own in parts.items()}
    found = run_baselines(parts, 2, ids, 9, seeds=[1])
    return {name: float(evaluate_metrics(log_prob[0], parts["test"].labels)["mcc"][0]) for name, log_prob in found.items()}


def test_length_and_gc_are_seen_apart():
    by_length = scores(longer=True)
    assert by_length["length only"] == 1 and by_length["GC and length"] == 1 and abs(by_length["GC only"]) < 0.3
    by_gc = scores(gc=True)
    assert by_gc["GC only"] > 0.6 and abs(by_gc["length only"]) < 0.2 and by_gc["majority"] == 0


def test_the_cnn_finds_a_motif_that_composition_does_not_show():
    found = scores(motif=True)
    assert found["small CNN"] > 0.6 and found["GC and length"] < 0.4
    assert set(found) == {
        "majority", "length only", "GC only", "GC and length", "5-mer logistic regression", "TF-IDF forest on 5-mers",
        "TF-IDF forest on tokens", "small CNN",
    }  # fmt: skip


def test_the_cnn_is_a_function_of_its_seed():
    parts = [part(60, seed) for seed in (1, 2, 3)]
    first, again, other = (cnn(*parts, 2, seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert np.allclose(np.exp(first).sum(axis=1), 1)
