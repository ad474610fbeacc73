"""A candidate's turn on a rung: which head scores it."""

from __future__ import annotations

import pytest

from grover_dist.selection.trial import run_trial
from grover_dist.training.ranks import Ranks


@pytest.mark.parametrize(("probe", "early", "frozen"), [(True, True, True), (True, False, False), (False, True, False)])
def test_early_rungs_are_scored_with_the_probe_where_one_is_set(random_run, random_models, probe, early, frozen):
    head = random_run.config.selection.head.model_copy(update={"epochs": 0.1})
    ladder = random_run.config.selection.ladder.model_copy(
        update={"probe": head.model_copy(update={"freeze_trunk": True, "pooling": "last"}) if probe else None}
    )
    selection = random_run.config.selection.model_copy(update={"head": head, "ladder": ladder})
    pretrain = random_run.config.pretrain.model_copy(update={"evaluate_windows": 16, "batch_windows": 16})
    config = random_run.config.model_copy(update={"selection": selection, "pretrain": pretrain})
    found = run_trial(
        config, random_run.run, corpus=random_models.learned, task=random_run.task, cycles=20, budget_bases=4_000,
        ranks=Ranks.join(), early=early, say=lambda line: None,
    )  # fmt: skip
    assert found["kmer"].manifest["settings"]["head"]["freeze_trunk"] is frozen
    assert found["kmer"].manifest["inputs"]["pretrained"] == found["pretrain"].digest
