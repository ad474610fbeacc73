"""A task's ROC curve, precision-recall curve and confusion matrices, from the predictions of its test part."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from grover_dist.analysis.embeddings import read_table
from grover_dist.analysis.finetune_scores import OURS, TWIN, method_name
from grover_dist.report.figures import GREY, PALETTE, figure_svg
from grover_dist.run_dir import Artifact

_MOST_POINTS = 400  # of a curve on the page
_STYLES = ({"color": PALETTE[0]}, {"color": PALETTE[1], "linestyle": "--"}, {"color": GREY, "linestyle": ":"})


def task_figure(artifact: Artifact, metrics: Mapping[str, Any]) -> str | None:
    """SVG: curves of our model, the best baseline and the untrained twin (first seed each), and our and the baseline's confusion matrix.
    Curves are those of the second class of two; with more classes only the matrices are drawn. None where there are no predictions.
    """
    if not artifact.file("predictions.arrow").is_file():
        return None
    table = read_table(artifact, "predictions.arrow").to_pydict()
    method, seed = np.array(table["method"]), np.array(table["seed"])
    shown = [name for name in (OURS, metrics["best_baseline"], TWIN) if name in metrics["methods"]]
    classes = metrics["classes"]
    rows = {name: np.flatnonzero((method == name) & (seed == 0)) for name in shown}
    label, predicted = np.array(table["label"]), np.array(table["predicted"])
    binary = len(classes) == 2
    with figure_svg(7.2, 2.7) as (figure, svg):
        panels = figure.subplots(1, 4 if binary else 2, width_ratios=[1.3, 1.3, 1, 1] if binary else [1, 1])
        if binary:
            score = np.array(table["log_prob_1"])
            for style, name in zip(_STYLES, shown, strict=False):
                false_rate, recall, precision = curves(score[rows[name]], label[rows[name]] == 1)
                panels[0].plot(false_rate, recall, label=method_name(name), **style)
                panels[1].plot(recall, precision, **style)
            panels[0].plot([0, 1], [0, 1], color="#CCCCCC", linewidth=0.8)
            panels[0].set(xlabel="false positives", ylabel="recall", title="ROC")
            panels[1].axhline(float((label[rows[OURS]] == 1).mean()), color="#CCCCCC", linewidth=0.8)
            panels[1].set(xlabel="recall", ylabel="precision", title="precision, recall", ylim=(0, 1.02))
            figure.legend(loc="outside lower center", ncols=3)
        for panel, name in zip(panels[-2:], shown, strict=False):
            counts = np.zeros((len(classes), len(classes)), np.int64)
            np.add.at(counts, (label[rows[name]], predicted[rows[name]]), 1)
            _confusion(panel, counts, classes, method_name(name))
    return svg()


def curves(score: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(false-positive rate, recall, precision) at falling thresholds, from none said positive on; equal scores are one threshold."""
    order = np.argsort(-score, kind="stable")
    last = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    hits, said = np.cumsum(positive[order])[last], last + 1
    recall = np.concatenate([[0.0], hits / max(1, positive.sum())])
    false_rate = np.concatenate([[0.0], (said - hits) / max(1, (~positive).sum())])
    precision = np.concatenate([[hits[0] / said[0]], hits / said])
    chosen = np.unique(np.linspace(0, len(recall) - 1, _MOST_POINTS).astype(int))
    return false_rate[chosen], recall[chosen], precision[chosen]


def _confusion(panel: Any, counts: np.ndarray, classes: Sequence[str], title: str) -> None:
    """Truth in lines; the shade is the share of the line."""
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    panel.pcolormesh(share, cmap="Blues", vmin=0, vmax=1)  # cells as shapes, where imshow would embed a picture
    panel.invert_yaxis()
    panel.set_aspect("equal")
    if len(classes) <= 6:
        for truth, said in np.ndindex(*counts.shape):
            colour = "white" if share[truth, said] > 0.6 else "black"
            panel.text(said + 0.5, truth + 0.5, f"{counts[truth, said]:,}", ha="center", va="center", color=colour, fontsize=8)
        names = [name if len(name) <= 12 else f"{name[:11]}…" for name in classes]
        panel.set_xticks(np.arange(len(classes)) + 0.5, names, fontsize=7)
        panel.set_yticks(np.arange(len(classes)) + 0.5, names, fontsize=7, rotation=90, va="center")
    panel.set(xlabel="predicted", ylabel="truth")
    panel.set_title(textwrap.fill(title, 16), fontsize=8)
    panel.grid(False)
