"""Contigs and the map between record coordinates and rows."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grover_dist.errors import UserError
from grover_dist.genome.contigs import ContigTable


def table_of(sequences: list[str]) -> ContigTable:
    """The obvious way: a regular expression."""
    runs = [(index, found.start(), found.end()) for index, text in enumerate(sequences) for found in re.finditer("[ACGTacgt]+", text)]
    return ContigTable.from_json(
        {
            "record": [run[0] for run in runs],
            "start_bp": [run[1] for run in runs],
            "end_bp": [run[2] for run in runs],
            "records": [
                {"name": f"chr{index}", "length_bp": len(text), "source": "x.fa", "digest": ""} for index, text in enumerate(sequences)
            ],
        }
    )


SEQUENCES = st.lists(st.text("ACGTN", min_size=1, max_size=12), min_size=1, max_size=5).filter(lambda found: set("".join(found)) != {"N"})


@given(SEQUENCES, st.data())
def test_rows_and_positions_are_inverse(sequences, data):
    table = table_of(sequences)
    letters = [(record, position) for record, text in enumerate(sequences) for position, letter in enumerate(text) if letter != "N"]
    assert table.n_rows == len(letters)
    records, positions = table.locate_rows(np.arange(table.n_rows))
    assert list(zip(records.tolist(), positions.tolist(), strict=True)) == letters
    assert [table.locate(row) for row in range(table.n_rows)] == [(f"chr{record}", position) for record, position in letters]
    everything = [(record, position) for record, text in enumerate(sequences) for position in range(len(text))]
    rows = table.rows_of_positions(*np.array(everything).T)
    assert rows.tolist() == [letters.index(place) if place in letters else -1 for place in everything]

    record = data.draw(st.integers(0, len(sequences) - 1))
    start = data.draw(st.integers(0, len(sequences[record]) - 1))
    end = data.draw(st.integers(start + 1, len(sequences[record])))
    pieces = table.rows_of(f"chr{record}", start, end)
    assert [row for a, b in pieces for row in range(a, b)] == [
        row for row, (r, position) in enumerate(letters) if r == record and start <= position < end
    ]
    assert all(a < b for a, b in pieces)


def test_json_round_trip():
    table = table_of(["ACGTNNA", "NNN", "C"])
    again = ContigTable.from_json(table.to_json())
    assert again.to_json() == table.to_json()
    assert again.row_start.tolist() == [0, 4, 5, 6]


@pytest.mark.parametrize(
    ("region", "message"),
    [
        (("chr9", 0, 1), r"no record 'chr9'.*nearest: .*'chr0'"),
        (("0", 0, 1), r"no record '0'.*nearest: 'chr0'; write"),
        (("chr0", 5, 5), "empty or reversed"),
        (("chr0", 6, 2), "empty or reversed"),
        (("chr0", 0, 8), r"outside its record.*Expected: 0 to 7"),
        (("chr0", -1, 3), "outside its record"),
    ],
)
def test_regions_that_are_not_there(region, message):
    with pytest.raises(UserError, match=message):
        table_of(["ACGTNNA", "C"]).rows_of(*region)
