"""Two species in one corpus: a chromosome of yeast and a piece of human chromosome 22, with sampling weights."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from grover_dist.config import config_from
from grover_dist.corpus.build import build_corpus
from grover_dist.corpus.corpus import Corpus
from grover_dist.corpus.windows import make_windows
from grover_dist.errors import UserError
from grover_dist.genome.fasta import read_fasta
from grover_dist.genome.split import split_blocks
from grover_dist.genome.stage import build_genome
from grover_dist.pretrain.candidate import candidate_plan, hashed_settings, masked_batches, weighted_draws
from grover_dist.run_dir import RunDir

CYCLES = 50


def quiet(_: str) -> None: ...


@pytest.fixture(scope="module")
def two(data_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    (yeast,) = islice(read_fasta(data_dir / "yeast" / "R64-1-1.fa.gz", include=("I",)), 1)
    (human,) = islice(read_fasta(data_dir / "human" / "hg19_chr22_1-22000000.fa.gz"), 1)
    (folder / "yeast.fa").write_bytes(b">I\n" + yeast.letters.tobytes() + b"\n")
    (folder / "hg19.chr22.fa").write_bytes(b">chr22\n" + human.letters[16_900_000:17_300_000].tobytes() + b"\n")
    config = config_from(
        {
            "run": {"dir": str(folder / "run")},
            "genome": {"fasta": [str(folder / "yeast.fa"), str(folder / "hg19.chr22.fa")], "assemblies": ["R64-1-1", "hg19"]},
            "bpe": {"cycles": CYCLES},
            "split": {"block_bp": 20_000},
            "pretrain": {"candidates": [CYCLES], "batch_windows": 24, "micro_batch_windows": 8, "genome_weights": {"R64-1-1": 2.0}},
        }
    )
    run = RunDir.open(config)
    genome = build_genome(config, run, say=quiet)
    return config, genome, Corpus.open(build_corpus(config, run, genome, say=quiet))


@pytest.fixture(scope="module")
def windows(two):
    config, _, corpus = two
    return make_windows(corpus.store, split_blocks(corpus.store.contigs, config.split, 1), config.windows, CYCLES, 1)


def test_the_manifest_names_assemblies_and_sequences(two, data_dir):
    _, genome, corpus = two
    counts = genome.manifest["counts"]
    assert {name: found["records"] for name, found in counts["assemblies"].items()} == {"R64-1-1": 1, "hg19": 1}
    assert counts["assemblies"]["R64-1-1"]["bases"] == 230_218
    assert sum(found["bases"] for found in counts["assemblies"].values()) == corpus.store.n_rows
    assert counts["sequences"]["I"] == "SQ.lZyxiD_ByprhOUzrR1o1bq0ezO_1gkrn"  # the name of yeast's chromosome I in public refget servers
    records = json.loads(genome.file("contigs.json").read_text())["records"]
    assert [(record["name"], record["assembly"]) for record in records] == [("I", "R64-1-1"), ("chr22", "hg19")]


def test_a_window_of_weight_two_is_drawn_twice_an_epoch(two, windows):
    config, _, corpus = two
    draws = weighted_draws(corpus.store.contigs, windows, config.pretrain.genome_weights)
    yeast = corpus.store.contigs.assembly_of(windows.train.row_start) == 0
    assert 0 < yeast.sum() < len(yeast)
    batches = masked_batches(config, corpus, windows, CYCLES, 1)
    steps = -(-2 * draws.per_epoch // config.pretrain.batch_windows)
    drawn = [batches.samples(step) for step in range(steps)]
    in_order = draws.at(np.arange(2 * draws.per_epoch), seed=config.seed)[1]
    counts = np.bincount(in_order, minlength=len(yeast))
    assert np.array_equal(counts, np.where(yeast, 4, 2))
    together = np.concatenate([indices for _, indices in drawn])
    assert (np.bincount(together, minlength=len(yeast)) - counts).sum() == steps * config.pretrain.batch_windows - len(in_order)


@pytest.mark.parametrize("world", [2, 3, 8])
def test_ranks_change_nothing(two, windows, world):
    config, _, corpus = two
    draws = weighted_draws(corpus.store.contigs, windows, {"hg19": 0.7, "R64-1-1": 1.3})
    batches = replace(masked_batches(config, corpus, windows, CYCLES, 1), draws=draws)

    def samples(step: int, rank: int, of: int) -> list[tuple[int, int]]:
        return list(zip(*(array.tolist() for array in batches.samples(step, rank, of)), strict=True))

    for step in (0, 7, 1_000):
        assert sorted(samples(step, 0, 1)) == sorted(sample for rank in range(world) for sample in samples(step, rank, world))


def test_steps_follow_the_mean_window_that_is_drawn(two, windows):
    config, _, corpus = two
    yeast = corpus.store.contigs.assembly_of(windows.train.row_start) == 0
    bases = windows.train.row_stop - windows.train.row_start
    draws = weighted_draws(corpus.store.contigs, windows, {"R64-1-1": 1_000.0})
    plan = candidate_plan(config, windows, CYCLES, 10_000_000, draws=draws)
    assert plan.total_steps == pytest.approx(10_000_000 / (24 * bases[yeast].mean()), rel=0.01)


def test_weights_belong_to_the_result(two):
    config = two[0]
    other = config_from(config.model_dump(mode="json") | {"pretrain": config.pretrain.model_dump() | {"genome_weights": {}}})
    assert hashed_settings(config, CYCLES, 1) != hashed_settings(other, CYCLES, 1)


def test_a_genome_that_is_not_there(two, windows):
    contigs = two[2].store.contigs
    assert weighted_draws(contigs, windows, {}) is None and weighted_draws(contigs, windows, {"hg19": 1.0}) is None
    with pytest.raises(UserError, match=r"no genome 'hg38'.*nearest: 'hg19'"):
        weighted_draws(contigs, windows, {"hg38": 2.0})
