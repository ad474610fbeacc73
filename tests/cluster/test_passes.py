from __future__ import annotations

import pickle
import shutil

import pytest

from grover_dist.cluster.passes import _call_beside_files
from grover_dist.config import config_from
from grover_dist.corpus.build import build_corpus
from grover_dist.corpus.corpus import Corpus
from grover_dist.genome.stage import build_genome
from grover_dist.run_dir import RunDir
from tests.pretrain.small_run import CYCLES, small_config


def n_tokens(corpus, cycles):
    return len(corpus.vocabulary.strings(cycles))


def test_a_part_on_a_machine_without_the_files_copies_them_from_the_bucket(bucket, tmp_path):
    plain = small_config(tmp_path).model_dump(mode="json")
    config = config_from(plain | {"run": {"dir": f"{bucket}/run", "cache": str(tmp_path / "cache")}})
    run = RunDir.open(config)
    corpus = build_corpus(config, run, build_genome(config, run, say=lambda _: None), say=lambda _: None)
    line = pickle.dumps((Corpus.open(corpus), CYCLES))
    expected = n_tokens(*pickle.loads(line))
    shutil.rmtree(corpus.path)
    with pytest.raises(Exception, match="learn"):
        pickle.loads(line)
    assert _call_beside_files(run, [corpus], n_tokens, line) == expected > CYCLES
