"""The store's files: what is in them, and how broken ones are answered."""

from __future__ import annotations

import json
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from grover_dist.corpus.store import NEVER, Store, part_name
from grover_dist.errors import UserError
from grover_dist.genome.stage import open_genome


@pytest.fixture
def copied(learned, tmp_path):
    return shutil.copytree(learned.artifact.path, tmp_path / "copy")


def test_bases_and_mask_are_the_genomes(learned):
    genome, store = open_genome(learned.genome), learned.store
    assert store.n_rows == genome.n_rows
    assert len(store.parts) > 1
    assert np.array_equal(store.base(0, store.n_rows), genome.bases(0, genome.n_rows))
    assert np.array_equal(store.masked(0, store.n_rows), genome.masked(0, genome.n_rows))
    assert 0 < store.masked(0, store.n_rows).mean() < 1


def test_first_row_of_each_contig_is_never_merged_away(learned):
    level = learned.store.level(0, learned.store.n_rows)
    assert (level[learned.store.contigs.row_start[:-1]] == NEVER).all()


def test_slices_do_not_depend_on_parts_and_batches(learned, rechunked):
    one, many = learned.store, rechunked.store
    rng = np.random.default_rng(1)
    for start, stop in [(0, one.n_rows), (5, 5), *np.sort(rng.integers(0, one.n_rows, (60, 2)), axis=1).tolist()]:
        for column in ("base", "level", "masked"):
            expected, found = getattr(one, column)(start, stop), getattr(many, column)(start, stop)
            assert expected.dtype == found.dtype
            assert np.array_equal(expected, found)
    assert [start for start, _ in many.batches(900, 1_300)] == [900, 1_000, 1_256]
    with pytest.raises(IndexError):
        one.base(0, one.n_rows + 1)


def test_a_slice_inside_a_batch_is_a_view_of_the_file(learned):
    part = learned.store.parts[0]
    assert np.shares_memory(learned.store.level(10, 500), part.levels[0])
    assert np.shares_memory(learned.store.base(10, 500), part.bases[0])
    assert not part.levels[0].flags.owndata


def test_pyarrow_alone_can_read_it(learned):
    """What docs/formats.md promises."""
    files = sorted((learned.artifact.path / "store").glob("*.arrow"))
    tables = [pa.ipc.open_file(pa.memory_map(str(file))).read_all() for file in files]
    assert pa.concat_tables(tables).column("level").to_numpy().tolist() == learned.store.level(0, learned.store.n_rows).tolist()
    metadata = {key.decode(): json.loads(value) for key, value in tables[1].schema.metadata.items()}
    assert metadata["format"] == "grover_dist.store"
    assert metadata["version"] == 1
    assert metadata["first_row"] == tables[0].num_rows
    assert metadata["rows"] == tables[1].num_rows
    assert metadata["contigs"][0]["record"] == "big"


def test_the_snippet_of_the_documentation_runs(learned):
    """docs/formats.md, as a stranger would copy it: pyarrow alone, in the artefact's folder."""
    text = (Path(__file__).resolve().parents[2] / "docs" / "formats.md").read_text()
    (snippet,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    done = subprocess.run([sys.executable, "-I", "-c", snippet], cwd=learned.artifact.path, capture_output=True, text=True, check=True)
    assert "grover" not in snippet
    # The snippet asks for 600 cycles; this vocabulary has 120, and nothing changes after them.
    first, second = learned.corpus.starts_of_rows(0, 5_000, 120)[:2]
    assert done.stdout.strip() == "".join("ACGT"[code] for code in learned.store.base(int(first), int(second)))


def test_a_store_can_be_sent_to_another_process(learned):
    again = pickle.loads(pickle.dumps(learned.corpus))
    assert again.ids_of_rows(0, 150_000, 0).tolist() == (learned.store.base(0, 150_000) + 5).tolist()


def test_no_store(tmp_path):
    with pytest.raises(UserError, match="no store here"):
        Store.open(tmp_path)


def test_a_missing_part(copied):
    (copied / "store" / part_name(1)).unlink()
    with pytest.raises(UserError, match="part of the store is missing"):
        Store.open(copied)


def test_the_last_part_is_missing(copied):
    max((copied / "store").iterdir()).unlink()
    with pytest.raises(UserError, match="does not hold the whole genome"):
        Store.open(copied)


def test_a_part_that_was_cut_short(copied):
    part = copied / "store" / part_name(0)
    part.write_bytes(part.read_bytes()[:-100])
    with pytest.raises(UserError, match="cannot be read"):
        Store.open(copied)


def rewrite(part, **changes):
    with pa.ipc.open_file(pa.OSFile(str(part))) as reader:
        table = reader.read_all()
    metadata = table.schema.metadata | {key.encode(): json.dumps(value).encode() for key, value in changes.items()}
    with pa.ipc.new_file(str(part), table.schema.with_metadata(metadata)) as writer:
        writer.write_table(table.replace_schema_metadata(metadata), max_chunksize=1 << 20)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "another format version"),
        ({"format": "else"}, "not a part of a store"),
        ({"learner": "0"}, "different learning runs"),
    ],
)
def test_a_part_of_another_kind(copied, changes, message):
    rewrite(copied / "store" / part_name(1), **changes)
    with pytest.raises(UserError, match=message):
        Store.open(copied)
