"""What a "kmer" artefact says, as arrays, and its comparison with the others on the configured criterion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from grover_dist.config import Config
from grover_dist.errors import UserError
from grover_dist.run_dir import Artifact
from grover_dist.selection import statistics
from grover_dist.selection.statistics import Comparison

LOSSES = ("bits_per_base", "unigram_normalized_loss")  # criteria that are one number of pretraining each; less is better


@dataclass(frozen=True)
class KmerScores:
    """correct, twin bool[seeds, ks, positions]; nats float64[ks]: mean negative log probability of the truth; block int32[positions]."""

    ks: tuple[int, ...]
    correct: np.ndarray
    twin: np.ndarray
    nats: np.ndarray
    block: np.ndarray

    @classmethod
    def open(cls, artifact: Artifact) -> KmerScores:
        with pa.memory_map(str(artifact.file("predictions.arrow"))) as source:
            table = pa.ipc.open_file(source).read_all()
            n = int(table["position"].to_numpy().max()) + 1
            seeds = int(table["seed"].to_numpy().max()) + 1
            shape = (seeds, len(table) // (seeds * n), n)
            ks = tuple(int(k) for k in table["k"].to_numpy().reshape(shape)[0, :, 0])
            correct, twin = (table[f"correct_{arm}"].to_numpy().reshape(shape) for arm in ("pretrained", "twin"))
            nats = -table["log_prob_pretrained"].to_numpy().reshape(shape).mean(axis=(0, 2), dtype=np.float64)
            return cls(ks, correct, twin, nats, table["block"].to_numpy()[:n].copy())


@dataclass(frozen=True)
class BaselineScores:
    """By name (majority, markov, forest): bool[ks, positions]."""

    correct: Mapping[str, np.ndarray]

    @classmethod
    def open(cls, artifact: Artifact) -> BaselineScores:
        with pa.memory_map(str(artifact.file("baselines.arrow"))) as source:
            table = pa.ipc.open_file(source).read_all()
            n = int(table["position"].to_numpy().max()) + 1
            return cls({name: table[name].to_numpy().reshape(-1, n) for name in ("majority", "markov", "forest")})


def compare_scores(config: Config, scores: Mapping[int, KmerScores], *, criterion: str | None = None) -> Comparison:
    """Compare candidates on `mean_accuracy` or `mean_rank` (default: the configured one). All must have the same positions and seeds."""
    names = sorted(scores)
    shapes = {scores[name].correct.shape for name in names}
    if len(shapes) != 1:
        raise UserError(
            "the candidates were not evaluated on the same positions with the same head seeds",
            got=f"{len(shapes)} different shapes among {names}",
            hint="evaluate all of them with the same settings",
        )
    stacked = np.stack([scores[name].correct for name in names])
    sums, sizes = statistics.block_sums(stacked, scores[names[0]].block)
    selection = config.selection
    return statistics.compare(
        names,
        sums,
        sizes,
        criterion=criterion or selection.criterion,
        samples=selection.bootstrap_samples,
        confidence=selection.confidence,
        seed=config.seed,
    )


def compare_evaluations(config: Config, evaluations: Mapping[int, Artifact], pretrained: Mapping[int, Artifact]) -> Comparison:
    """Candidates (cycles -> "kmer" and "pretrain" artefacts) on the configured criterion. What the ladder asks after each rung."""
    criterion = config.selection.criterion
    if criterion in LOSSES:
        names = sorted(evaluations)
        return statistics.compare_plain(names, [-float(pretrained[name].counts[criterion]) for name in names], config.selection.confidence)
    return compare_scores(config, {cycles: KmerScores.open(artifact) for cycles, artifact in evaluations.items()})
