"""A small genome with a learned corpus, and settings of a model that trains in seconds."""

import pytest

from grover_dist.config import Config, config_from
from grover_dist.corpus.build import build_corpus
from grover_dist.genome.stage import build_genome
from grover_dist.pretrain.candidate import pretrain_candidate
from grover_dist.run_dir import Artifact, RunDir
from grover_dist.training.ranks import Ranks

CYCLES = 40


def small_config(folder) -> Config:
    return config_from(
        {
            "run": {"dir": str(folder)},
            "genome": {
                "synthetic": {
                    "length_bp": 120_000,
                    "contigs": 2,
                    "isochore_bp": 10_000,
                    "promoters": 10,
                    "ctcf_sites": 10,
                    "tandem_repeats": 3,
                }
            },
            "bpe": {"cycles": CYCLES},
            "split": {"block_bp": 5_000},
            "windows": {"max_tokens": 60},
            "model": {"layers": 1, "heads": 2, "hidden": 32, "feed_forward": 64, "positions": 64},
            "selection": {"input_bp": 50},
            "pretrain": {
                "candidates": [CYCLES],
                "budget_bases": 60_000,
                "batch_windows": 16,
                "micro_batch_windows": 4,
                "evaluate_windows": 30,
                "evaluations": 3,
                "checkpoint_every_steps": 4,
                "optimizer": {"learning_rate": 0.01},
            },
            "tracking": {"log_every_steps": 1},
        }
    )


@pytest.fixture(scope="session")
def one_rank() -> Ranks:
    return Ranks.join()


@pytest.fixture(scope="session")
def config(tmp_path_factory) -> Config:
    return small_config(tmp_path_factory.mktemp("pretrain") / "run")


@pytest.fixture(scope="session")
def run(config) -> RunDir:
    return RunDir.open(config)


@pytest.fixture(scope="session")
def corpus(config, run) -> Artifact:
    return build_corpus(config, run, build_genome(config, run, say=lambda line: None), say=lambda line: None)


@pytest.fixture(scope="session")
def pretrained(config, run, corpus, one_rank) -> Artifact:
    return pretrain_candidate(config, run, corpus, CYCLES, budget_bases=config.pretrain.budget_bases, ranks=one_rank, say=lambda line: None)
