"""A small genome behind a store-like object, for tables of intervals."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from grover_dist.config import SplitSettings, config_from
from grover_dist.genome.stage import build_genome, open_genome
from grover_dist.run_dir import RunDir


@pytest.fixture(scope="session")
def genome(tmp_path_factory):
    """Record `7` of 3,000 bases with Ns at 1,000..1,009, and its letters as text."""
    folder = tmp_path_factory.mktemp("genome")
    letters = np.frombuffer(b"ACGT", np.uint8)[np.random.default_rng(0).integers(0, 4, 3_000)].tobytes().decode()
    letters = letters[:1_000] + "N" * 10 + letters[1_010:]
    (folder / "g.fa").write_text(f">7\n{letters}\n")
    config = config_from({"run": {"dir": str(folder / "run")}, "genome": {"fasta": str(folder / "g.fa")}})
    config = config.model_copy(update={"split": SplitSettings(block_bp=1_000, held_out_fraction=0.3)})
    opened = open_genome(build_genome(config, RunDir.open(config), say=lambda text: None))
    return SimpleNamespace(config=config, letters=letters, contigs=opened.contigs, base=opened.bases)


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    """Folder of a published model with random weights, large enough to make predictions differ, and three merges."""
    import torch

    from grover_dist.bpe.vocabulary import Vocabulary
    from grover_dist.config import ModelSettings
    from grover_dist.finetune.exported import save_finetuned
    from grover_dist.model.bert import bert_config, classifier

    vocabulary = Vocabulary(np.array([5, 9, 7]), np.array([8, 6, 7]), np.array([9, 8, 7]))  # AT, ATC, GG
    settings = ModelSettings(layers=2, heads=2, hidden=16, feed_forward=32, positions=34, dropout=0.0)
    model = classifier(bert_config(settings, vocabulary.size), 2, seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8)
    folder = tmp_path_factory.mktemp("published")
    task = {"task": "t", "length_bp": [40, 50, 60]}
    save_finetuned(model, folder, vocabulary, 3, pooling="mean", classes=["no", "yes"], positions=34, task=task)
    return folder
