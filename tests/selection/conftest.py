"""A small genome in a run folder: order-0 random, so that nothing can be predicted from it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from grover_dist.config import config_from
from grover_dist.genome.stage import build_genome
from grover_dist.run_dir import RunDir
from grover_dist.selection.task import build_task


def write_fasta(path, contigs):
    """contigs: name -> base codes."""
    letters = np.frombuffer(b"ACGT", np.uint8)
    path.write_text("".join(f">{name}\n{letters[codes].tobytes().decode()}\n" for name, codes in contigs.items()))


def small_settings(folder, **selection):
    return {
        "run": {"name": "small", "dir": str(folder / "run")},
        "genome": {"fasta": str(folder / "genome.fa")},
        "bpe": {"cycles": 60},
        "split": {"block_bp": 5_000, "held_out_fraction": 0.3},
        "windows": {"max_tokens": 60, "min_tokens": 10},
        "model": {"layers": 1, "heads": 2, "hidden": 16, "feed_forward": 32, "positions": 64, "dropout": 0.0},
        "pretrain": {"candidates": [20, 60]},
        "selection": {
            "ks": [1, 2],
            "train_positions": 1_200,
            "evaluate_positions": 1_500,
            "bootstrap_samples": 300,
            "forest_trees": 10,
            "head": {"epochs": 1},
            **selection,
        },
    }


@pytest.fixture(scope="session")
def random_run(tmp_path_factory):
    """Config, run, genome and task of a 150-kb random genome with two contigs."""
    folder = tmp_path_factory.mktemp("random")
    generator = np.random.default_rng(1)
    write_fasta(folder / "genome.fa", {"one": generator.integers(0, 4, 100_000), "two": generator.integers(0, 4, 50_000)})
    config = config_from(small_settings(folder))
    run = RunDir.open(config)
    genome = build_genome(config, run, say=lambda text: None)
    task = build_task(config, run, genome, say=lambda text: None)
    return SimpleNamespace(config=config, run=run, genome=genome, task=task)


def add_models(run, config, cycles):
    """An untrained "pretrain" artefact for each of `cycles`."""
    from grover_dist.model.bert import bert_config, masked_lm, save_masked_lm

    pretrained = {}
    for count in cycles:
        settings = bert_config(config.model, count + 9)

        def write(work, settings=settings):
            save_masked_lm(settings, masked_lm(settings, seed=1).state_dict(), work.path / "model")
            work.counts["bits_per_base"] = 2.0

        pretrained[count] = run.once("pretrain", f"c{count}", write, settings={})
    return pretrained


@pytest.fixture(scope="session")
def random_models(random_run):
    from grover_dist.corpus.build import build_corpus

    learned = build_corpus(random_run.config, random_run.run, random_run.genome, say=lambda text: None)
    return SimpleNamespace(learned=learned, pretrained=add_models(random_run.run, random_run.config, (20, 60)))
