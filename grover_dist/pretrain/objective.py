"""Masked-language modelling as the loop sees it: batches, loss, and the held-out figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from grover_dist.corpus.batches import MaskedBatches, MicroBatch
from grover_dist.model.bert import MaskedPredictor
from grover_dist.model.device import to_device
from grover_dist.model.packing import WindowEdges
from grover_dist.training.loop import BatchSize
from grover_dist.training.ranks import Ranks

_UNIGRAM_WINDOWS = 4_096  # of the training side, whose token frequencies are what a model must beat
_TOP = 60  # GROVER reports top-60 accuracy


class MaskedLanguageModelling:
    """An `Objective` (see training.loop) over the windows of one vocabulary."""

    def __init__(self, name: str, model: MaskedPredictor, batches: MaskedBatches, *, evaluate_windows: int) -> None:
        self.name, self.model = name, model
        self._batches, self._evaluate_windows = batches, evaluate_windows
        self._token_bases = torch.from_numpy(batches.corpus.vocabulary.lengths(batches.cycles).astype("int64"))
        self._held_out: Sequence[MicroBatch] | None = None
        self._unigram = torch.empty(0)

    def use(self, batches: MaskedBatches) -> None:
        """Other batches from here on: the same windows, cut otherwise."""
        self._batches, self._held_out = batches, None

    def batches(self, step: int, rank: int, world: int) -> Sequence[MicroBatch]:
        return self._batches.step(step, rank, world)

    def largest_batch(self, samples: int) -> MicroBatch:
        """The longest windows there are, for a probe of memory."""
        return self._batches.longest(samples)

    def size(self, batch: MicroBatch) -> BatchSize:
        # A step whose targets all weigh nothing teaches nothing, and must not divide by nothing.
        targets = len(batch.labels) if batch.weights is None else max(float(batch.weights.sum()), 1e-6)
        return BatchSize(targets, batch.n_tokens, batch.n_bases, batch.input_ids.size, batch.n_padding)

    def loss(self, model: Any, batch: MicroBatch, device: torch.device) -> torch.Tensor:
        logits, labels = _score(model, batch, device)
        if batch.weights is None:
            return functional.cross_entropy(logits, labels, reduction="sum")
        weights = to_device(batch.weights, device)
        return (weights * functional.cross_entropy(logits, labels, reduction="none")).sum()

    def evaluate(self, model: Any, ranks: Ranks) -> dict[str, float]:
        """Over the masked tokens of the held-out windows, whose masks never change.

        nats_per_token: mean negative log-likelihood of a masked token. bits_per_base: the same sum in bits, over the bases that the
        masked tokens hold, so that vocabularies of any size compare; guessing bases at random would cost 2. unigram_normalized_loss:
        nats_per_token minus what the token frequencies of training alone would cost, so that what a vocabulary's frequencies give away
        does not count (Roh et al. 2020, "Unigram-normalized perplexity"); below 0 where context helps. top1, top60: share of
        masked tokens among the best 1 and 60 guesses (60, or the whole vocabulary). perplexity: e to the nats_per_token.
        """
        if self._held_out is None:
            self._held_out = self._batches.held_out(self._evaluate_windows, ranks.rank, ranks.world)
            counts = torch.from_numpy(self._batches.token_counts(_UNIGRAM_WINDOWS)).double() + 1.0
            self._unigram = torch.log(counts / counts.sum())
        # ZeRO-3 gathers weights in every forward pass, so that each rank makes the same number of them.
        rounds = int(max(ranks.gather(len(self._held_out))))
        nats = unigram = tokens = bases = top1 = top60 = 0.0
        for index in range(rounds):
            if index >= len(self._held_out):
                _score(model, self._batches.held_out(1)[0], ranks.device)
                continue
            logits, labels = _score(model, self._held_out[index], ranks.device)
            nats += functional.cross_entropy(logits, labels, reduction="sum").item()
            better = (logits > logits.gather(1, labels[:, None])).sum(1)
            top1 += (better < 1).sum().item()
            top60 += (better < _TOP).sum().item()
            tokens += len(labels)
            bases += self._token_bases[labels.cpu()].sum().item()
            unigram -= self._unigram[labels.cpu()].sum().item()
        nats, unigram, tokens, bases, top1, top60 = ranks.sum([nats, unigram, tokens, bases, top1, top60])
        return {
            "nats_per_token": nats / tokens,
            "bits_per_base": nats / math.log(2) / bases,
            "unigram_normalized_loss": (nats - unigram) / tokens,
            "top1": top1 / tokens,
            "top60": top60 / tokens,
            "perplexity": math.exp(min(nats / tokens, 700.0)),
        }


def _score(model: Any, batch: MicroBatch, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [masked, vocabulary] in fp32 and labels [masked]."""
    input_ids, masked_index, labels = (to_device(array, device) for array in (batch.input_ids, batch.masked_index, batch.labels))
    if batch.window_lengths is not None:
        windows = WindowEdges(batch.window_lengths.tolist(), device)
        return model(input_ids, None, masked_index, windows).float(), labels
    attention_mask = to_device(batch.attention_mask, device) if batch.n_padding else None
    return model(input_ids, attention_mask, masked_index).float(), labels
