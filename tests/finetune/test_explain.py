"""Importance of bases: exact properties on a small model, and planted words on a model that learned them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from grover_dist.bpe.encode import encode_codes
from grover_dist.errors import UserError
from grover_dist.finetune.explain import MASK_ID, attribute, explain, log_odds, token_scores
from grover_dist.finetune.exported import load_finetuned


@pytest.fixture(scope="module")
def model(published):
    return load_finetuned(published)


def odds(model, ids):
    inputs = torch.tensor([[2, *map(int, ids), 3]])
    with torch.no_grad():
        return float(log_odds(model.module(inputs, torch.ones_like(inputs)), 1)[0])


def sequence(n=30, seed=0):
    return np.random.default_rng(seed).integers(0, 4, n).astype(np.uint8)


def test_occlusion_equals_a_loop_over_tokens(model):
    ids = encode_codes(sequence(), model.vocabulary)
    found = token_scores(model, sequence(), 1, "occlusion")
    for at in range(len(ids)):
        changed = ids.copy()
        changed[at] = MASK_ID
        assert found[at] == pytest.approx(odds(model, ids) - odds(model, changed), abs=1e-4)


def test_integrated_gradients_add_up(model):
    ids = encode_codes(sequence(), model.vocabulary)
    found = token_scores(model, sequence(), 1, "gradients")
    difference = odds(model, ids) - odds(model, np.full_like(ids, MASK_ID))
    assert abs(difference) > 1e-3 and found.sum() == pytest.approx(difference, rel=0.05, abs=0.01)


@pytest.mark.parametrize("method", ["occlusion", "gradients"])
def test_every_base_has_its_tokens_importance(model, method):
    codes = np.concatenate([sequence(20), [4], sequence(20, 1)]).astype(np.uint8)
    ids, tokens = encode_codes(codes, model.vocabulary), token_scores(model, codes, 1, method)
    bases = attribute(model, codes, 1, method)
    assert len(bases) == 41 and bases[20] == 0
    at = 0
    for token, score in zip(ids, tokens, strict=True):
        width = max(1, int(model.vocabulary.lengths()[token]))
        assert (bases[at : at + width] == score).all()
        at += width
    assert attribute(model, codes, 0, method) == pytest.approx(-bases, abs=1e-4)  # of two classes one's gain is the other's loss


def test_long_sequences_are_explained_in_windows(model):
    codes = sequence(120)
    assert len(model.rows([codes]).lengths) > 1
    found = attribute(model, codes, 1)
    assert len(found) == 120 and np.isfinite(found).all() and np.abs(found).max() > 0


def test_the_minus_strand_is_written_in_the_records_coordinates(tmp_path, published, model):
    letters = "".join("ACGT"[code] for code in sequence(60))
    (tmp_path / "g.fa").write_text(f">one\n{letters}\n")
    (tmp_path / "r.bed").write_text("one\t10\t50\ta\t0\t-\n")
    explain(published, [tmp_path / "e.bed"], bed=tmp_path / "r.bed", fasta=tmp_path / "g.fa", say=lambda text: None)
    lines = [line.split("\t") for line in (tmp_path / "e.bed").read_text().splitlines()]
    expected = attribute(model, (3 - sequence(60)[10:50])[::-1].copy(), 1)[::-1]
    assert [int(line[1]) for line in lines] == list(range(10, 50))
    assert np.allclose([float(line[3]) for line in lines], expected, rtol=1e-4, atol=1e-6)
    with pytest.raises(UserError, match="unknown method"):
        explain(published, [tmp_path / "e.bed"], bed=tmp_path / "r.bed", fasta=tmp_path / "g.fa", method="guess")


def test_a_picture_names_the_words_that_count_most(tmp_path, published, model):
    codes = sequence(60)
    (tmp_path / "g.fa").write_text(f">one\n{''.join('ACGT'[code] for code in codes)}\n")
    (tmp_path / "r.bed").write_text("one\t5\t55\ta\t0\t+\none\t0\t40\tb\t0\t-\n")
    given = {"bed": tmp_path / "r.bed", "fasta": tmp_path / "g.fa", "say": lambda text: None}
    explain(published, [tmp_path / "e.svg", tmp_path / "e.png"], **given)
    drawn = (tmp_path / "e.svg").read_text()
    assert "one:5-55 (+)" in drawn and "one:0-40 (-)" in drawn and (tmp_path / "e.png").read_bytes()[1:4] == b"PNG"
    ids, scores = encode_codes(codes[5:55], model.vocabulary), token_scores(model, codes[5:55], 1, "occlusion")
    assert f">{model.vocabulary.strings()[ids[np.abs(scores).argmax()]]}<" in drawn
    explain(published, [tmp_path / "again.svg"], **given)
    assert (tmp_path / "again.svg").read_text() == drawn
