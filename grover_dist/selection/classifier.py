"""Classification with the pretraining loop: the objective, its evaluation over all ranks, and a frozen trunk's features."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers.models.bert.modeling_bert import BertForSequenceClassification, BertModel

from grover_dist.config import Config, HeadSettings
from grover_dist.corpus.order import sample_at
from grover_dist.model.device import to_device
from grover_dist.remote import Remote
from grover_dist.selection.examples import ExampleBatch, Examples, TokenRows
from grover_dist.training.engine import split_batch
from grover_dist.training.loop import BatchSize, Plan, Result, train
from grover_dist.training.ranks import Ranks

MICRO_BATCH_SEQUENCES = 64
EVALUATE_SEQUENCES = 256
_KEEP_CLASSES = 64  # with more classes, only the prediction and the truth's probability are kept


@dataclass(frozen=True)
class Predictions:
    """predicted int64[n]; truth_log_prob float32[n] in nats; log_prob float32[n, classes], None where there are many classes."""

    predicted: np.ndarray
    truth_log_prob: np.ndarray
    log_prob: np.ndarray | None


class Classification:
    """The loop's objective: cross entropy of a class a sequence. Logits of a sequence's windows are averaged.

    class_weights: float[classes] in the training loss, None where all weigh one. After training, `predictions` holds those of the last
    evaluation, the same on each rank.
    """

    def __init__(
        self,
        name: str,
        model: nn.Module,
        training: Examples,
        evaluation: Examples,
        *,
        seed: int,
        batch_sequences: int,
        class_weights: np.ndarray | None = None,
    ) -> None:
        self.name, self.model = name, model
        self.training, self.evaluation = training, evaluation
        self.seed, self.batch_sequences, self.class_weights = seed, batch_sequences, class_weights
        self.predictions: Predictions | None = None

    def batches(self, step: int, rank: int, world: int) -> Sequence[ExampleBatch]:
        n = len(self.training)
        number = step * self.batch_sequences + np.arange(rank, self.batch_sequences, world, dtype=np.int64)
        indices = np.empty_like(number)
        for epoch in np.unique(number // n):
            here = number // n == epoch
            indices[here] = sample_at(number[here] % n, n=n, seed=self.seed, epoch=int(epoch))
        split = split_batch(self.batch_sequences, world, MICRO_BATCH_SEQUENCES)
        return [self.training.batch(part) for part in np.array_split(indices, split.accumulation)]

    def size(self, batch: ExampleBatch) -> BatchSize:
        targets = len(batch.labels) if self.class_weights is None else float(self.class_weights[batch.labels].sum())
        return BatchSize(targets=targets, tokens=batch.n_tokens, bases=batch.n_bases)

    def loss(self, model: Any, batch: ExampleBatch, device: torch.device) -> torch.Tensor:
        labels = to_device(batch.labels, device)
        weight = None if self.class_weights is None else torch.from_numpy(self.class_weights).float().to(device)
        return functional.cross_entropy(logits_of(model, batch, device), labels, weight=weight, reduction="sum")

    def evaluate(self, model: Any, ranks: Ranks) -> Mapping[str, float]:
        self.predictions = predict(model, self.evaluation, ranks)
        correct = self.predictions.predicted == self.evaluation.labels
        return {"accuracy": float(correct.mean()), "nats": -float(self.predictions.truth_log_prob.mean())}


def logits_of(model: Any, batch: ExampleBatch, device: torch.device) -> torch.Tensor:
    """fp32[examples, classes]"""
    output = model(**{name: to_device(value, device) for name, value in batch.inputs.items()})
    logits = (output if isinstance(output, torch.Tensor) else output.logits).float()
    if batch.owner is None:
        return logits
    owner = to_device(batch.owner, device)
    windows = torch.bincount(owner, minlength=len(batch.labels)).clamp(min=1)
    total = logits.new_zeros(len(batch.labels), logits.shape[1]).index_add(0, owner, logits)
    return total / windows[:, None]


def predict(model: Any, examples: Examples, ranks: Ranks) -> Predictions:
    """Predictions of all examples, computed in strides over the ranks. Every rank makes the same number of forward passes
    (a partitioned model is gathered in each of them) and gets the whole result. Without gradients, in evaluation mode.
    """
    n = len(examples)
    share = -(-n // ranks.world)
    mine = np.minimum(ranks.rank + ranks.world * np.arange(share), n - 1)  # a rank that has one less repeats the last
    predicted, truth, kept = [], [], []
    for start in range(0, share, EVALUATE_SEQUENCES):
        batch = examples.batch(mine[start : start + EVALUATE_SEQUENCES])
        with torch.no_grad():
            log_prob = functional.log_softmax(logits_of(model, batch, ranks.device), dim=1).cpu().numpy()
        predicted.append(log_prob.argmax(axis=1))
        truth.append(log_prob[np.arange(len(batch.labels)), batch.labels])
        if log_prob.shape[1] <= _KEEP_CLASSES:
            kept.append(log_prob)
    gathered = ranks.gather((np.concatenate(predicted), np.concatenate(truth), np.concatenate(kept) if kept else None))

    def merge(parts: list[np.ndarray]) -> np.ndarray:
        return np.stack(parts, axis=1).reshape(share * ranks.world, *parts[0].shape[1:])[:n]

    log_prob = merge([part[2] for part in gathered]) if kept else None
    return Predictions(merge([part[0] for part in gathered]), merge([part[1] for part in gathered]).astype(np.float32), log_prob)


def steps_of(head: HeadSettings, n_training: int) -> int:
    return max(1, math.ceil(head.epochs * n_training / head.batch_sequences))


def fit(
    objective: Classification,
    ranks: Ranks,
    head: HeadSettings,
    config: Config,
    *,
    evaluations: int = 1,
    checkpoints: Path | None = None,
    remote: Remote | None = None,
    hash: str = "",
    setting: str,
    say: Callable[[str], None] = print,
) -> Result:
    """Train for `head.epochs`. Collective. `setting` is the dotted name of the head's settings, for messages."""
    total_steps = steps_of(head, len(objective.training))
    plan = Plan(
        seed=objective.seed,
        total_steps=total_steps,
        batch=head.batch_sequences,
        micro_batch=MICRO_BATCH_SEQUENCES,
        optimizer=head.optimizer,
        engine=config.engine,
        rank_timeout_seconds=config.resources.rank_timeout_seconds,
        evaluations=min(evaluations, total_steps),
        hash=hash,
        batch_setting=f"{setting}.batch_sequences",
    )
    return train(objective, ranks, plan, checkpoints=checkpoints, remote=remote, say=say)


class ClsClassifier(nn.Module):
    """BertForSequenceClassification that computes, in its last layer, the state of [CLS] alone: nothing else reaches the logits.

    At two layers it saves two fifths of the work.
    """

    def __init__(self, model: BertForSequenceClassification) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """input_ids, attention_mask: [n, length]. Returns logits [n, classes]."""
        cls = last_cls_state(self.model.bert, input_ids, attention_mask)
        return self.model.classifier(self.model.dropout(self.model.bert.pooler(cls)))


class MeanClassifier(nn.Module):
    """The same weights with the mean over all tokens in the place of [CLS]. Masked-language modelling trains every token's state
    but that of [CLS], so a short fine-tuning starts from more.
    """

    def __init__(self, model: BertForSequenceClassification) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """input_ids, attention_mask: [n, length]. Returns logits [n, classes]."""
        pooled = self.pool(self.model.bert, input_ids, attention_mask)
        return self.model.classifier(self.model.dropout(self.model.bert.pooler(pooled)))

    @staticmethod
    def pool(bert: BertModel, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return mean_state(bert, input_ids, attention_mask)


class MaxClassifier(MeanClassifier):
    """The same with the largest value of each state over all tokens: one strong word is enough, wherever it stands."""

    @staticmethod
    def pool(bert: BertModel, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return max_state(bert, input_ids, attention_mask)


class LastClassifier(MeanClassifier):
    """The same with the last token before [SEP]: what follows the input depends most on where it ends."""

    @staticmethod
    def pool(bert: BertModel, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return last_token_state(bert, input_ids, attention_mask)


POOLED = {"cls": ClsClassifier, "mean": MeanClassifier, "max": MaxClassifier, "last": LastClassifier}


def mean_state(bert: BertModel, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """Mean of the trunk's last hidden states over the tokens that are not padding, [n, 1, hidden]."""
    hidden = bert(input_ids, attention_mask=attention_mask).last_hidden_state
    weight = attention_mask[:, :, None].to(hidden.dtype)
    return (hidden * weight).sum(dim=1, keepdim=True) / weight.sum(dim=1, keepdim=True)


def max_state(bert: BertModel, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """Largest value of each of the trunk's last hidden states over the tokens that are not padding, [n, 1, hidden]."""
    hidden = bert(input_ids, attention_mask=attention_mask).last_hidden_state
    return hidden.masked_fill(attention_mask[:, :, None] == 0, -torch.inf).amax(dim=1, keepdim=True)


def last_token_state(bert: BertModel, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """The trunk's last hidden state of the token before [SEP], [n, 1, hidden]."""
    hidden = bert(input_ids, attention_mask=attention_mask).last_hidden_state
    place = attention_mask.sum(dim=1).sub(2).clamp(min=0)
    return hidden.gather(1, place[:, None, None].expand(-1, 1, hidden.shape[-1]))


def last_cls_state(bert: BertModel, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """The trunk's last hidden state of [CLS], [n, 1, hidden]; equal to the whole forward pass, without its unused part."""
    mask = attention_mask[:, None, None, :].bool()
    hidden = bert.embeddings(input_ids=input_ids)
    for layer in bert.encoder.layer[:-1]:
        hidden = layer(hidden, mask)
    last = bert.encoder.layer[-1]
    attention = last.attention.self

    def heads(states: torch.Tensor) -> torch.Tensor:
        return states.unflatten(-1, (-1, attention.attention_head_size)).transpose(1, 2)

    first = hidden[:, :1]
    context = functional.scaled_dot_product_attention(
        heads(attention.query(first)),
        heads(attention.key(hidden)),
        heads(attention.value(hidden)),
        attn_mask=mask,
        dropout_p=attention.dropout.p if attention.training else 0.0,
    )
    attended = last.attention.output(context.transpose(1, 2).flatten(2), first)
    return last.output(last.intermediate(attended), attended)


class FrozenHead(nn.Module):
    """Pooler, dropout and linear layer of a BertForSequenceClassification, on features of its trunk. Shares their weights."""

    def __init__(self, model: BertForSequenceClassification) -> None:
        super().__init__()
        self.pooler, self.dropout, self.classifier = model.bert.pooler, model.dropout, model.classifier

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.dropout(self.pooler(features[:, None])))


def trunk_features(model: BertForSequenceClassification, tokens: TokenRows, ranks: Ranks, pooling: str) -> np.ndarray:
    """What a head sees of each row of tokens, float32[rows, hidden], computed in strides over the ranks."""
    pooled = {"cls": last_cls_state, "mean": mean_state, "max": max_state, "last": last_token_state}[pooling]
    trunk = model.bert.to(ranks.device).eval()
    n = len(tokens.lengths)
    mine = np.arange(ranks.rank, n, ranks.world)
    parts = []
    for start in range(0, len(mine), EVALUATE_SEQUENCES):
        inputs = tokens.take_rows(mine[start : start + EVALUATE_SEQUENCES])
        with torch.no_grad():
            state = pooled(trunk, **{name: torch.from_numpy(value).to(ranks.device) for name, value in inputs.items()})
        parts.append(state[:, 0].float().cpu().numpy())
    features = np.empty((n, model.config.hidden_size), np.float32)
    for rank, part in enumerate(ranks.gather(np.concatenate(parts) if parts else features[:0])):
        features[rank :: ranks.world] = part
    return features
