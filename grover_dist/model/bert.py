"""BERT as Hugging Face defines it, built from our settings; its heads; its size and its arithmetic."""

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
        self.bert_for_masked_lm = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None, masked_index: torch.Tensor) -> torch.Tensor:
        """input_ids, attention_mask: [windows, length], the mask None where nothing is padded. masked_index: flat positions, [m].
        Returns logits [m, vocabulary].
        """
        hidden = self.bert_for_masked_lm.bert(input_ids, attention_mask=attention_mask).last_hidden_state
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


def parameters(settings: ModelSettings, vocab_size: int, *, pooler: bool = False) -> int:
    """Weights of the masked language model. The decoder shares the token embedding. Checked against the built model by a test."""
    hidden, feed_forward = settings.hidden, settings.feed_forward
    dense = hidden * hidden + hidden
    norm = 2 * hidden
    embeddings = (vocab_size + settings.positions + 2) * hidden + norm
    layer = 4 * dense + (hidden * feed_forward + feed_forward) + (feed_forward * hidden + hidden) + 2 * norm
    head = dense + norm + vocab_size
    return embeddings + settings.layers * layer + head + (dense if pooler else 0)


def flops_per_token(settings: ModelSettings, vocab_size: int, *, length_tokens: float, masked_fraction: float) -> float:
    """Floating-point operations of one training token: forward and backward, matrix products only.

    A product of weights costs 2 operations a weight forward and 4 backward: 6 (4 h^2 + 2 h f) a layer. Attention scores and their use
    cost 2 x 2 x length x h forward, three times that in all. The head, 6 (h^2 + h v), works on the masked tokens only. Embedding,
    LayerNorm, softmax and GELU are left out, as is usual (Chowdhery et al. 2022, PaLM, appendix B), so MFU is not flattered.
    """
    hidden, feed_forward = settings.hidden, settings.feed_forward
    layer = 6 * (4 * hidden * hidden + 2 * hidden * feed_forward) + 12 * length_tokens * hidden
    head = 6 * (hidden * hidden + hidden * vocab_size)
    return settings.layers * layer + masked_fraction * head
