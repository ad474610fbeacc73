from __future__ import annotations

import pyarrow as pa
import pytest

from grover_dist.corpus import encode_regions
from grover_dist.corpus.encode_regions import encode_fasta, encode_region, parse_region
from grover_dist.errors import UserError
from grover_dist.run_dir import RunDir


def rows(text: str) -> list[tuple]:
    return [(line[0], int(line[1]), int(line[2]), *line[3:]) for line in (row.split("\t") for row in text.splitlines())]


def test_bed_of_a_region(learned, capfdbinary):
    count = encode_region(learned.run, "masked:1,000-1,400", 80)
    found = rows(capfdbinary.readouterr().out.decode())
    tokens = learned.corpus.tokens("masked", 1_000, 1_400, 80)
    strings = learned.corpus.vocabulary.strings()
    assert count == len(found) == len(tokens)
    assert found == [
        ("masked", start, end, strings[token])
        for start, end, token in zip(tokens.start_bp.tolist(), tokens.end_bp.tolist(), tokens.ids.tolist(), strict=True)
    ]


@pytest.mark.parametrize("piece_bp", [7, 500, 1 << 22])
def test_pieces_repeat_and_lose_nothing(learned, tmp_path, monkeypatch, piece_bp):
    monkeypatch.setattr(encode_regions, "_PIECE_BP", piece_bp)
    encode_region(learned.run, "repeats:11,000-14,000", 120, format="tsv", output=tmp_path / "out.tsv")
    header, *lines = (tmp_path / "out.tsv").read_text().splitlines()
    assert header.split("\t") == ["record", "start_bp", "end_bp", "token", "id"]
    tokens = learned.corpus.tokens("repeats", 11_000, 14_000, 120)
    assert [int(line.split("\t")[4]) for line in lines] == tokens.ids.tolist()
    assert [int(line.split("\t")[1]) for line in lines] == tokens.start_bp.tolist()


def test_new_sequences_are_tokenized_as_the_learner_would(learned, hostile_fasta, tmp_path):
    """The genome itself, given as FASTA: contig by contig the same tokens as the store's."""
    count = encode_fasta(learned.run, hostile_fasta, 120, format="arrow", output=tmp_path / "out.arrow")
    table = pa.ipc.open_file(str(tmp_path / "out.arrow")).read_all()
    assert table.num_rows == count
    contigs = learned.store.contigs
    ids = learned.corpus.ids_of_rows(0, learned.store.n_rows, 120)
    starts = learned.corpus.starts_of_rows(0, learned.store.n_rows, 120)
    records, positions = contigs.locate_rows(starts)
    assert table["id"].to_pylist() == ids.tolist()
    assert table["start_bp"].to_pylist() == positions.tolist()
    assert table["record"].to_pylist() == [contigs.record_names[record] for record in records]
    assert table["token"].to_pylist()[:50] == [learned.corpus.vocabulary.strings()[token] for token in ids[:50]]
    lengths = learned.corpus.vocabulary.lengths()[ids]
    assert (table["end_bp"].to_numpy() - table["start_bp"].to_numpy()).tolist() == lengths.tolist()


def test_a_region_without_bases_has_no_tokens(learned, tmp_path):
    assert encode_region(learned.run, "only_n", 10, output=tmp_path / "out.bed") == 0
    assert (tmp_path / "out.bed").read_text() == ""


@pytest.mark.parametrize(
    ("region", "expected"),
    [("short", ("short", 0, 8)), ("short:0-8", ("short", 0, 8)), ("big:1,000-2_000", ("big", 1_000, 2_000))],
)
def test_regions(learned, region, expected):
    assert parse_region(learned.corpus, region) == expected


@pytest.mark.parametrize(
    ("region", "message"),
    [
        ("chrshort", "no record 'chrshort'.*'short'"),
        ("short:3-9", r"outside its record.*0 to 8"),
        ("short:5-5", "empty or reversed"),
        ("short:7-5", "empty or reversed"),
        ("short:five-six", "no record 'short:five-six'"),
    ],
)
def test_regions_that_are_not_there(learned, tmp_path, region, message):
    with pytest.raises(UserError, match=message):
        encode_region(learned.run, region, 10, output=tmp_path / "out.bed")
    assert list(tmp_path.iterdir()) == []


def test_other_faults_leave_no_file(learned, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (tmp_path / "bad.fa").write_text(">a\nACGT\n>b\nAC!T\n")
    with pytest.raises(UserError, match="not an IUPAC"):
        encode_fasta(learned.run, tmp_path / "bad.fa", 10, output=folder / "out.bed")
    with pytest.raises(UserError, match="121"):
        encode_fasta(learned.run, tmp_path / "bad.fa", 121, output=folder / "out.bed")
    with pytest.raises(UserError, match="121"):
        encode_region(learned.run, "short", 121, output=folder / "out.bed")
    with pytest.raises(UserError, match="unknown output format"):
        encode_region(learned.run, "short", 10, format="gff", output=folder / "out.bed")
    with pytest.raises(UserError, match="cannot be written"):
        encode_region(learned.run, "short", 10, output=tmp_path / "no" / "folder.bed")
    assert list(folder.iterdir()) == []


def test_a_run_without_a_vocabulary(settings_for, hostile_fasta, tmp_path):
    run = RunDir.open(settings_for(tmp_path / "run", hostile_fasta))
    with pytest.raises(UserError, match="no vocabulary yet"):
        encode_region(run, "short", 10)
