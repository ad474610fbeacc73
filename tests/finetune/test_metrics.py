"""Metrics against scikit-learn, with and without weights, and the coverage of their intervals."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference

from grover_dist.finetune.metrics import (
    METRICS,
    RECALLS,
    SCAN_METRICS,
    auroc,
    evaluate_metrics,
    paired,
    ranking,
    scan_metrics,
    score_methods,
)


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def draw(n, classes, seed, signal=1.0):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, n)
    logits = np.round(generator.normal(size=(n, classes)), 1)  # rounded: ties
    logits[np.arange(n), labels] += signal
    return log_softmax(logits), labels


@pytest.mark.parametrize("seed", range(3))
def test_two_classes_equal_scikit_learn(seed):
    log_prob, labels = draw(200, 2, seed)
    found = {name: value[0] for name, value in evaluate_metrics(log_prob, labels).items()}
    said, score = log_prob.argmax(axis=1), log_prob[:, 1]
    assert found["mcc"] == pytest.approx(reference.matthews_corrcoef(labels, said))
    assert found["f1"] == pytest.approx(reference.f1_score(labels, said))
    assert found["accuracy"] == pytest.approx(reference.accuracy_score(labels, said))
    assert found["auroc"] == pytest.approx(reference.roc_auc_score(labels, score))
    assert found["auprc"] == pytest.approx(reference.average_precision_score(labels, score))


def test_four_classes_equal_scikit_learn():
    log_prob, labels = draw(300, 4, 7)
    found = {name: value[0] for name, value in evaluate_metrics(log_prob, labels).items()}
    said = log_prob.argmax(axis=1)
    assert found["mcc"] == pytest.approx(reference.matthews_corrcoef(labels, said))
    assert found["f1"] == pytest.approx(reference.f1_score(labels, said, average="macro"))
    assert found["auroc"] == pytest.approx(reference.roc_auc_score(labels, np.exp(log_prob), multi_class="ovr", average="macro"))


def test_weights_are_repetitions():
    log_prob, labels = draw(80, 2, 3)
    weights = np.random.default_rng(0).integers(0, 4, (5, 80)).astype(float)
    found = evaluate_metrics(log_prob, labels, weights)
    for row in range(5):
        repeated = np.repeat(np.arange(80), weights[row].astype(int))
        plain = evaluate_metrics(log_prob[repeated], labels[repeated])
        for name in METRICS:
            assert found[name][row] == pytest.approx(plain[name][0])


def test_undefined_cases_have_values():
    one_class = evaluate_metrics(log_softmax(np.zeros((5, 2))), np.zeros(5, int))
    assert one_class["mcc"][0] == 0 and one_class["auroc"][0] == 0.5 and one_class["auprc"][0] == 0
    assert auroc(np.array([1.0, 2.0, 3.0]), np.array([False, False, True])) == 1.0
    assert ranking(np.ones(6), np.arange(6) < 3, np.ones((1, 6)))[0][0] == 0.5


def test_intervals_cover_the_value_of_a_large_sample():
    truth = evaluate_metrics(*draw(60_000, 2, 99))
    held = dict.fromkeys(METRICS, 0)
    for trial in range(60):
        log_prob, labels = draw(150, 2, 1_000 + trial)
        found = score_methods({"a": log_prob[None]}, labels, np.arange(150), samples=200, confidence=0.95, seed=trial)
        for name in METRICS:
            held[name] += found["methods"]["a"][name]["low"] <= truth[name][0] <= found["methods"]["a"][name]["high"]
    assert all(count >= 51 for count in held.values())


def test_paired_differences_see_what_single_intervals_do_not():
    log_prob, labels = draw(400, 2, 5, signal=0.8)
    worse = log_prob.copy()
    worse[:25] = worse[:25, ::-1]  # a few changed predictions
    predictions = {"own": log_prob[None], "worse": worse[None], "same": log_prob[None]}
    scores = score_methods(predictions, labels, np.arange(400), samples=500, confidence=0.95, seed=1)
    difference = paired(scores, "own", "worse", confidence=0.95)["mcc"]
    own = scores["methods"]["own"]["mcc"]
    assert difference["high"] - difference["low"] < own["high"] - own["low"]
    assert difference["difference"] == pytest.approx(own["value"] - scores["methods"]["worse"]["mcc"]["value"])
    same = paired(scores, "own", "same", confidence=0.95)["auroc"]
    assert same == {"difference": 0.0, "low": 0.0, "high": 0.0}


def test_blocks_are_drawn_whole():
    """Copies of one sequence in a block carry no more evidence than the sequence."""
    log_prob, labels = draw(60, 2, 6)
    copied = np.repeat(np.arange(60), 10)
    single = score_methods({"a": log_prob[None]}, labels, np.arange(60), samples=400, confidence=0.95, seed=1)
    blocks = score_methods({"a": log_prob[copied][None]}, labels[copied], copied, samples=400, confidence=0.95, seed=1)
    for name in METRICS:
        a, b = single["methods"]["a"][name], blocks["methods"]["a"][name]
        assert b["high"] - b["low"] == pytest.approx(a["high"] - a["low"], rel=1e-6)


def scans(seed, n_scans=40, width=10):
    generator = np.random.default_rng(seed)
    scan = np.repeat(np.arange(n_scans), width)
    labels = np.zeros(len(scan), int)
    labels[np.arange(n_scans) * width + generator.integers(0, width, n_scans)] = 1
    score = np.round(generator.normal(size=len(scan)) + 1.5 * labels, 1)
    return score, labels, scan


def test_precision_at_recall_equals_scikit_learn():
    score, labels, scan = scans(0)
    found = scan_metrics(score, labels, scan)
    precision, recall, _ = reference.precision_recall_curve(labels, score)
    for wished, name in zip(RECALLS, SCAN_METRICS, strict=False):
        expected = precision[np.flatnonzero(recall >= wished - 1e-9)[-1]]  # the highest threshold that reaches the recall
        assert found[name][0] == pytest.approx(expected)


def test_ranks_equal_a_loop_over_scans():
    score, labels, scan = scans(1)
    ranks, first = [], []
    for number in np.unique(scan):
        mine, true = score[scan == number], score[(scan == number) & (labels == 1)][0]
        above, ties = (mine > true).sum(), (mine == true).sum() - 1
        ranks.append(1 + above + ties / 2)
        first.append(1 / (1 + ties) if above == 0 else 0)
    found = scan_metrics(score, labels, scan)
    assert found["true_window_rank"][0] == pytest.approx(np.mean(ranks))
    assert found["true_window_first"][0] == pytest.approx(np.mean(first))
    constant = scan_metrics(np.zeros(len(scan)), labels, scan)
    assert constant["true_window_rank"][0] == pytest.approx(5.5) and constant["true_window_first"][0] == pytest.approx(0.1)


def test_scans_are_resampled_with_the_other_metrics():
    score, labels, scan = scans(2)
    log_prob = log_softmax(np.stack([-score, score], axis=1))
    chance = log_softmax(np.random.default_rng(0).normal(size=log_prob.shape))
    found = score_methods({"a": log_prob[None], "b": chance[None]}, labels, scan, samples=300, confidence=0.95, seed=1, scan=scan)
    rank = found["methods"]["a"]["true_window_rank"]
    assert set(found["methods"]["a"]) == {*METRICS, *SCAN_METRICS} and rank["low"] < rank["value"] < rank["high"]
    assert paired(found, "a", "b", confidence=0.95)["true_window_rank"]["high"] < 0
