"""One pass of one model over the held-out windows as sums: made part by part, on any machine, and added in the order of the parts, so that
neither machines nor schedule change a digit.

Memory: layers x vocabulary x hidden. Cost: linear in the windows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import torch
from transformers.models.bert.modeling_bert import BertForMaskedLM
from transformers.utils import logging as transformers_logging

from grover_dist.analysis.context import ContextSums, context_sums
from grover_dist.analysis.masked import MaskedPerformance, masked_performance
from grover_dist.config import Config
from grover_dist.corpus.batches import MaskedBatches, MicroBatch
from grover_dist.corpus.corpus import Corpus
from grover_dist.corpus.windows import make_windows
from grover_dist.genome.split import split_blocks
from grover_dist.model.bert import masked_lm
from grover_dist.model.device import for_prediction
from grover_dist.run_dir import Artifact

MapParts = Callable[[Callable[..., "ModelSums"], Sequence[tuple[Any, ...]]], "ModelSums"]
TWIN_SEED = 0x7477696E
_PARTS, _PART_WINDOWS = 16, 64  # at most so many parts, of so many windows at the least


@dataclass(frozen=True)
class ContextualMeans:
    """sums float64 [vocabulary, hidden] of last-layer vectors, count int64 [vocabulary]."""

    sums: np.ndarray
    count: np.ndarray

    def __add__(self, other: ContextualMeans) -> ContextualMeans:
        return ContextualMeans(self.sums + other.sums, self.count + other.count)

    @property
    def means(self) -> np.ndarray:
        return self.sums / np.maximum(self.count, 1)[:, None]


@dataclass(frozen=True)
class ModelSums:
    """windows: how many were read."""

    windows: int
    contextual: ContextualMeans
    context: ContextSums
    masked: MaskedPerformance

    def __add__(self, other: ModelSums) -> ModelSums:
        return ModelSums(
            self.windows + other.windows,
            self.contextual + other.contextual,
            self.context + other.context,
            self.masked + other.masked,
        )


def model_sums(
    config: Config,
    corpus: Corpus,
    pretrained: Artifact,
    cycles: int,
    *,
    name: str = "trained",
    parts: int | None = None,
    map_parts: MapParts | None = None,
) -> ModelSums:
    """The sums over all windows. parts: by default a function of `analysis.windows` alone. map_parts: where they are made; one after the
    other in this process unless told otherwise.
    """
    parts = parts or max(1, min(_PARTS, config.analysis.windows // _PART_WINDOWS))
    arguments = [(config, corpus, pretrained, name, cycles, part, parts) for part in range(parts)]
    return (map_parts or map_here)(sums_of_part, arguments)


def map_here(function: Callable[..., ModelSums], arguments: Sequence[tuple[Any, ...]]) -> ModelSums:
    return reduce(lambda a, b: a + b, (function(*line) for line in arguments))


def sums_of_part(config: Config, corpus: Corpus, pretrained: Artifact, name: str, cycles: int, part: int, parts: int) -> ModelSums:
    """Every `parts`-th held-out window from the `part`-th. name: "twin" for the model's random weights."""
    model = make_model(config, pretrained, name)
    batches = held_out_batches(config, corpus, cycles, part, parts)
    plain, size = [unmask(batch) for batch in batches], len(corpus.vocabulary.strings(cycles))
    return ModelSums(
        sum(len(batch.input_ids) for batch in batches),
        contextual_means(model, plain, size),
        context_sums(model, plain, size),
        masked_performance(model, batches, size),
    )


def make_model(config: Config, pretrained: Artifact, name: str) -> BertForMaskedLM:
    """The artefact's model; with name "twin" the same architecture with random weights."""
    model = load_model(pretrained)
    return masked_lm(model.config, seed=config.seed ^ TWIN_SEED) if name == "twin" else model


def load_model(pretrained: Artifact) -> BertForMaskedLM:
    """The trained model of a pretrain artefact, ready to predict."""
    transformers_logging.disable_progress_bar()
    return BertForMaskedLM.from_pretrained(pretrained.file("model"), attn_implementation="sdpa", local_files_only=True).eval()


def held_out_batches(config: Config, corpus: Corpus, cycles: int, part: int = 0, parts: int = 1) -> list[MicroBatch]:
    """`analysis.windows` held-out windows, spread evenly, with masks that never change; every `parts`-th of them from the `part`-th."""
    split = split_blocks(corpus.store.contigs, config.split, config.seed)
    windows = make_windows(corpus.store, split, config.windows, cycles, config.seed)
    batches = MaskedBatches(
        corpus=corpus,
        windows=windows,
        cycles=cycles,
        seed=config.seed,
        batch_windows=config.pretrain.batch_windows,
        micro_batch_windows=config.pretrain.micro_batch_at_most,
        mask=config.pretrain.held_out_mask,
    )
    return batches.held_out(config.analysis.windows, part, parts)


def unmask(batch: MicroBatch) -> MicroBatch:
    """The same windows as they are in the genome."""
    ids = batch.input_ids.copy()
    ids.ravel()[batch.masked_index] = batch.labels
    return MicroBatch(ids, batch.attention_mask, batch.masked_index, batch.labels, batch.n_bases, batch.n_tokens)


@torch.inference_mode()
def contextual_means(model: BertForMaskedLM, batches: list[MicroBatch], vocabulary_size: int) -> ContextualMeans:
    """Average last-layer vector of each token over all its occurrences in the batches. Memory: vocabulary x hidden."""
    device = for_prediction(model)
    sums = torch.zeros(vocabulary_size, model.config.hidden_size, dtype=torch.float64)
    count = np.zeros(vocabulary_size, np.int64)
    for batch in batches:
        ids = torch.from_numpy(batch.input_ids)
        hidden = model.bert(ids.to(device), attention_mask=torch.from_numpy(batch.attention_mask).to(device)).last_hidden_state
        real = torch.from_numpy(batch.attention_mask.ravel() > 0)
        sums.index_add_(0, ids.ravel()[real], hidden.reshape(-1, hidden.shape[-1]).cpu()[real].double())
        count += np.bincount(batch.input_ids[batch.attention_mask > 0], minlength=vocabulary_size)
    return ContextualMeans(sums.numpy(), count)
