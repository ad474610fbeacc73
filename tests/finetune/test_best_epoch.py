"""Early stopping on the validation MCC, class weights, and layer-wise rates in a real fit."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from grover_dist.config import ModelSettings, TaskHeadSettings, config_from
from grover_dist.finetune import best_epoch
from grover_dist.finetune.best_epoch import BEST, BestEpoch, balanced_weights
from grover_dist.model.bert import bert_config, classifier
from grover_dist.selection.classifier import POOLED, Classification, fit, steps_of
from grover_dist.selection.examples import TokenRows
from grover_dist.training.ranks import Ranks

SETTINGS = ModelSettings(layers=1, heads=2, hidden=16, feed_forward=16, positions=16, dropout=0.0)
RANKS = Ranks(0, 1, torch.device("cpu"))


def examples(n=48, seed=0, positive=0.5):
    generator = np.random.default_rng(seed)
    ids = generator.integers(5, 12, (n, 10)).astype(np.uint16)
    ids[:, 0], ids[:, -1] = 2, 3
    labels = (generator.random(n) < positive).astype(np.int64)
    ids[labels == 1, 4] = 12
    ids[labels == 0, 4] = 11
    rows = TokenRows(ids, np.full(n, 10, np.int32), np.arange(n + 1, dtype=np.int64), np.full(n, 8, np.int64))
    return rows.with_labels(labels)


def make(folder, head, *, seed=3, **more):
    model = classifier(bert_config(SETTINGS, 13), 2, seed=seed)
    training = examples()
    steps, evaluations = steps_of(head, len(training)), round(head.epochs)
    return BestEpoch(
        "t", POOLED[head.pooling](model), training, examples(seed=1), folder, total_steps=steps, evaluations=evaluations,
        patience=head.patience, seed=seed, batch_sequences=head.batch_sequences, **more,
    )  # fmt: skip


def run(objective, head, checkpoints=None):
    config = config_from({"genome": {"fasta": "g.fa"}})
    said = []
    result = fit(
        objective,
        Ranks.join(),
        head,
        config,
        evaluations=round(head.epochs),
        checkpoints=checkpoints,
        hash="x",
        setting="h",
        say=said.append,
    )
    return result, said


@pytest.fixture
def scripted(monkeypatch):
    """Validation figures from a list, so that the ends of training are known."""
    values = []
    monkeypatch.setattr(best_epoch, "evaluate_metrics", lambda *_: {"mcc": [values.pop(0)]})
    return values


def test_training_ends_when_the_validation_mcc_grows_no_more(tmp_path, scripted):
    scripted += [0.1, 0.4, 0.3, 0.4, 0.9, 0.95]
    head = TaskHeadSettings(epochs=6, batch_sequences=16, patience=2)
    objective = make(tmp_path, head)
    result, said = run(objective, head)
    assert json.loads((tmp_path / "history.json").read_text()) == [0.1, 0.4, 0.3, 0.4]
    assert result.steps == 4 * 3 and objective.best_mcc == 0.4 and "ends early, after step 12 of 18" in said[-1]


def test_the_kept_weights_are_those_of_the_best_epoch(tmp_path, scripted):
    head = TaskHeadSettings(epochs=3, batch_sequences=16)
    scripted += [0.1, 0.4, 0.3]
    run(make(tmp_path / "a", head), head)
    shorter = head.model_copy(update={"epochs": 3})
    scripted += [0.1, 0.4, 0.5]
    result, _ = run(make(tmp_path / "b", shorter), shorter)
    last = load_file(tmp_path / "b" / BEST)
    assert all(torch.equal(last[name], result.weights[f"model.{name}"]) for name in last)
    best = load_file(tmp_path / "a" / BEST)
    assert any(not torch.equal(best[name], last[name]) for name in best)


def test_a_resumed_run_ends_where_the_uninterrupted_one_does(tmp_path, scripted):
    """Evaluations after the last checkpoint come again and count once."""
    head = TaskHeadSettings(epochs=6, batch_sequences=16, patience=2)
    values = [0.1, 0.4, 0.3, 0.2, 0.9, 0.95]
    objective = make(tmp_path, head)
    (tmp_path / "history.json").write_text(json.dumps(values[:3]))
    objective._first_step = 6  # a checkpoint after two epochs
    scripted += values[2:]
    ends = []
    for _ in range(2):
        objective.evaluate(objective.model, RANKS)
        ends.append(objective.finished)
    assert ends == [False, True] and json.loads((tmp_path / "history.json").read_text()) == values[:4]


def test_balanced_weights_give_every_class_the_same_total():
    labels = np.array([0] * 90 + [1] * 10)
    weights = balanced_weights(labels, 2)
    assert weights[labels].sum() == pytest.approx(100) and weights[0] * 90 == pytest.approx(weights[1] * 10)
    assert np.isfinite(balanced_weights(labels, 3)).all()


def test_class_weights_are_repetitions_of_the_rare_class():
    """The loss and what it is divided by equal those of a batch in which each positive stands three times."""
    data = examples(positive=0.3)
    model, weights = POOLED["mean"](classifier(bert_config(SETTINGS, 13), 2, seed=1)), np.array([1.0, 3.0])
    weighted = Classification("t", model, data, data, seed=1, batch_sequences=8, class_weights=weights)
    plain = Classification("t", weighted.model, data, data, seed=1, batch_sequences=8)
    rows = np.arange(16)
    repeated = np.repeat(rows, np.where(data.labels[rows] == 1, 3, 1))
    one, many = data.batch(rows), data.batch(repeated)
    assert weighted.size(one).targets == plain.size(many).targets
    device = torch.device("cpu")
    losses = [float(o.loss(model, batch, device).detach()) for o, batch in ((weighted, one), (plain, many))]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_lower_layers_move_less(tmp_path):
    moved = {}
    for decay in (1.0, 0.1):
        head = TaskHeadSettings(epochs=1, batch_sequences=16, optimizer={"learning_rate": 1e-3, "weight_decay": 0.0, "layer_decay": decay})
        objective = make(tmp_path / str(decay), head)
        before = {name: value.clone() for name, value in objective.model.state_dict().items()}
        result, _ = run(objective, head)
        moved[decay] = {name: float((result.weights[name] - before[name]).abs().max()) for name in before}
    name = "model.bert.embeddings.word_embeddings.weight"
    assert moved[0.1][name] < 0.05 * moved[1.0][name]
    assert moved[0.1]["model.classifier.weight"] > 0.5 * moved[1.0]["model.classifier.weight"]


@pytest.mark.parametrize("pooling", ["cls", "mean", "max"])
def test_padding_never_changes_a_logit(pooling):
    model = POOLED[pooling](classifier(bert_config(SETTINGS, 13), 2, seed=1)).eval()
    ids = torch.tensor([[2, 7, 8, 9, 3]])
    padded = torch.cat([ids, torch.zeros(1, 6, dtype=torch.long)], dim=1)
    with torch.no_grad():
        alone = model(ids, torch.ones_like(ids))
        wide = model(padded, (padded != 0).long())
    assert torch.allclose(alone, wide, atol=1e-5)
