"""Classification metrics with bootstrap intervals: MCC, AUROC, AUPRC, F1, accuracy.

All metrics are computed from weights of the examples, so that a bootstrap replicate is one row of a weight matrix and several methods
are compared on the same replicates. With more than two classes F1, AUROC and AUPRC are means over the classes (one against
the rest), and MCC is Gorodkin's (2004).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from grover_dist.selection.statistics import interval, resampling_weights

METRICS = ("mcc", "auroc", "auprc", "f1", "accuracy")
RECALLS = (0.5, 0.8)  # at which the precision of a scan is given
SCAN_METRICS = (*(f"precision_at_recall_{100 * recall:.0f}" for recall in RECALLS), "true_window_first", "true_window_rank")
_CHUNK_CELLS = 1 << 23


def evaluate_metrics(log_prob: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Every metric for each row of `weights` [replicates, n] (default: one row of ones). log_prob float[n, classes], labels int[n].

    Undefined values (one class in a replicate) are taken as 0 for MCC and F1 and 0.5 for AUROC, and AUPRC as 0.
    """
    weights = np.ones((1, len(labels))) if weights is None else weights
    n_classes = log_prob.shape[1]
    predicted = log_prob.argmax(axis=1)
    cell = np.zeros((len(labels), n_classes**2))
    cell[np.arange(len(labels)), labels * n_classes + predicted] = 1.0
    confusion = (weights @ cell).reshape(-1, n_classes, n_classes)  # [replicates, truth, predicted]
    truth, said, right = confusion.sum(axis=2), confusion.sum(axis=1), np.einsum("rcc->rc", confusion)
    total = weights.sum(axis=1)
    numerator = right.sum(axis=1) * total - (truth * said).sum(axis=1)
    spread = np.sqrt((total**2 - (truth**2).sum(axis=1)) * (total**2 - (said**2).sum(axis=1)))
    f1 = _ratio(2 * right, truth + said)
    positive = [1] if n_classes == 2 else range(n_classes)
    curves = [ranking(log_prob[:, label], labels == label, weights) for label in positive]
    return {
        "mcc": _ratio(numerator, spread),
        "auroc": np.mean([curve[0] for curve in curves], axis=0),
        "auprc": np.mean([curve[1] for curve in curves], axis=0),
        "f1": f1[:, 1] if n_classes == 2 else f1.mean(axis=1),
        "accuracy": right.sum(axis=1) / total,
    }


def auroc(score: np.ndarray, positive: np.ndarray) -> float:
    """Probability that a positive scores higher than a negative; ties count half."""
    return float(ranking(score, positive, np.ones((1, len(score))))[0][0])


def ranking(score: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AUROC and average precision for each row of weights [replicates, n]. Equal scores are one threshold."""
    order = np.argsort(-score, kind="stable")
    last = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    is_positive = positive[order].astype(np.float64)
    roc, precision = np.empty(len(weights)), np.empty(len(weights))
    rows = max(1, _CHUNK_CELLS // max(1, len(score)))
    for start in range(0, len(weights), rows):
        part = weights[start : start + rows][:, order]
        hits = np.cumsum(part * is_positive, axis=1)[:, last]
        misses = np.cumsum(part * (1.0 - is_positive), axis=1)[:, last]
        new_hits = np.diff(hits, axis=1, prepend=0.0)
        new_misses = np.diff(misses, axis=1, prepend=0.0)
        area = ((hits - new_hits / 2) * new_misses).sum(axis=1)
        pairs = hits[:, -1] * misses[:, -1]
        roc[start : start + rows] = np.where(pairs > 0, area / np.where(pairs > 0, pairs, 1.0), 0.5)
        precision[start : start + rows] = _ratio((new_hits * _ratio(hits, hits + misses)).sum(axis=1), hits[:, -1])
    return roc, precision


def scan_metrics(score: np.ndarray, labels: np.ndarray, scan: np.ndarray, weights: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """For windows of scans, each row of weights [replicates, n]: the precision at the highest threshold that reaches a recall; the share of
    scans whose true window scores highest, and the mean rank of the true window (1 = first; ties count half). Scans with one window or
    without a true one have no rank.
    """
    weights = np.ones((1, len(labels))) if weights is None else weights
    positive = labels == 1
    found = {}
    for recall, name in zip(RECALLS, SCAN_METRICS, strict=False):
        found[name] = np.concatenate(
            [_precision_at_recall(score, positive, weights[row : row + 64], recall) for row in range(0, len(weights), 64)]
        )
    true = np.flatnonzero(positive)
    same = scan[true][:, None] == scan[None, :]
    same[np.arange(len(true)), true] = False
    above = (same & (score[None, :] > score[true][:, None])).sum(axis=1)
    ties = (same & (score[None, :] == score[true][:, None])).sum(axis=1)
    ranked = same.any(axis=1)
    share = weights[:, true] * ranked
    total = share.sum(axis=1)
    found["true_window_first"] = _ratio(share @ np.where(above == 0, 1.0 / (1.0 + ties), 0.0), total)
    found["true_window_rank"] = _ratio(share @ (1.0 + above + ties / 2), total)
    return found


def _precision_at_recall(score: np.ndarray, positive: np.ndarray, weights: np.ndarray, recall: float) -> np.ndarray:
    order = np.argsort(-score, kind="stable")
    last = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    drawn = weights[:, order]
    hits = np.cumsum(drawn * positive[order], axis=1)[:, last]
    said = np.cumsum(drawn, axis=1)[:, last]
    at = (hits >= recall * hits[:, -1:] - 1e-9).argmax(axis=1)
    rows = np.arange(len(weights))
    return _ratio(hits[rows, at], said[rows, at])


def score_methods(
    predictions: Mapping[str, np.ndarray],
    labels: np.ndarray,
    group: np.ndarray,
    *,
    samples: int,
    confidence: float,
    seed: int,
    scan: np.ndarray | None = None,
) -> dict[str, Any]:
    """Metrics of several methods on the same examples, with intervals over `group` (genome blocks or sequences).

    predictions: method -> log_prob float[seeds, n, classes]; the value and every replicate are means over the seeds. scan: of windows
    of two classes; adds SCAN_METRICS.
    Returns {"methods": {method: {metric: {value, low, high, seeds}}}, "replicates": {method: {metric: array[samples]}}}.
    """
    _, owner = np.unique(group, return_inverse=True)
    n_groups = int(owner.max()) + 1
    weights = resampling_weights(n_groups, samples, seed)[:, owner]
    weights = weights[weights.sum(axis=1) > 0]
    methods, replicates = {}, {}
    for name, by_seed in predictions.items():
        values = [{metric: float(found[0]) for metric, found in _all_metrics(one, labels, scan).items()} for one in by_seed]
        drawn = [_all_metrics(one, labels, scan, weights) for one in by_seed]
        methods[name], replicates[name] = {}, {}
        for metric in drawn[0]:
            replicates[name][metric] = np.mean([found[metric] for found in drawn], axis=0)
            low, high = interval(replicates[name][metric], confidence, max(n_groups - 1, 1))
            own = [value[metric] for value in values]
            methods[name][metric] = {"value": float(np.mean(own)), "low": float(low), "high": float(high), "seeds": own}
    return {"methods": methods, "replicates": replicates, "groups": n_groups}


def _all_metrics(
    log_prob: np.ndarray, labels: np.ndarray, scan: np.ndarray | None, weights: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    found = evaluate_metrics(log_prob, labels, weights)
    return found if scan is None else found | scan_metrics(log_prob[:, 1], labels, scan, weights)


def paired(scores: Mapping[str, Any], first: str, second: str, *, confidence: float) -> dict[str, dict[str, float]]:
    """Difference of two methods in every metric, from the same replicates."""
    found = {}
    for metric in scores["replicates"][first]:
        difference = scores["replicates"][first][metric] - scores["replicates"][second][metric]
        low, high = interval(difference, confidence, max(scores["groups"] - 1, 1))
        value = scores["methods"][first][metric]["value"] - scores["methods"][second][metric]["value"]
        found[metric] = {"difference": value, "low": float(low), "high": float(high)}
    return found


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """The quotient, 0 where the denominator is 0."""
    return np.where(denominator > 0, numerator / np.where(denominator > 0, denominator, 1.0), 0.0)
