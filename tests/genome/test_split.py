"""The held-out split: every base on one side, the same for ever, close to the wanted share."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grover_dist.config import SplitSettings
from grover_dist.errors import UserError
from grover_dist.genome.contigs import ContigTable
from grover_dist.genome.split import HELD_OUT, MIXED, TRAIN, split_blocks


def table_of(records: list[list[tuple[int, int]]]) -> ContigTable:
    """One record for each list of contigs (start_bp, end_bp)."""
    contigs = [(index, start, end) for index, spans in enumerate(records) for start, end in spans]
    return ContigTable.from_json(
        {
            "record": [contig[0] for contig in contigs],
            "start_bp": [contig[1] for contig in contigs],
            "end_bp": [contig[2] for contig in contigs],
            "records": [
                {"name": f"chr{i}", "length_bp": max((end for _, end in spans), default=9), "source": "", "digest": ""}
                for i, spans in enumerate(records)
            ],
        }
    )


@st.composite
def tables(draw):
    records = []
    for _ in range(draw(st.integers(1, 4))):
        edges = sorted(draw(st.sets(st.integers(0, 40_000), min_size=2, max_size=8)))
        records.append(list(zip(edges[0::2], edges[1::2], strict=False)))
    return table_of(records)


@given(tables(), st.integers(1_000, 9_000), st.integers(0, 5))
def test_every_base_is_dealt_by_its_block(table, block_bp, seed):
    try:
        split = split_blocks(table, SplitSettings(block_bp=block_bp, held_out_fraction=0.3), seed)
    except UserError as error:
        records, positions = table.locate_rows(np.arange(table.n_rows))
        assert len(set(zip(records.tolist(), (positions // block_bp).tolist(), strict=True))) == 1, error
        return
    rows = np.arange(table.n_rows)
    records, positions = table.locate_rows(rows)
    places = records.astype(np.int64) * 1_000 + positions // block_bp
    blocks = split.block_of(rows)
    # Two bases share a block exactly if they share record and block number.
    assert len(np.unique(blocks)) == len(np.unique(places)) == len(np.unique(blocks * 10**6 + places)) == len(split.held_out)
    assert split.is_held_out(rows).sum() == split.held_out_rows == table.n_rows - split.train_rows
    assert 0 < split.held_out_rows < table.n_rows
    assert set(table.row_start.tolist()) <= set(split.row_edges.tolist())
    assert split_blocks(table, SplitSettings(block_bp=block_bp, held_out_fraction=0.3), seed).held_out.tolist() == split.held_out.tolist()


@given(tables(), st.data())
def test_side_of_interval_is_the_side_of_all_its_bases(table, data):
    try:
        split = split_blocks(table, SplitSettings(block_bp=1_500, held_out_fraction=0.5), 1)
    except UserError:
        return
    start = data.draw(st.integers(0, table.n_rows - 1))
    stop = data.draw(st.integers(start + 1, min(table.n_rows, start + 5_000)))
    held = split.is_held_out(np.arange(start, stop))
    assert split.side_of_interval(start, stop) == (HELD_OUT if held.all() else MIXED if held.any() else TRAIN)


def test_share_seed_and_named_records():
    table = table_of([[(0, 500_000)], [(0, 300_000)], [(0, 200_000)]])
    settings = SplitSettings(block_bp=10_000, held_out_fraction=0.2)
    splits = [split_blocks(table, settings, seed) for seed in range(5)]
    assert all(split.held_out_rows == 200_000 for split in splits)
    assert len({split.held_out.tobytes() for split in splits}) == 5
    named = split_blocks(table, SplitSettings(held_out_records=("chr2",)), 1)
    assert named.held_out_rows == 200_000
    assert named.is_held_out(np.array([799_999, 800_000])).tolist() == [False, True]


def test_blocks_are_fixed_in_the_record_not_in_the_contig():
    table = table_of([[(100, 5_000), (5_200, 12_000)]])
    split = split_blocks(table, SplitSettings(block_bp=5_000, held_out_fraction=0.3), 1)
    assert split.row_edges.tolist() == [0, 4_900, 4_900 + 4_800, 4_900 + 6_800]
    assert split.piece_block.tolist() == [0, 1, 2]


def test_too_small_a_genome_is_told_what_would_work():
    table = table_of([[(0, 50_000)]])
    with pytest.raises(UserError, match=r"too small for the held-out split.*split\.block_bp=5000"):
        split_blocks(table, SplitSettings(), 1)
    assert split_blocks(table, SplitSettings(block_bp=5_000), 1).held_out.sum() == 2
    with pytest.raises(UserError, match="10,000 bases or more"):
        split_blocks(table_of([[(0, 900)]]), SplitSettings(), 1)


@pytest.mark.parametrize(("names", "message"), [(("chr0",), "one side empty"), (("chr7",), "no record 'chr7'")])
def test_named_records_that_cannot_be_held_out(names, message):
    with pytest.raises(UserError, match=message):
        split_blocks(table_of([[(0, 5_000)], []]), SplitSettings(held_out_records=names), 1)
