"""The learn stage: the same files for any workers, after any interruption; levels as the slow oracle has them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import pairwise

import numpy as np
import pytest

from grover_dist.bpe.learn import WorkerLost, call_local
from grover_dist.bpe.reference import learn_reference, learn_symmetric_reference
from grover_dist.corpus.build import build_corpus, local_workers, part_rows, worker_ranges
from grover_dist.corpus.corpus import Corpus
from grover_dist.errors import UserError
from grover_dist.genome.stage import build_genome, open_genome
from grover_dist.run_dir import RunDir, read_artifact


def quiet(_: str) -> None: ...


class Interrupted(BaseException):
    """Stands for a kill: nothing catches it."""


@pytest.fixture
def fresh(settings_for, hostile_fasta, tmp_path):
    config = settings_for(tmp_path / "run", hostile_fasta)
    run = RunDir.open(config)
    return config, run, build_genome(config, run, say=quiet)


def test_parts_depend_on_the_genome_alone_and_workers_take_whole_ones():
    for n_rows in (1, 70_000, 12_157_105, 3_000_000_000):
        size = part_rows(n_rows)
        assert size & (size - 1) == 0
        assert 2**16 <= size <= 2**24
        for workers in (1, 3, 64):
            ranges = worker_ranges(n_rows, workers)
            assert ranges[0][0] == 0
            assert ranges[-1][1] == n_rows
            assert all(a[1] == b[0] and b[0] % size == 0 for a, b in pairwise(ranges))
            assert all(start < stop for start, stop in ranges)
            assert len(ranges) == min(workers, -(-n_rows // size))


@pytest.mark.parametrize("n_workers", [1, 2])
def test_any_number_of_workers_writes_the_same_files(learned, fresh, n_workers):
    artifact = build_corpus(*fresh, n_workers=n_workers, say=quiet)
    assert artifact.manifest["files"] == learned.artifact.manifest["files"]
    assert artifact.digest == learned.artifact.digest
    assert not artifact.file("merges.log").exists()


def test_levels_and_merges_are_the_oracles(settings_for, tmp_path):
    rng = np.random.default_rng(9)
    sequences = ["".join(rng.choice(list("AACGT"), n)) + "A" * 40 for n in (700, 3, 260)]
    (tmp_path / "g.fa").write_text(f">a\n{sequences[0]}N{sequences[1]}\n>b\n{sequences[2]}\n")
    config = settings_for(tmp_path / "run", tmp_path / "g.fa", bpe={"cycles": 60}, pretrain={"candidates": [60]})
    run = RunDir.open(config)
    corpus = Corpus.open(build_corpus(config, run, build_genome(config, run, say=quiet), say=quiet))
    merges, levels = learn_reference([["ACGT".index(letter) for letter in sequence] for sequence in sequences], 60)
    vocabulary = corpus.vocabulary
    assert list(zip((vocabulary.left - 5).tolist(), (vocabulary.right - 5).tolist(), vocabulary.count.tolist(), strict=True)) == merges
    assert corpus.store.level(0, corpus.store.n_rows).tolist() == sum(levels, [])  # noqa: RUF017


def test_a_rerun_is_skipped(learned):
    said = []
    again = build_corpus(learned.config, learned.run, learned.genome, say=said.append)
    assert again.path == learned.artifact.path
    assert "skipped" in said[0]


@pytest.mark.parametrize(("method", "count"), [("round", 0), ("round", 11), ("write_parts", 0)])
def test_an_interrupted_stage_goes_on_and_ends_with_the_same_files(learned, fresh, method, count):
    calls = {"round": 0, "write_parts": 0, "start": 0, "replay": 0}

    def call(workers, name, args):
        if name == method and calls[name] == count:
            if name == "write_parts":
                call_local(workers[:1], name, args[:1])  # half of the store is there already
            raise Interrupted
        calls[name] += 1
        return call_local(workers, name, args)

    config, run, genome = fresh
    with pytest.raises(Interrupted):
        build_corpus(config, run, genome, n_workers=2, call=call, say=quiet)
    assert run.latest("learn") is None
    said = []
    artifact = build_corpus(config, run, genome, n_workers=3, say=said.append)
    assert artifact.manifest["files"] == learned.artifact.manifest["files"]
    if count or method == "write_parts":
        assert any("in the log" in line for line in said)


@pytest.mark.parametrize(("method", "expected"), [("round", [3, 1, 1]), ("write_parts", [3, 1, 1])])
def test_a_lost_worker_is_made_again(learned, fresh, method, expected):
    lost = []

    def call(workers, name, args):
        if name == method and len(lost) < 2:
            lost.append(len(lost))
            raise WorkerLost(len(lost) - 1)
        return call_local(workers, name, args)

    made = []

    def make_workers(genome_path, row_ranges):
        made.append(list(row_ranges))
        return local_workers(genome_path, row_ranges)

    artifact = build_corpus(*fresh, n_workers=3, make_workers=make_workers, call=call, say=quiet)
    assert artifact.manifest["files"] == learned.artifact.manifest["files"]
    assert [len(ranges) for ranges in made] == expected


def test_workers_that_die_for_ever(fresh):
    def call(workers, name, args):
        if name == "round":
            raise WorkerLost(0)
        return call_local(workers, name, args)

    with pytest.raises(UserError, match="lost again and again"):
        build_corpus(*fresh, n_workers=2, call=call, say=quiet)


def test_learning_on_both_strands_gives_the_store_of_its_oracle(settings_for, hostile_fasta, tmp_path):
    config = settings_for(tmp_path / "run", hostile_fasta, bpe={"strand": "symmetric", "cycles": 8}, pretrain={"candidates": [8]})
    run = RunDir.open(config)
    genome = build_genome(config, run, say=quiet)
    corpus = Corpus.open(build_corpus(config, run, genome, n_workers=2, say=quiet))
    opened = open_genome(genome)
    contigs = [opened.bases(start, stop).tolist() for start, stop in pairwise(opened.contigs.row_start.tolist())]
    merges, levels = learn_symmetric_reference(contigs, 8)
    found = corpus.vocabulary
    pairs = zip((found.left - 5).tolist(), (found.right - 5).tolist(), found.count.tolist(), strict=True)
    assert list(pairs) == merges
    assert corpus.store.level(0, corpus.store.n_rows).tolist() == [level for contig in levels for level in contig]


def test_more_cycles_than_the_genome_supports(settings_for, tmp_path):
    (tmp_path / "g.fa").write_text(">a\nACGTACGTTGCA\n")
    config = settings_for(tmp_path / "run", tmp_path / "g.fa", bpe={"cycles": 50}, pretrain={"candidates": [2]})
    run = RunDir.open(config)
    with pytest.raises(UserError, match=r"cycles.*bpe\.cycles="):
        build_corpus(config, run, build_genome(config, run, say=quiet), say=quiet)
    assert run.latest("learn") is None


KILLED = """
import sys
from pathlib import Path
from grover_dist.config import load_config
from grover_dist.corpus.build import build_corpus
from grover_dist.genome.stage import build_genome, open_genome
from grover_dist.run_dir import RunDir
config = load_config(sys.argv[1])
run = RunDir.open(config)
build_corpus(config, run, build_genome(config, run), n_workers=2)
"""


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.05, 0.2, 0.5, 1.0])
def test_sigkill_at_any_moment(learned, fresh, tmp_path, seconds):
    config, run, genome = fresh
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path / "config.yaml")], env={**os.environ}, stdout=subprocess.DEVNULL)
    partial = run.path / "learn"
    while not partial.exists() and process.poll() is None:
        time.sleep(0.01)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.wait()
    artifact = build_corpus(config, run, genome, say=quiet)
    assert artifact.manifest["files"] == learned.artifact.manifest["files"]
    assert read_artifact(artifact.path, checksums=True)
    shutil.rmtree(run.path)
