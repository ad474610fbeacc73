"""One-pass figures against the definitions, pair by pair."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from grover_dist.analysis import sums
from grover_dist.analysis.context import context_profile, explainable_variance
from grover_dist.corpus.corpus import Corpus


@pytest.fixture(scope="module")
def model_and_batches(small_run):
    corpus = Corpus.open(small_run.learn)
    batches = sums.held_out_batches(small_run.config, corpus, small_run.chosen)[:2]
    model = sums.load_model(next(a for a in small_run.pretrain if a.counts["cycles"] == small_run.chosen))
    return model, [sums.unmask(batch) for batch in batches]


def unit_vectors(model, batches, layer):
    """(token, window, unit vector) of every word token, the slow way."""
    found = []
    with torch.no_grad():
        for number, batch in enumerate(batches):
            mask = torch.from_numpy(batch.attention_mask)
            states = model.bert(torch.from_numpy(batch.input_ids), attention_mask=mask, output_hidden_states=True).hidden_states[layer]
            for line, column in np.argwhere((batch.input_ids >= 5) & (batch.attention_mask > 0)):
                vector = states[line, column].double().numpy()
                found.append((int(batch.input_ids[line, column]), (number, line), vector))
    return found


@pytest.mark.parametrize("layer", [0, 1])
def test_profile_equals_the_mean_over_pairs(small_run, model_and_batches, layer: int) -> None:
    model, batches = model_and_batches
    profile = context_profile(model, batches, small_run.chosen + 9)
    rows = unit_vectors(model, batches, layer)
    tokens = np.array([token for token, _, _ in rows])
    vectors = np.array([vector / np.linalg.norm(vector) for _, _, vector in rows])
    cosines = vectors @ vectors.T
    same = tokens[:, None] == tokens
    assert profile.anisotropy[layer] == pytest.approx(cosines[~same].mean(), abs=1e-5)
    for token in np.unique(tokens):
        mine = np.flatnonzero(tokens == token)
        assert profile.count[token] == len(mine)
        if len(mine) > 1:
            block = cosines[np.ix_(mine, mine)]
            expected = (block.sum() - len(mine)) / (len(mine) * (len(mine) - 1))
            assert profile.self_similarity[layer, token] == pytest.approx(expected, abs=1e-5)
    windows = {window for _, window, _ in rows}
    means = {window: np.mean([v for _, w, v in rows if w == window], axis=0) for window in windows}
    intra = [v @ means[w] / np.linalg.norm(v) / np.linalg.norm(means[w]) for _, w, v in rows]
    assert profile.intra_context[layer] == pytest.approx(np.mean(intra), abs=1e-5)


def test_without_positions_the_input_layer_is_perfectly_self_similar(small_run, model_and_batches) -> None:
    model, batches = model_and_batches
    weights = model.bert.embeddings.position_embeddings.weight
    kept = weights.detach().clone()
    with torch.no_grad():
        weights.zero_()
    profile = context_profile(model, batches, small_run.chosen + 9)
    with torch.no_grad():
        weights.copy_(kept)
    assert np.nanmin(profile.self_similarity[0]) > 1 - 1e-5


def test_variance_of_constant_vectors_is_explained(small_run, model_and_batches) -> None:
    model, batches = model_and_batches
    found = explainable_variance(model, batches, small_run.chosen + 9, per_token=20, at_least=5)
    used = np.isfinite(found.share)
    assert used.any() and (found.n[used] >= 5).all() and (found.n <= 20).all()
    assert ((found.share[used] > 1 / 20) & (found.share[used] <= 1)).all()
    # Two words' worth of vectors share less of a first component than one word's.
    assert np.nanmean(found.adjusted) > 0


def test_the_reservoir_is_fair(small_run, model_and_batches) -> None:
    """With room for all occurrences the share is that of all of them."""
    model, batches = model_and_batches
    found = explainable_variance(model, batches, small_run.chosen + 9, per_token=100_000 // (small_run.chosen + 9), at_least=2)
    token = int(np.nanargmax(np.where(np.isfinite(found.share), found.n, 0)))
    vectors = np.array([vector for t, _, vector in unit_vectors(model, batches, 1) if t == token])
    squared = np.linalg.svd(vectors, compute_uv=False) ** 2
    assert len(vectors) == found.n[token] and found.share[token] == pytest.approx(squared[0] / squared.sum(), rel=1e-4)
