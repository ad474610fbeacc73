"""A small genome with a learned corpus, and one pretrained candidate."""

import pytest

from grover_dist.config import Config
from grover_dist.corpus.build import build_corpus
from grover_dist.genome.stage import build_genome
from grover_dist.pretrain.candidate import pretrain_candidate
from grover_dist.run_dir import Artifact, RunDir
from grover_dist.training.ranks import Ranks
from tests.pretrain.small_run import CYCLES, small_config


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
