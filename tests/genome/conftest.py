from __future__ import annotations

from pathlib import Path

import pytest

from grover_dist.config import config_from
from grover_dist.genome.stage import build_genome, open_genome
from grover_dist.run_dir import RunDir


@pytest.fixture
def genome_of(tmp_path):
    """genome_of(text or paths, **genome settings): the opened genome stage, and its artefact as `.artifact`."""

    def make(source: str | list[Path], **settings):
        if isinstance(source, str):
            path = tmp_path / "genome.fa"
            path.write_text(source)
            source = [path]
        config = config_from({"genome": {"fasta": [str(path) for path in source], **settings}, "run": {"dir": str(tmp_path / "run")}})
        artifact = build_genome(config, RunDir.open(config), say=lambda _: None)
        genome = open_genome(artifact)
        genome.artifact = artifact
        return genome

    return make
