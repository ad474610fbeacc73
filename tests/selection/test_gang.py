"""Two ranks evaluate and fine-tune as one rank does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from grover_dist.corpus.build import build_corpus
from grover_dist.run_dir import RunDir, read_artifact
from grover_dist.training.ranks import Ranks
from tests.conftest import REPOSITORY
from tests.selection.conftest import add_models
from tests.selection.gang_worker import work


def start_gang(world, port, *arguments):
    environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world), "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.selection.gang_worker", *map(str, arguments)],
            cwd=REPOSITORY,
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(world)
    ]
    texts = [rank.communicate(timeout=300)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0] * world, "\n".join(texts)


@pytest.mark.distributed
def test_two_ranks_give_what_one_gives(random_run, tmp_path):
    run = RunDir(tmp_path / "one")
    shutil.copytree(random_run.run.path, run.path)
    genome = read_artifact(run.path / random_run.genome.path.relative_to(random_run.run.path))
    build_corpus(random_run.config, run, genome, say=lambda text: None)
    add_models(run, random_run.config, (20,))
    generator = np.random.default_rng(0)
    rows = ["".join(generator.choice(list("ACGT"), 40)) + f",{index % 2}" for index in range(120)]
    for name in ("one", "two"):
        if name == "two":
            shutil.copytree(run.path, tmp_path / "two")
        (tmp_path / name / "table.csv").write_text("\n".join(["sequence,label", *rows]) + "\n")
    start_gang(2, 29_600 + os.getpid() % 300, tmp_path / "two", 20, tmp_path / "two.json")
    seen = json.loads((tmp_path / "two.json").read_text())
    assert seen[0] == seen[1]
    paths = {"one": work(tmp_path / "one", 20, Ranks.join()), "two": seen[0]}
    results = {name: [read_artifact(type(tmp_path)(path)) for path in both] for name, both in paths.items()}
    tables = {}
    for name, (kmer, _) in results.items():
        with pa.memory_map(str(kmer.file("predictions.arrow"))) as source:
            tables[name] = pa.ipc.open_file(source).read_all()
    for column in ("log_prob_pretrained", "log_prob_twin"):
        # The same weights up to rounding: the global batches, their order and the rates do not depend on the ranks. No dropout here.
        np.testing.assert_allclose(tables["one"][column].to_numpy(), tables["two"][column].to_numpy(), atol=2e-3)
    assert results["one"][0].manifest["settings_hash"] == results["two"][0].manifest["settings_hash"]
    metrics = [json.loads(tuned.file("metrics.json").read_text()) for _, tuned in results.values()]
    assert metrics[0]["rows"] == metrics[1]["rows"]
    assert metrics[0]["methods"]["TF-IDF forest on tokens"] == metrics[1]["methods"]["TF-IDF forest on tokens"]
