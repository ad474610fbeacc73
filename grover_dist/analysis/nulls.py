"""The model trained on a shuffled genome: what a model of the same size makes of the same words when their order means nothing."""

from __future__ import annotations

from collections.abc import Callable

from grover_dist.config import Config
from grover_dist.corpus.shuffled import shuffle_corpus
from grover_dist.pretrain.candidate import pretrain_candidate
from grover_dist.run_dir import Artifact, RunDir
from grover_dist.training.ranks import Ranks

STAGE = "shuffled-model"


def pretrain_shuffled(
    config: Config, run: RunDir, *, corpus: Artifact, cycles: int, ranks: Ranks, say: Callable[[str], None] = print
) -> dict[str, Artifact]:
    """Make the shuffled corpus and pretrain on `analysis.shuffled_fraction` of the budget. Collective; complete parts are skipped."""
    shuffled = run.here(ranks.on_main(lambda: shuffle_corpus(config, run, corpus, cycles, say=say)))
    budget = max(1, round(config.analysis.shuffled_fraction * config.pretrain.budget_bases))
    model = pretrain_candidate(config, run, shuffled, cycles, budget_bases=budget, ranks=ranks, say=say, stage=STAGE)
    return {"shuffled": model}
