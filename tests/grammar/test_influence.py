"""Influence against two predictions made by hand, and its statistics on events whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from grover_dist.analysis import sums
from grover_dist.corpus.corpus import Corpus
from grover_dist.corpus.windows import tile
from grover_dist.grammar.influence import Influence, influence_table, measure_influence


def test_influence_is_the_loss_of_hiding_one_more_word(small_run) -> None:
    corpus, cycles = Corpus.open(small_run.learn), small_run.chosen
    windows = tile(corpus.store, small_run.config.windows, cycles, 1)
    windows = windows.take(np.flatnonzero(windows.n_tokens > 12)[:1])  # every target lies in this window
    model = sums.load_model(next(a for a in small_run.pretrain if a.counts["cycles"] == cycles))
    found = measure_influence(model, corpus, windows, cycles, targets=3, distance=3, seed=1)
    assert found.nats.shape == found.attention.shape == found.context.shape == (3, 6)
    ids = corpus.ids_of_rows(int(windows.row_start[0]), int(windows.row_stop[0]), cycles).astype(np.int64)
    whole = np.array([2, *ids, 3])
    for line in range(3):
        around = [*found.context[line, :3], found.target[line], *found.context[line, 3:]]
        places = [at for at in range(4, len(whole) - 4) if whole[at - 3 : at + 4].tolist() == around]
        expected = []
        for at in places:
            chances = []
            for hidden in (None, at + 2):
                masked = whole.copy()
                masked[[at] if hidden is None else [at, hidden]] = 4
                with torch.no_grad():
                    chances.append(torch.log_softmax(model(torch.tensor(masked[None])).logits[0, at], -1)[whole[at]].item())
            expected.append(chances[0] - chances[1])
        assert min(abs(value - found.nats[line, 4]) for value in expected) < 1e-4
    assert (found.attention > 0).all() and (found.attention.sum(axis=1) < 1).all()
    assert model.config._attn_implementation == "sdpa"


def test_a_pair_that_predicts_is_found_and_one_that_does_not_is_not() -> None:
    random = np.random.default_rng(0)
    n, distances = 200, np.array([-1, 1])
    target, context = np.full(n, 7), np.stack([np.full(n, 5), np.full(n, 6)], axis=1)
    nats = np.stack([random.normal(0.5, 1, n), random.normal(0, 1, n)], axis=1)
    found = Influence(distances, target, context, nats, nats + 0.01)
    pairs = found.pairs()
    assert list(zip(pairs["context"], pairs["distance"], pairs["target"], strict=True)) == [(5, -1, 7), (6, 1, 7)]
    assert pairs["q"][0] < 0.01 and pairs["q"][1] > 0.05
    assert found.agreement() == pytest.approx((1.0, 1.0))
    assert influence_table(found, [str(i) for i in range(8)]).to_pylist()[0]["target"] == "7"


def test_windows_too_short_give_nothing(small_run) -> None:
    corpus, cycles = Corpus.open(small_run.learn), small_run.chosen
    windows = tile(corpus.store, small_run.config.windows, cycles, 1)
    model = sums.load_model(next(a for a in small_run.pretrain if a.counts["cycles"] == cycles))
    found = measure_influence(model, corpus, windows, cycles, targets=3, distance=500, seed=1)
    assert len(found.target) == 0 and len(found.pairs()["q"]) == 0
