from __future__ import annotations

import numpy as np
import pytest
import torch

from grover_dist.corpus.corpus import Corpus
from grover_dist.corpus.windows import make_windows
from grover_dist.genome.split import split_blocks
from grover_dist.model.bert import MaskedPredictor, bert_config, masked_lm
from grover_dist.model.packing import WindowEdges
from grover_dist.pretrain.candidate import hashed_settings, masked_batches
from grover_dist.pretrain.objective import MaskedLanguageModelling
from tests.pretrain.small_run import CYCLES


@pytest.fixture(scope="module")
def objective(config, corpus):
    def make(**pretrain):
        changed = config.model_copy(update={"pretrain": config.pretrain.model_copy(update=pretrain)})
        opened = Corpus.open(corpus)
        split = split_blocks(opened.store.contigs, config.split, config.seed)
        windows = make_windows(opened.store, split, config.windows, CYCLES, config.seed)
        model = MaskedPredictor(masked_lm(bert_config(config.model, CYCLES + 9), seed=1)).eval()
        return MaskedLanguageModelling("c", model, masked_batches(changed, opened, windows, CYCLES, 1), evaluate_windows=4)

    return make


def test_soft_masked_tokens_weigh_less_in_the_loss_and_in_what_it_is_divided_by(objective):
    plain, weighted = objective(), objective(soft_mask_weight=0.25)
    batch, lighter = plain.batches(0, 0, 1)[0], weighted.batches(0, 0, 1)[0]
    assert batch.weights is None and np.array_equal(batch.labels, lighter.labels)
    assert 0.25 <= lighter.weights.min() < lighter.weights.max() <= 1
    assert weighted.size(lighter).targets == pytest.approx(lighter.weights.sum()) and plain.size(batch).targets == len(batch.labels)
    with torch.no_grad():
        each = -torch.log_softmax(
            weighted.model(
                torch.from_numpy(lighter.input_ids),
                None,
                torch.from_numpy(lighter.masked_index),
                WindowEdges(lighter.window_lengths.tolist()),
            ),
            1,
        )
        expected = sum(
            w * each[i, label] for i, (w, label) in enumerate(zip(lighter.weights.tolist(), lighter.labels.tolist(), strict=True))
        )
        found = weighted.loss(weighted.model, lighter, torch.device("cpu"))
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_step_without_any_weight_has_no_loss_and_is_not_a_division_by_zero(objective):
    weighted = objective(soft_mask_weight=0.0)
    batch = weighted.batches(0, 0, 1)[0]
    silent = type(batch)(**{**vars(batch), "weights": np.zeros_like(batch.weights)})
    loss, targets = weighted.loss(weighted.model, silent, torch.device("cpu")).item(), weighted.size(silent).targets
    assert loss / targets == 0.0


def test_both_options_change_what_is_trained_and_so_the_artefact(config, objective):
    turned = objective(reverse_complement=True)
    assert any(
        a.input_ids.shape != b.input_ids.shape or not np.array_equal(a.input_ids, b.input_ids)
        for a, b in zip(turned.batches(0, 0, 1), objective().batches(0, 0, 1), strict=True)
    )
    for option in ({"reverse_complement": True}, {"soft_mask_weight": 0.5}):
        changed = config.model_copy(update={"pretrain": config.pretrain.model_copy(update=option)})
        assert hashed_settings(changed, CYCLES, 1_000) != hashed_settings(config, CYCLES, 1_000)


@pytest.mark.parametrize("options", [{}, {"soft_mask_weight": 0.25, "reverse_complement": True}])
def test_packing_changes_neither_the_loss_nor_what_it_is_divided_by(objective, options):
    packed, padded = objective(**options), objective(packing=False, **options)
    losses, sizes = [], []
    with torch.no_grad():
        for made in (packed, padded):
            batches = [batch for step in range(3) for batch in made.batches(step, 0, 1)]
            losses.append(sum(made.loss(made.model, batch, torch.device("cpu")).item() for batch in batches))
            sizes.append([sum(column) for column in zip(*map(made.size, batches), strict=True)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert sizes[0][:3] == pytest.approx(sizes[1][:3])
    assert sizes[0][4] == 0 < sizes[1][4] and sizes[0][3] + sizes[1][4] == sizes[1][3]
