"""Positions of next-k-mer prediction: where they lie, and that they are the same for everybody."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grover_dist.config import SelectionSettings
from grover_dist.errors import UserError
from grover_dist.genome.split import Split, split_blocks
from grover_dist.genome.stage import open_genome
from grover_dist.selection import task as task_module
from grover_dist.selection.task import KmerTask, kmer_numbers, sample_positions


@given(
    st.integers(0, 2**30),
    st.lists(st.tuples(st.integers(1, 120), st.booleans()), min_size=2, max_size=12),
    st.integers(4, 30),
    st.integers(1, 6),
)
@settings(max_examples=60, deadline=None)
def test_no_position_leaves_its_piece_or_its_side(seed, pieces, input_bp, k):
    lengths = np.array([length for length, _ in pieces])
    split = Split(np.concatenate(([0], np.cumsum(lengths))), np.arange(len(pieces)), np.array([side for _, side in pieces]))
    span = input_bp + k
    room = np.maximum(lengths - span + 1, 0)
    selection = SelectionSettings(input_bp=input_bp, ks=(k,), train_positions=3, evaluate_positions=3)
    if (room[~split.held_out] > 0).sum() < 2 or (room[split.held_out] > 0).sum() < 2:
        with pytest.raises(UserError, match="two training blocks"):
            sample_positions(split, selection, seed)
        return
    try:
        train, validation, held_out = sample_positions(split, selection, seed)
    except UserError as error:
        assert "cannot supply" in str(error)
        return
    for rows, side in ((train, False), (validation, False), (held_out, True)):
        assert len(np.unique(rows)) == len(rows) and (np.diff(rows) > 0).all()
        first, last = split.block_of(rows), split.block_of(rows + span - 1)
        assert (first == last).all() and (split.held_out[first] == side).all()
    assert not np.intersect1d(split.block_of(train), split.block_of(validation)).size
    assert len(train) == len(held_out) == 3 and len(validation) >= 1


def test_positions_cover_all_starts_evenly():
    split = Split(np.array([0, 40, 90, 130, 200]), np.arange(4), np.array([False, True, False, True]))
    selection = SelectionSettings(input_bp=10, ks=(2, 3), train_positions=5, evaluate_positions=20)
    counts = np.zeros(200)
    for seed in range(400):
        counts[sample_positions(split, selection, seed)[2]] += 1
    possible = np.concatenate([np.arange(40, 78), np.arange(130, 188)])
    assert np.setdiff1d(np.flatnonzero(counts), possible).size == 0
    expected = 400 * 20 / len(possible)
    assert ((counts[possible] - expected) ** 2 / expected).sum() < 2 * len(possible)


def test_stored_bases_are_the_genomes(random_run):
    opened, genome = KmerTask.open(random_run.task), open_genome(random_run.genome)
    split = split_blocks(genome.contigs, random_run.config.split, random_run.config.seed)
    assert opened.ks == (1, 2) and len(opened.train) == 1_200 and len(opened.held_out) == 1_500
    for part in (opened.train, opened.validation, opened.held_out):
        assert part.codes.shape == (len(part), 52)
        assert np.array_equal(part.block, split.block_of(part.row))
        for index in (0, len(part) // 2, len(part) - 1):
            row = int(part.row[index])
            assert np.array_equal(part.codes[index], genome.bases(row, row + 52))
            assert np.array_equal(part.inputs[index], genome.bases(row, row + 50))
            assert part.labels(2)[index] == 4 * genome.bases(row + 50, row + 52)[0] + genome.bases(row + 50, row + 52)[1]
    assert not np.isin(opened.train.block, opened.validation_blocks).any()


def test_a_second_call_skips(random_run):
    said = []
    again = task_module.build_task(random_run.config, random_run.run, random_run.genome, say=said.append)
    assert again.digest == random_run.task.digest and "skipped" in said[0]


def test_too_many_positions_are_refused_with_numbers(random_run):
    selection = random_run.config.selection.model_copy(update={"evaluate_positions": 10**7})
    config = random_run.config.model_copy(update={"selection": selection})
    with pytest.raises(UserError, match=r"10,000,000 positions wanted, \d\d,\d\d\d possible"):
        task_module.build_task(config, random_run.run, random_run.genome, say=lambda text: None)


def test_kmer_numbers_read_the_first_base_as_the_highest_digit():
    assert kmer_numbers(np.array([[0, 0, 3], [1, 0, 0], [3, 3, 3]], np.uint8)).tolist() == [3, 16, 63]
