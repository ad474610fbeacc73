"""The real chr22 piece behind a store-like object, read once for all builders."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from grover_dist.config import config_from
from grover_dist.genome.stage import build_genome, open_genome
from grover_dist.run_dir import RunDir


@pytest.fixture(scope="session")
def chr22(data_dir, tmp_path_factory):
    fasta = data_dir / "human" / "hg19_chr22_1-22000000.fa.gz"
    folder = tmp_path_factory.mktemp("chr22")
    config = config_from({"run": {"dir": str(folder / "run")}, "genome": {"fasta": str(fasta)}})
    opened = open_genome(build_genome(config, RunDir.open(config), say=lambda text: None))
    return SimpleNamespace(config=config, contigs=opened.contigs, base=opened.bases)
