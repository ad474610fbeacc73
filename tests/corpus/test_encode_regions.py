from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyfaidx import Faidx

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


@pytest.fixture(scope="module")
def foreign(tmp_path_factory, learned) -> tuple[Path, list[tuple]]:
    """A FASTA that the learner did not see, and its tokens when whole."""
    folder = tmp_path_factory.mktemp("foreign")
    rng = np.random.default_rng(8)
    word = "ACGTTGCA" * 30
    letters = "".join("".join(rng.choice(list("ACGT"), 300)) + word + "A" * int(rng.integers(1, 400)) for _ in range(20))
    text = letters[:5_000] + "NNRN" + letters[5_000:].lower()
    lines = "\n".join(text[at : at + 60] for at in range(0, len(text), 60))
    (folder / "new.fa").write_text(f">one it is\n{lines}\n>two:1-3\nACGTACGT\n")
    encode_fasta(learned.run, folder / "new.fa", 100, output=folder / "whole.bed")
    return folder / "new.fa", rows((folder / "whole.bed").read_text())


@pytest.mark.parametrize("indexed", [False, True])
def test_a_region_of_new_sequences_has_the_tokens_of_the_whole(learned, foreign, tmp_path, indexed):
    path, whole = foreign
    path = shutil.copy(path, tmp_path / "new.fa")
    if indexed:
        Faidx(str(path))
    rng = np.random.default_rng(2)
    length = max(end for record, _, end, _ in whole if record == "one")
    regions = [(0, length), (0, 1), (length - 1, length), (4_990, 5_010), (5_000, 5_004)]
    for start, end in [*regions, *np.sort(rng.choice(length, (25, 2), replace=False), axis=1).tolist()]:
        encode_fasta(learned.run, path, 100, region=f"one:{start:,}-{end:,}", output=tmp_path / "out.bed")
        found = rows((tmp_path / "out.bed").read_text())
        assert found == [row for row in whole if row[0] == "one" and row[2] > start and row[1] < end]
    encode_fasta(learned.run, path, 100, region="two:1-3", output=tmp_path / "out.bed")
    assert "".join(row[3] for row in rows((tmp_path / "out.bed").read_text())) == "ACGTACGT"  # a name that looks like a region


@pytest.mark.parametrize("indexed", [False, True])
def test_regions_that_new_sequences_do_not_have(learned, foreign, tmp_path, indexed):
    path = shutil.copy(foreign[0], tmp_path / "new.fa")
    if indexed:
        Faidx(str(path))
    for region, message in [
        ("onne:1-5", r"no record 'onne'.*nearest: .*one"),
        ("one:5-5", "empty or reversed"),
        ("one:9-5", "empty or reversed"),
        ("one:0-9999999", "outside its record"),
    ]:
        with pytest.raises(UserError, match=message):
            encode_fasta(learned.run, path, 100, region=region, output=tmp_path / "out.bed")
    assert not (tmp_path / "out.bed").exists()


def test_an_index_older_than_its_fasta(learned, foreign, tmp_path):
    path = shutil.copy(foreign[0], tmp_path / "new.fa")
    Faidx(str(path))
    os.utime(path, ns=(1 << 62, (tmp_path / "new.fa.fai").stat().st_mtime_ns + 1))
    with pytest.raises(UserError, match=r"index is older.*new\.fa\.fai.*samtools faidx .*new\.fa"):
        encode_fasta(learned.run, path, 100, region="one:0-10", output=tmp_path / "out.bed")


def test_an_index_of_another_file(learned, foreign, tmp_path):
    (tmp_path / "new.fa").write_text(">one\nAC!TACGT\n")
    for index in ("one\t500\t5\t60\t61\n", "garbage\n", "one\t8\t5\t8\t9\n"):
        (tmp_path / "new.fa.fai").write_text(index)
        with pytest.raises(UserError, match=r"index (does not fit|cannot be read)|not an IUPAC.*offset 2 "):
            encode_fasta(learned.run, tmp_path / "new.fa", 100, region="one:0-400" if "500" in index else "one", output=tmp_path / "out")


def test_letters_without_a_token_are_told(learned, foreign, tmp_path):
    said = []
    encode_fasta(learned.run, foreign[0], 100, output=tmp_path / "out.bed", say=said.append)
    assert said == ["record 'one': 3 N, 1 R: no token; each ends the sequence before it"]


def test_the_flank_is_that_of_the_health_report(learned, tmp_path):
    from grover_dist.corpus.health import measure_health

    run = RunDir(shutil.copytree(learned.run.path, tmp_path / "run"))
    artifact = run.latest("learn")
    assert encode_regions.flank_bp(run, artifact, 100) == 256
    health = measure_health(learned.config, run, artifact, say=lambda _: None)
    figures = json.loads(health.file("health.json").read_text())
    for cycles, measured in ((5, "10"), (10, "10"), (11, "120"), (120, "120")):
        assert encode_regions.flank_bp(run, artifact, cycles) == math.ceil(figures[measured]["resynchronisation_bp"]["p99"])


@pytest.mark.parametrize("format", ["bed", "tsv", "arrow"])
def test_long_records_are_written_in_pieces(learned, foreign, tmp_path, monkeypatch, format):
    path, _ = foreign
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    encode_fasta(learned.run, path, 100, format=format, output=whole)
    monkeypatch.setattr(encode_regions, "_PIECE_TOKENS", 7)
    encode_fasta(learned.run, path, 100, format=format, output=pieces)
    if format == "arrow":
        assert pa.ipc.open_file(str(whole)).read_all().equals(pa.ipc.open_file(str(pieces)).read_all())
    else:
        assert whole.read_bytes() == pieces.read_bytes()
