"""Warm start: the model of a larger vocabulary begins with the weights of a smaller one. Vocabularies are nested, so every token of
the smaller one has the same id and meaning in the larger; a further token is a merge of two parts, and begins as their mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers.models.bert.modeling_bert import BertForMaskedLM

from grover_dist.bpe.vocabulary import Vocabulary
from grover_dist.errors import UserError

EMBEDDING, BIAS = "bert.embeddings.word_embeddings.weight", "cls.predictions.bias"
_TIED = ("cls.predictions.decoder.weight", "cls.predictions.decoder.bias")  # to the two above


def grow_rows(rows: torch.Tensor, vocabulary: Vocabulary, cycles: int) -> torch.Tensor:
    """rows [smaller vocabulary, ...] by model id -> [cycles + 9, ...]: the given rows, then for each further merge the mean of its
    parts' rows, in the order of learning, so that a part may itself be new.
    """
    known, size = len(rows), len(vocabulary.lengths(cycles))
    grown = rows.new_empty((size, *rows.shape[1:]))
    grown[:known] = rows
    first_merge = size - cycles
    for token in range(known, size):
        merge = token - first_merge
        grown[token] = (grown[int(vocabulary.left[merge])] + grown[int(vocabulary.right[merge])]) / 2
    return grown


def warm_weights(weights: Mapping[str, torch.Tensor], vocabulary: Vocabulary, cycles: int) -> dict[str, torch.Tensor]:
    """Weights of a BertForMaskedLM, grown to `cycles` merges of `vocabulary`. Raises UserError where the given ones have more."""
    given = len(weights[EMBEDDING])
    wanted = len(vocabulary.lengths(cycles))
    if given > wanted:
        raise UserError(
            "a warm start goes from a smaller vocabulary to a larger one",
            where="pretrain.warm_start",
            got=f"weights of {given:,} tokens for a model of {wanted:,}",
            hint="name a smaller candidate",
        )
    kept = {name: value for name, value in weights.items() if name not in _TIED}
    return kept | {name: grow_rows(weights[name], vocabulary, cycles) for name in (EMBEDDING, BIAS)}


def start_warm(model: BertForMaskedLM, folder: Path, vocabulary: Vocabulary, cycles: int) -> None:
    """Put the weights of the published model in `folder` into `model`, which has `cycles` merges."""
    outcome = model.load_state_dict(warm_weights(load_file(folder / "model.safetensors"), vocabulary, cycles), strict=False)
    assert not outcome.unexpected_keys and set(outcome.missing_keys) <= set(_TIED), outcome
    model.tie_weights()
