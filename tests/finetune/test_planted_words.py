"""The words that make a planted promoter or a bound CTCF site are the bases that a trained model's predictions rest on."""

from __future__ import annotations

import pytest

from tests.finetune.planted_words import importance_auroc, laboratory


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "needed"), [("ctcf", {"context": 0.9}), ("promoter", {"tata": 0.85, "inr": 0.62})])
def test_planted_words_are_the_most_important_bases(tmp_path, kind, needed):
    lab = laboratory(tmp_path, kind)
    assert lab.mcc > 0.6 and len(lab.sequences) >= 20
    for method in ("occlusion", "gradients"):
        found = importance_auroc(lab, method)
        assert set(found) == set(needed) and all(found[word] > least for word, least in needed.items()), found
