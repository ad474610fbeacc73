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
