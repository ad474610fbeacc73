"""BERT as Hugging Face defines it, built from our settings, and its heads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn
from transformers.models.bert.configuration_bert import BertConfig
from transformers.models.bert.modeling_bert import BertForMaskedLM, BertForSequenceClassification
from transformers.utils import logging as transformers_logging

from grover_dist.config import ModelSettings
from grover_dist.model.packing import PACKED_SDPA, WindowEdges

PAD_ID = 0


def bert_config(settings: ModelSettings, vocab_size: int) -> BertConfig:
    """Hugging Face's description of the model. `vocab_size` = cycles + 9."""
    config = BertConfig(
        vocab_size=vocab_size,
        hidden_size=settings.hidden,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        intermediate_size=settings.feed_forward,
        hidden_act="gelu",
        hidden_dropout_prob=settings.dropout,
        attention_probs_dropout_prob=settings.dropout,
        max_position_embeddings=settings.positions,
        layer_norm_eps=settings.layer_norm_eps,
        pad_token_id=PAD_ID,
    )
    config._attn_implementation = "sdpa"
    return config


def masked_lm(config: BertConfig, *, seed: int) -> BertForMaskedLM:
    """A freshly initialised model: the same weights for the same seed, whatever random numbers were drawn before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return BertForMaskedLM(config)


def classifier(trunk: Path | BertConfig, n_labels: int, *, seed: int) -> BertForSequenceClassification:
    """[CLS], pooler, dropout, linear layer. trunk: a folder that holds a pretrained model, or a configuration for the twin that
    knows nothing. Pooler and linear layer are new in both cases, drawn from the seed.
    """
    with torch.random.fork_rng(devices=[]), quiet_transformers():  # it would warn that the head is new, as it should be
        torch.manual_seed(seed)
        if isinstance(trunk, BertConfig):
            config = BertConfig(**{**trunk.to_dict(), "num_labels": n_labels})
            config._attn_implementation = "sdpa"
            return BertForSequenceClassification(config)
        return BertForSequenceClassification.from_pretrained(trunk, num_labels=n_labels, attn_implementation="sdpa", local_files_only=True)


class MaskedPredictor(nn.Module):
    """BertForMaskedLM that scores the masked positions only: at 2.2 % of the tokens the head is otherwise most of the work.

    The weights' layout is BertForMaskedLM's, under the prefix `bert_for_masked_lm.`.
    """

    PREFIX = "bert_for_masked_lm."

    def __init__(self, model: BertForMaskedLM) -> None:
        super().__init__()
        model.set_attn_implementation(PACKED_SDPA)
        model.config.use_cache = False  # of decoders; transformers would warn about it when layers are computed again
        self.bert_for_masked_lm = model

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None, masked_index: torch.Tensor, windows: WindowEdges | None = None
    ) -> torch.Tensor:
        """input_ids, attention_mask: [windows, length], the mask None where nothing is padded; or, with `windows`, [1, tokens]: whole
        windows end to end, and no mask. masked_index: flat positions, [m]. Returns logits [m, vocabulary].
        """
        packed = {} if windows is None else {"position_ids": windows.positions, "windows": windows}
        hidden = self.bert_for_masked_lm.bert(input_ids, attention_mask=attention_mask, **packed).last_hidden_state
        return self.bert_for_masked_lm.cls(hidden.flatten(0, 1)[masked_index])

    @classmethod
    def plain_weights(cls, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The weights under BertForMaskedLM's own names."""
        return {name.removeprefix(cls.PREFIX): value for name, value in weights.items()}


def save_masked_lm(config: BertConfig, weights: dict[str, torch.Tensor], folder: Path) -> None:
    """Write a plain BertForMaskedLM (config.json, model.safetensors) from weights under its own names."""
    model = BertForMaskedLM(config)
    model.load_state_dict(weights)
    with quiet_transformers():
        model.save_pretrained(folder)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Without the bars and warnings of transformers."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
