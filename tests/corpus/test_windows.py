"""Windows tile the contigs, and nothing that is held out is ever trained on."""

from __future__ import annotations

import numpy as np
import pytest

from grover_dist.config import SplitSettings, WindowSettings
from grover_dist.corpus.windows import make_windows, tile
from grover_dist.errors import UserError
from grover_dist.genome.split import split_blocks

SETTINGS = WindowSettings(max_tokens=60, min_tokens=6)


@pytest.mark.parametrize("cycles", [0, 20, 120])
@pytest.mark.parametrize("seed", [1, 2])
def test_windows_tile_the_contigs(learned, cycles, seed):
    table = tile(learned.store, SETTINGS, cycles, seed)
    edges = learned.store.contigs.row_start
    starts = np.append(learned.corpus.starts_of_rows(0, learned.store.n_rows, cycles), learned.store.n_rows)
    assert np.isin(table.row_start, starts).all()
    assert np.isin(table.row_stop, starts).all()
    # The number of tokens is the number of starts inside.
    assert (np.searchsorted(starts, table.row_stop) - np.searchsorted(starts, table.row_start)).tolist() == table.n_tokens.tolist()
    assert table.n_tokens.min() >= 6
    assert table.n_tokens.max() == 60
    contig = learned.store.contigs.contig_of(table.row_start)
    assert (table.row_stop <= edges[contig + 1]).all()
    for index in range(len(edges) - 1):
        here = table.take(np.flatnonzero(contig == index))
        n_starts = np.searchsorted(starts, edges[index + 1]) - np.searchsorted(starts, edges[index])
        if len(here) == 0:
            assert n_starts < 6
            continue
        assert here.row_start[0] == edges[index]
        assert (here.row_start[1:] == here.row_stop[:-1]).all()
        left = np.searchsorted(starts, edges[index + 1]) - np.searchsorted(starts, here.row_stop[-1])
        assert left < 6


def test_lengths_are_full_half_of_the_time_else_uniform(learned):
    lengths = np.concatenate([tile(learned.store, SETTINGS, 30, seed).n_tokens for seed in range(12)])
    n = len(lengths)
    full = lengths == 60
    assert full.mean() == pytest.approx(0.5 + 0.5 / 55, abs=5 * np.sqrt(0.25 / n))
    counts = np.bincount(lengths[~full], minlength=60)[6:60]
    assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 54 + 5 * np.sqrt(2 * 54)


def test_parts_and_batches_do_not_matter(learned, rechunked):
    one, many = tile(learned.store, SETTINGS, 50, 1), tile(rechunked.store, SETTINGS, 50, 1)
    assert np.array_equal(one.row_start, many.row_start)
    assert np.array_equal(one.row_stop, many.row_stop)
    assert np.array_equal(one.n_tokens, many.n_tokens)


@pytest.mark.parametrize("cycles", [0, 5, 120])
def test_no_held_out_base_is_ever_in_a_training_window(learned, cycles):
    """Marks every base, for every vocabulary; also the other way round."""
    split = split_blocks(learned.store.contigs, SplitSettings(block_bp=3_000, held_out_fraction=0.3), 1)
    held = split.is_held_out(np.arange(learned.store.n_rows))
    windows = make_windows(learned.store, split, SETTINGS, cycles, seed=1)
    for table, wanted in ((windows.train, False), (windows.held_out, True)):
        assert all((held[a:b] == wanted).all() for a, b in zip(table.row_start, table.row_stop, strict=True))
    everything = tile(learned.store, SETTINGS, cycles, 1)
    pure = sum(len(set(held[a:b].tolist())) == 1 for a, b in zip(everything.row_start, everything.row_stop, strict=True))
    assert len(windows.train) + len(windows.held_out) == pure


def test_blocks_too_small_for_any_window(learned):
    split = split_blocks(learned.store.contigs, SplitSettings(block_bp=1_000, held_out_fraction=0.01), 1)
    with pytest.raises(UserError, match=r"no held-out window of 500 to 510 tokens"):
        make_windows(learned.store, split, WindowSettings(min_tokens=500), 120, seed=1)
