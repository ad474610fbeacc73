"""A candidate's turn in a gang: pretraining, then next-k-mer prediction for every k, in the same processes."""

from __future__ import annotations

from collections.abc import Callable

from grover_dist.config import Config
from grover_dist.pretrain.candidate import pretrain_candidate
from grover_dist.run_dir import Artifact, RunDir
from grover_dist.selection.evaluate import evaluate_candidate
from grover_dist.training.ranks import Ranks


def run_trial(
    config: Config,
    run: RunDir,
    *,
    corpus: Artifact,
    task: Artifact,
    cycles: int,
    budget_bases: int,
    ranks: Ranks,
    say: Callable[[str], None] = print,
    continue_from: Artifact | None = None,
    warm_from: Artifact | None = None,
    early: bool = False,
) -> dict[str, Artifact]:
    """The "pretrain" and "kmer" artefacts of one candidate on one rung. Collective; what is complete is skipped.

    early: a rung before the last, which is scored with `selection.ladder.probe` where that is set.
    """
    pretrained = pretrain_candidate(
        config, run, corpus, cycles, budget_bases=budget_bases, ranks=ranks, say=say, continue_from=continue_from, warm_from=warm_from
    )
    head = config.selection.ladder.probe if early else None
    evaluation = evaluate_candidate(config, run, corpus, task, pretrained, cycles=cycles, ranks=ranks, head=head, say=say)
    return {"pretrain": pretrained, "kmer": evaluation}
