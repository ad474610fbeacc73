"""The words that make a planted promoter or a bound CTCF site are the bases that a trained model's predictions rest on."""

from __future__ import annotations

import pytest

from tests.finetune.planted_words import importance_auroc, laboratory


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "words"), [("ctcf", {"context"}), ("promoter", {"tata", "inr"})])
def test_planted_words_are_the_most_important_bases(tmp_path, kind, words):
    lab = laboratory(tmp_path, kind)
    assert lab.mcc > 0.6 and len(lab.sequences) >= 20
    for method in ("occlusion", "gradients"):
        found = importance_auroc(lab, method)
        assert set(found) == words
        assert min(found.values()) > 0.75, found
