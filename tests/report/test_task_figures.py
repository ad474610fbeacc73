"""Curves against scikit-learn, and the figure of a task on the page."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn import metrics as reference

from grover_dist.report.analysis_sections import finetune_section
from grover_dist.report.task_figures import curves, task_figure


def test_curves_have_the_areas_of_scikit_learn():
    generator = np.random.default_rng(0)
    positive = generator.random(150) < 0.3
    score = np.round(generator.normal(size=150) + positive, 1)
    false_rate, recall, precision = curves(score, positive)
    assert np.trapezoid(recall, false_rate) == pytest.approx(reference.roc_auc_score(positive, score))
    assert (np.diff(recall) * precision[1:]).sum() == pytest.approx(reference.average_precision_score(positive, score))


def test_a_task_has_its_curves_and_confusion_matrices(small_run):
    artifact = small_run.finetune[0]
    metrics = json.loads(artifact.file("metrics.json").read_text())
    svg = task_figure(artifact, metrics)
    for text in ("ROC", "fine-tuned model", "TF-IDF forest on tokens", "untrained twin", "predicted"):
        assert text in svg
    kinds = [block["kind"] for block in finetune_section([artifact]).blocks]
    assert kinds.count("figure") == 2 and kinds.count("table") == 1
