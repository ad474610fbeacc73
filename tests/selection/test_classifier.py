"""The classifier's shortcuts against the plain forward pass, and its batches as pure functions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from grover_dist.config import ModelSettings
from grover_dist.model.bert import bert_config, classifier
from grover_dist.selection.classifier import POOLED, Classification, ClsClassifier, FrozenHead, logits_of, predict, trunk_features
from grover_dist.selection.examples import FeatureExamples, tokens_of_sequences
from grover_dist.training.ranks import Ranks

SETTINGS = ModelSettings(layers=2, heads=2, hidden=16, feed_forward=32, positions=32)
ALONE = Ranks(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def model():
    return classifier(bert_config(SETTINGS, 40), 5, seed=1).eval()


@pytest.fixture(scope="module")
def examples():
    generator = np.random.default_rng(0)
    sequences = [generator.integers(5, 40, size).astype(np.uint16) for size in generator.integers(1, 45, 30)]
    return tokens_of_sequences(sequences, max_tokens=20).with_labels(generator.integers(0, 5, 30))


def test_cls_alone_gives_the_logits_of_the_whole_forward_pass(model, examples):
    inputs = {name: torch.from_numpy(value) for name, value in examples.batch(np.arange(30)).inputs.items()}
    assert (inputs["attention_mask"] == 0).any()
    torch.testing.assert_close(ClsClassifier(model)(**inputs), model(**inputs).logits)


def test_cls_alone_has_the_gradients_of_the_whole_forward_pass(model, examples):
    inputs = {name: torch.from_numpy(value) for name, value in examples.batch(np.arange(8)).inputs.items()}
    gradients = []
    for forward in (lambda: ClsClassifier(model)(**inputs), lambda: model(**inputs).logits):
        model.zero_grad()
        forward().logsumexp(dim=1).sum().backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_pooling_leaves_padding_out(model, examples, pooling):
    """A sequence padded in a batch has the logits that it has alone, and a frozen head on its mean state too."""
    inputs = {name: torch.from_numpy(value) for name, value in examples.batch(np.arange(30)).inputs.items()}
    together = POOLED[pooling](model)(**inputs)
    for row in range(0, len(together), 7):
        length = int(inputs["attention_mask"][row].sum())
        ids = inputs["input_ids"][[row], :length]
        states = model.bert(ids).last_hidden_state
        hidden = states.mean(dim=1, keepdim=True) if pooling == "mean" else states[:, -2:-1]
        torch.testing.assert_close(together[[row]], model.classifier(model.bert.pooler(hidden)))
    features = trunk_features(model, examples.tokens, ALONE, pooling)
    torch.testing.assert_close(FrozenHead(model).eval()(torch.from_numpy(features)), together)


def test_logits_of_windows_are_averaged(model, examples):
    batch = examples.batch(np.arange(30))
    found = logits_of(model, batch, torch.device("cpu"))
    by_window = model(**{name: torch.from_numpy(value) for name, value in batch.inputs.items()}).logits
    for index in range(30):
        torch.testing.assert_close(found[index], by_window[batch.owner == index].mean(dim=0))


def test_predictions_do_not_depend_on_the_number_of_ranks(model, examples, monkeypatch):
    whole = predict(model, examples, ALONE)

    class Played(Ranks):
        """A rank of three, whose exchange is played by running the others in this process."""

        def gather(self, value):
            return [value if rank == self.rank else parts[rank] for rank in range(3)]

    parts = {}
    for rank in (0, 1, 2, 0):
        played = Played(rank, 3, torch.device("cpu"))
        monkeypatch.setattr(Played, "gather", lambda self, value: parts.__setitem__(self.rank, value) or [value] * 3)
        predict(model, examples, played)
    monkeypatch.setattr(Played, "gather", lambda self, value: [parts[0], parts[1], parts[2]])
    found = predict(model, examples, Played(1, 3, torch.device("cpu")))
    assert np.array_equal(found.predicted, whole.predicted)
    np.testing.assert_allclose(found.log_prob, whole.log_prob, rtol=1e-4, atol=1e-5)


def test_a_frozen_head_gives_the_logits_of_the_model(model, examples):
    features = trunk_features(model, examples.tokens, ALONE, "cls")
    inputs = {name: torch.from_numpy(value) for name, value in examples.tokens.take_rows(np.arange(len(features))).items()}
    torch.testing.assert_close(FrozenHead(model).eval()(torch.from_numpy(features)), model(**inputs).logits)
    batch = FeatureExamples(features[:4], np.arange(4), 50).batch(np.array([2, 1]))
    assert batch.labels.tolist() == [2, 1] and batch.n_bases == 100


@pytest.mark.parametrize("world", [1, 2, 4])
def test_ranks_share_the_same_global_batch(model, examples, world):
    objective = Classification("test", model, examples, examples, seed=3, batch_sequences=8)
    seen = []
    for step in range(8):  # more than two epochs of 30
        alone = np.concatenate([batch.labels for batch in objective.batches(step, 0, 1)])
        shared = [np.concatenate([batch.labels for batch in objective.batches(step, rank, world)]) for rank in range(world)]
        assert np.array_equal(np.stack(shared, axis=1).reshape(-1), alone)
        seen.append(alone)
    first_epoch = np.concatenate(seen)[:30]
    assert np.array_equal(np.bincount(first_epoch, minlength=5), np.bincount(examples.labels, minlength=5))
