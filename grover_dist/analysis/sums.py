"""One pass of one model over the held-out windows as sums: made part by part, on any machine, and added in any order.

Memory: layers x vocabulary x hidden. Cost: linear in the windows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

from transformers.models.bert.modeling_bert import BertForMaskedLM

from grover_dist.analysis.context import ContextSums, context_sums
from grover_dist.analysis.embeddings import TWIN_SEED, ContextualMeans, contextual_means, held_out_batches, load_model, unmask
from grover_dist.analysis.masked import MaskedPerformance, masked_performance
from grover_dist.config import Config
from grover_dist.corpus.corpus import Corpus
from grover_dist.model.bert import masked_lm
from grover_dist.run_dir import Artifact

MapParts = Callable[[Callable[..., "ModelSums"], Sequence[tuple[Any, ...]]], "ModelSums"]


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


def sums_of_part(config: Config, corpus: Artifact, pretrained: Artifact, name: str, cycles: int, part: int, parts: int) -> ModelSums:
    """Every `parts`-th held-out window from the `part`-th. name: "trained" for the artefact's model, "twin" for its random weights."""
    opened, model = Corpus.open(corpus), load_model(pretrained)
    if name == "twin":
        model = masked_lm(model.config, seed=config.seed ^ TWIN_SEED)
    return _sums(model, config, opened, cycles, part, parts)


def model_sums(
    config: Config,
    corpus: Artifact,
    pretrained: Artifact,
    cycles: int,
    *,
    name: str = "trained",
    parts: int = 1,
    map_parts: MapParts | None = None,
) -> ModelSums:
    """The sums over all windows; map_parts: where the parts are made (one after the other here, unless told otherwise)."""
    arguments = [(config, corpus, pretrained, name, cycles, part, parts) for part in range(parts)]
    return (map_parts or map_here)(sums_of_part, arguments)


def map_here(function: Callable[..., ModelSums], arguments: Sequence[tuple[Any, ...]]) -> ModelSums:
    return reduce(lambda a, b: a + b, (function(*line) for line in arguments))


def _sums(model: BertForMaskedLM, config: Config, corpus: Corpus, cycles: int, part: int, parts: int) -> ModelSums:
    batches = held_out_batches(config, corpus, cycles, part, parts)
    plain, size = [unmask(batch) for batch in batches], len(corpus.vocabulary.strings(cycles))
    return ModelSums(
        sum(len(batch.input_ids) for batch in batches),
        contextual_means(model, plain, size),
        context_sums(model, plain, size),
        masked_performance(model, batches, size),
    )
