"""Warm start: what a larger vocabulary takes over from a smaller one, token by token."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from grover_dist.bpe.vocabulary import Vocabulary
from grover_dist.config import config_from
from grover_dist.errors import UserError
from grover_dist.model.bert import bert_config, masked_lm
from grover_dist.pretrain.candidate import pretrain_candidate
from grover_dist.pretrain.warm_start import BIAS, EMBEDDING, grow_rows, start_warm, warm_weights
from tests.pretrain.small_run import CYCLES

SMALL = 12


def by_strings(known: dict[str, torch.Tensor], vocabulary: Vocabulary) -> dict[str, torch.Tensor]:
    """The same mapping, independently: over the strings of merges.txt's lines."""
    strings = vocabulary.strings()
    for left, right in zip(vocabulary.left.tolist(), vocabulary.right.tolist(), strict=True):
        whole = strings[left] + strings[right]
        if whole not in known:
            known[whole] = (known[strings[left]] + known[strings[right]]) / 2
    return known


def test_a_new_token_is_the_mean_of_its_parts_and_old_ones_are_the_same(config, run, corpus):
    vocabulary = Vocabulary.read(corpus.path)
    weights = masked_lm(bert_config(config.model, SMALL + 9), seed=3).state_dict()
    weights[BIAS] = torch.randn(SMALL + 9)
    grown = warm_weights(weights, vocabulary, CYCLES)
    strings = vocabulary.strings(CYCLES)
    for name in (EMBEDDING, BIAS):
        expected = by_strings(dict(zip(strings, weights[name], strict=False)), vocabulary)
        assert grown[name].shape[0] == CYCLES + 9 == len(expected)
        for token, row in zip(strings, grown[name], strict=True):
            assert torch.equal(row, expected[token]), token
    assert all(torch.equal(grown[name], weights[name]) for name in grown if name not in (EMBEDDING, BIAS))


def test_a_part_may_itself_be_new():
    vocabulary = Vocabulary(np.array([5, 9, 10]), np.array([6, 7, 10]), np.array([9, 8, 7]))  # AC, ACG, ACGACG
    rows = torch.arange(9.0)[:, None]
    ac, acg = 5.5, (5.5 + 7) / 2
    assert grow_rows(rows, vocabulary, 3)[9:, 0].tolist() == [ac, acg, acg]
    assert torch.equal(grow_rows(rows, vocabulary, 0), rows)


def test_a_larger_parent_is_refused(config, run, corpus):
    weights = masked_lm(bert_config(config.model, CYCLES + 9), seed=3).state_dict()
    with pytest.raises(UserError, match="from a smaller vocabulary to a larger"):
        warm_weights(weights, Vocabulary.read(corpus.path), SMALL)


def test_the_published_weights_go_in_and_the_decoder_stays_tied(config, corpus, pretrained):
    vocabulary = Vocabulary.read(corpus.path)
    model = masked_lm(bert_config(config.model, CYCLES + 9), seed=4)
    start_warm(model, pretrained.file("model"), vocabulary, CYCLES)
    for name, value in load_file(pretrained.file("model") / "model.safetensors").items():
        assert torch.equal(model.state_dict()[name], value), name
    assert model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight


def test_a_warm_candidate_is_an_artefact_of_its_own_and_starts_better(config, run, corpus, one_rank):
    def pretrain(cycles, warm=None):
        return pretrain_candidate(config, run, corpus, cycles, budget_bases=4_000, ranks=one_rank, say=lambda line: None, warm_from=warm)

    parent = pretrain_candidate(config, run, corpus, SMALL, budget_bases=60_000, ranks=one_rank, say=lambda line: None)
    cold, warm = pretrain(CYCLES), pretrain(CYCLES, parent)
    assert cold.path != warm.path and warm.manifest["inputs"].keys() == {"learn", "warm"}
    assert warm.manifest["inputs"]["warm"] == parent.digest
    assert warm.counts["bits_per_base"] < cold.counts["bits_per_base"]


def test_the_parent_must_be_a_candidate():
    with pytest.raises(UserError, match="warm_start 50 is not one of the candidates"):
        config_from({"genome": {"fasta": "x.fa"}, "pretrain": {"candidates": [100, 300], "warm_start": 50}})
