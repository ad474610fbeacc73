"""How much the context changes a token's vector, layer by layer, after Ethayarajh (2019, https://arxiv.org/abs/1909.00512).

Self-similarity of a token: mean cosine between the vectors of two of its occurrences. It needs no pairs: with s the sum of the n unit
vectors it is (|s|^2 - n) / (n (n - 1)), so one pass with one sum per token and layer is exact over all occurrences. Anisotropy, the same
mean between occurrences of different tokens, is what directions shared by all vectors give, and is subtracted where "adjusted" is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers.models.bert.modeling_bert import BertForMaskedLM

from grover_dist.bpe.vocabulary import FIRST_BASE_ID
from grover_dist.corpus.batches import MicroBatch
from grover_dist.model.device import for_prediction


@dataclass(frozen=True)
class ContextProfile:
    """Layer 0 is the input embedding. self_similarity float64 [layers + 1, vocabulary], NaN below two occurrences; anisotropy and
    intra_context (mean cosine of a token and its window's mean vector) float64 [layers + 1]; count int64 [vocabulary].
    """

    self_similarity: np.ndarray
    anisotropy: np.ndarray
    intra_context: np.ndarray
    count: np.ndarray

    @property
    def adjusted(self) -> np.ndarray:
        return self.self_similarity - self.anisotropy[:, None]


@dataclass(frozen=True)
class ContextSums:
    """What a pass over some windows adds up; sums of parts are the sum of the whole. unit float64 [layers + 1, vocabulary, hidden]: sums of
    unit vectors; intra float64 [layers + 1]; count int64 [vocabulary].
    """

    unit: np.ndarray
    intra: np.ndarray
    count: np.ndarray

    def __add__(self, other: ContextSums) -> ContextSums:
        return ContextSums(self.unit + other.unit, self.intra + other.intra, self.count + other.count)

    def profile(self) -> ContextProfile:
        squared = (self.unit**2).sum(axis=-1)
        pairs = self.count * (self.count - 1.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            similarity = np.where(pairs > 0, (squared - self.count) / pairs, np.nan)
        total = self.count.sum()
        between = (self.unit.sum(axis=1) ** 2).sum(axis=-1) - squared.sum(axis=1)
        anisotropy = between / max(total**2 - float((self.count.astype(float) ** 2).sum()), 1.0)
        return ContextProfile(similarity, anisotropy, self.intra / max(total, 1), self.count)


def context_profile(model: BertForMaskedLM, batches: Sequence[MicroBatch], vocabulary_size: int) -> ContextProfile:
    return context_sums(model, batches, vocabulary_size).profile()


@torch.inference_mode()
def context_sums(model: BertForMaskedLM, batches: Sequence[MicroBatch], vocabulary_size: int) -> ContextSums:
    """One pass over unmasked windows. Memory: layers x vocabulary x hidden. Special tokens take no part."""
    device = for_prediction(model)
    layers, hidden_size = model.config.num_hidden_layers + 1, model.config.hidden_size
    sums = torch.zeros(layers, vocabulary_size, hidden_size, dtype=torch.float64)
    count = np.zeros(vocabulary_size, np.int64)
    intra = np.zeros(layers)
    for batch in batches:
        ids = torch.from_numpy(batch.input_ids)
        mask = torch.from_numpy(batch.attention_mask).to(device)
        states = model.bert(ids.to(device), attention_mask=mask, output_hidden_states=True).hidden_states
        is_word = (ids >= FIRST_BASE_ID) & (mask.cpu() > 0)
        count += np.bincount(ids[is_word].numpy(), minlength=vocabulary_size)
        for layer, state in enumerate(states):
            state = state.float().cpu()
            unit = torch.nn.functional.normalize(state, dim=-1)
            sums[layer].index_add_(0, ids[is_word], unit[is_word].double())
            window = torch.nn.functional.normalize((state * is_word[..., None]).sum(dim=1), dim=-1)
            intra[layer] += float((unit * window[:, None]).sum(dim=-1)[is_word].double().sum())
    return ContextSums(sums.numpy(), intra, count)


@dataclass(frozen=True)
class ExplainableVariance:
    """share: of a token's vectors (uncentred) explained by their first principal component, float64 [vocabulary], NaN below `at_least`
    vectors. baseline: the same for as many vectors of mixed tokens, the anisotropy that Ethayarajh subtracts. n: vectors of each.
    """

    share: np.ndarray
    baseline: np.ndarray
    n: np.ndarray

    @property
    def adjusted(self) -> np.ndarray:
        return self.share - self.baseline


@torch.inference_mode()
def explainable_variance(
    model: BertForMaskedLM, batches: Sequence[MicroBatch], vocabulary_size: int, *, per_token: int = 64, at_least: int = 16, seed: int = 0
) -> ExplainableVariance:
    """Maximum explainable variance of the last layer, from a reservoir of `per_token` occurrences of each token (Vitter's algorithm R,
    seeded). Memory: vocabulary x per_token x hidden.
    """
    device = for_prediction(model)
    random = np.random.default_rng([seed, 0x4D4556])
    kept = np.zeros((vocabulary_size, per_token, model.config.hidden_size), np.float32)
    seen = np.zeros(vocabulary_size, np.int64)
    for batch in batches:
        ids = torch.from_numpy(batch.input_ids)
        hidden = model.bert(ids.to(device), attention_mask=torch.from_numpy(batch.attention_mask).to(device)).last_hidden_state
        flat, vectors = batch.input_ids.ravel(), hidden.float().cpu().flatten(0, 1).numpy()
        words = np.flatnonzero((flat >= FIRST_BASE_ID) & (batch.attention_mask.ravel() > 0))
        tokens = flat[words]
        order = np.argsort(tokens, kind="stable")
        first = np.searchsorted(tokens[order], tokens[order])  # where the token's group begins
        number = np.empty(len(words), np.int64)
        number[order] = np.arange(len(words)) - first
        number += seen[tokens]  # this is the how-manieth occurrence of its token
        place = np.where(number < per_token, number, (random.random(len(words)) * (number + 1)).astype(np.int64))
        taken = place < per_token
        kept[tokens[taken], place[taken]] = vectors[words[taken]]
        seen += np.bincount(tokens, minlength=vocabulary_size)
    n = np.minimum(seen, per_token)
    share, baseline = np.full(vocabulary_size, np.nan), np.full(vocabulary_size, np.nan)
    used = np.flatnonzero(n >= at_least)
    mixed = {int(size): _mixed_share(kept, n, used, int(size), random) for size in np.unique(n[used])} if len(used) else {}
    for token in used:
        share[token], baseline[token] = _first_share(kept[token, : n[token]]), mixed[int(n[token])]
    return ExplainableVariance(share, baseline, n)


def _mixed_share(kept: np.ndarray, n: np.ndarray, used: np.ndarray, size: int, random: np.random.Generator, draws: int = 10) -> float:
    """Mean share of the first component in sets of `size` vectors, each of a token and an occurrence drawn at random."""
    shares = []
    for _ in range(draws):
        tokens = random.choice(used, size)
        shares.append(_first_share(kept[tokens, (random.random(size) * n[tokens]).astype(np.int64)]))
    return float(np.mean(shares))


def _first_share(vectors: np.ndarray) -> float:
    squared = np.linalg.svd(vectors.astype(np.float64), compute_uv=False) ** 2
    return float(squared[0] / max(squared.sum(), np.finfo(float).tiny))
