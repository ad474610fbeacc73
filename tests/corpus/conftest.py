"""A small learned genome with everything that is hard: N runs, tiny contigs, long runs of one base, tandem repeats, lower case."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from grover_dist.bpe.reference import encode_reference
from grover_dist.config import Config, config_from
from grover_dist.corpus.build import build_corpus
from grover_dist.corpus.corpus import Corpus
from grover_dist.corpus.store import Store, part_name, write_part
from grover_dist.genome.stage import build_genome
from grover_dist.run_dir import Artifact, RunDir

CYCLES = 120


def hostile_genome(seed: int = 3) -> str:
    rng = np.random.default_rng(seed)

    def random(n: int) -> str:
        return "".join(rng.choice(list("ACGT"), n, p=[0.32, 0.18, 0.18, 0.32]))

    word = random(40)
    long = "".join(random(int(rng.integers(20, 90))) + word for _ in range(1_500))
    repeats = (
        "A" * 6_000 + "C" + "A" * 5_999 + "CAG" * 900 + "N" + "ACGTTGCA" * 700 + random(3_000).lower() + "NNNN" + "G" + "N" + "AC" + "N" * 9
    )
    return f">big\n{long}\n>repeats some\n{repeats}\n>only_n\nNNNNN\n>short\nACGTACGT\n>masked\n{random(30_000).lower()}{random(25_000)}\n"


@dataclass(frozen=True)
class Learned:
    config: Config
    run: RunDir
    genome: Artifact
    artifact: Artifact
    corpus: Corpus

    @property
    def store(self) -> Store:
        return self.corpus.store

    def reference_ids(self, contig: int, cycles: int) -> list[int]:
        """Ids of one contig by the slow oracle: every merge in order over the whole contig."""
        start, stop = self.store.contigs.row_start[contig : contig + 2]
        merges = [(int(a) - 5, int(b) - 5) for a, b in zip(self.corpus.vocabulary.left, self.corpus.vocabulary.right, strict=True)]
        return [token + 5 for token in encode_reference(self.store.base(start, stop).tolist(), merges[:cycles])]


def make_settings(folder: Path, fasta: Path, **sections) -> Config:
    return config_from(
        {
            "genome": {"fasta": str(fasta)},
            "run": {"dir": str(folder)},
            "bpe": {"cycles": CYCLES},
            "pretrain": {"candidates": [10, CYCLES]},
            "split": {"block_bp": 8_000, "held_out_fraction": 0.3},
            "windows": {"max_tokens": 60, "min_tokens": 6},
            **sections,
        }
    )


def quiet(_: str) -> None: ...


@pytest.fixture(scope="session")
def settings_for():
    return make_settings


@pytest.fixture(scope="session")
def hostile_fasta(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("fasta") / "hostile.fa"
    path.write_text(hostile_genome())
    return path


@pytest.fixture(scope="session")
def learned(tmp_path_factory, hostile_fasta) -> Learned:
    config = make_settings(tmp_path_factory.mktemp("learned") / "run", hostile_fasta)
    run = RunDir.open(config)
    genome = build_genome(config, run, say=quiet)
    artifact = build_corpus(config, run, genome, n_workers=3, say=quiet)
    return Learned(config, run, genome, artifact, Corpus.open(artifact))


@pytest.fixture(scope="session")
def rechunked(tmp_path_factory, learned) -> Corpus:
    """The same corpus in many small parts of small record batches, so that everything crosses their edges."""
    folder = tmp_path_factory.mktemp("rechunked")
    (folder / "store").mkdir()
    for name in ("merges.txt", "contigs.json"):
        (folder / name).write_bytes(learned.artifact.file(name).read_bytes())
    store, rows = learned.store, 256
    edges = [0, 1, 1_000, 5_000, 60_000, 60_002, 131_000, store.n_rows]
    for index, (first, stop) in enumerate(pairwise(edges)):
        pieces = [(start, min(start + rows, stop)) for start in range(first, stop, rows)]
        batches = ((store.base(*piece), store.level(*piece), store.masked(*piece)) for piece in pieces)
        write_part(folder / "store" / part_name(index), batches, {"first_row": first, "learner": store.learner})
    return Corpus.open(folder)
