"""Predictions along a FASTA file and at places, in every format, against the model called by hand."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from typer.testing import CliRunner

from grover_dist.cli import app
from grover_dist.errors import UserError
from grover_dist.finetune.exported import check_same_logits, load_finetuned
from grover_dist.finetune.predict import predict
from grover_dist.finetune.tracks import mean_track
from grover_dist.selection.examples import TokenRows


@pytest.fixture(scope="module")
def fasta(tmp_path_factory):
    generator = np.random.default_rng(5)
    path = tmp_path_factory.mktemp("fasta") / "g.fa"
    one, two = ("".join(generator.choice(list("ACGT"), n)) for n in (330, 30))
    records = {"chr2": one[:100] + "N" * 110 + one[210:], "chr1": two}
    path.write_text("".join(f">{name}\n{letters}\n" for name, letters in records.items()))
    return path, records


def codes_of(text):
    return np.array(["ACGTN".index(letter) for letter in text], np.uint8)


def by_hand(published, text):
    logits = load_finetuned(published).logits([codes_of(text)])[0].astype(float)
    return np.exp(logits[1]) / np.exp(logits).sum()


def silent(_text):
    return None


def test_a_genome_is_tiled_and_every_format_says_the_same(tmp_path, published, fasta):
    path, records = fasta
    outputs = [tmp_path / name for name in ("p.tsv", "p.bed", "p.bw")]
    told = []
    assert predict(published, outputs, fasta=path, say=told.append) == 6
    with open(outputs[0]) as lines:
        rows = list(csv.DictReader(lines, delimiter="\t"))
    starts = [(row["chrom"], int(row["start"]), int(row["end"])) for row in rows]
    # Windows of 50; that of 100 to 150 and 150 to 200 hold Ns only; the last one ends with the record; a short record is one window.
    expected = [("chr2", start, start + 50) for start in (0, 50, 200, 250, 280)] + [("chr1", 0, 30)]
    assert starts == sorted(expected, key=lambda place: (place[0] != "chr2", place[1])) and "2 windows without a known base" in told[0]
    for row in rows:
        text = records[row["chrom"]][int(row["start"]) : int(row["end"])]
        assert float(row["p_yes"]) == pytest.approx(by_hand(published, text), abs=1e-4)
        assert row["predicted"] == ("yes" if float(row["p_yes"]) > 0.5 else "no")
    bed = [line.split("\t") for line in outputs[1].read_text().splitlines()]
    assert [(line[0], int(line[1]), int(line[2]), int(line[4])) for line in bed] == [
        (*place, round(1_000 * float(row["p_yes"]))) for place, row in zip(starts, rows, strict=True)
    ]
    pybigtools = pytest.importorskip("pybigtools")
    track = pybigtools.open(str(outputs[2]))
    assert track.chroms() == {"chr1": 30, "chr2": 330}
    cells = {(start, end): value for start, end, value in track.records("chr2")}
    assert cells[0, 50] == pytest.approx(float(rows[0]["p_yes"]), abs=1e-5)
    assert cells[280, 300] == pytest.approx((float(rows[3]["p_yes"]) + float(rows[4]["p_yes"])) / 2, abs=1e-5)


def test_places_are_read_along_their_strand(tmp_path, published, fasta):
    path, records = fasta
    (tmp_path / "r.bed").write_text("2\t210\t260\ta\t0\t-\n2\t10\t60\tb\t0\t+\n")  # names match without chr
    predict(published, [tmp_path / "p.tsv"], fasta=path, bed=tmp_path / "r.bed", say=silent)
    with open(tmp_path / "p.tsv") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t"))
    assert [row["start"] for row in rows] == ["10", "210"]
    other = records["chr2"][210:260].translate(str.maketrans("ACGT", "TGCA"))[::-1]
    assert float(rows[1]["p_yes"]) == pytest.approx(by_hand(published, other), abs=1e-4)


def test_long_sequences_are_windows_whose_logits_are_averaged(published):
    model, generator = load_finetuned(published), np.random.default_rng(1)
    codes = generator.integers(0, 4, 120).astype(np.uint8)
    rows = model.rows([codes])
    assert len(rows.lengths) > 1 and (rows.lengths <= model.positions).all()
    assert int(model.vocabulary.lengths()[rows.ids].sum()) == 120  # nothing is cut off
    one = np.array([0, 1])
    single = [
        model.logits_of_rows(TokenRows(rows.ids[i : i + 1], rows.lengths[i : i + 1], one, rows.n_bases)) for i in range(len(rows.lengths))
    ]
    assert np.allclose(model.logits([codes]), np.mean(single, axis=0), atol=1e-5)


def test_a_damaged_export_is_refused(published):
    model = load_finetuned(published)
    sequences = [np.random.default_rng(seed).integers(0, 4, 40).astype(np.uint8) for seed in range(4)]
    logits = model.logits(sequences)
    log_prob = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    assert check_same_logits(model, sequences, log_prob, where=published) == 4
    log_prob[2] += 0.01
    with pytest.raises(UserError, match="logits differ"):
        check_same_logits(model, sequences, log_prob, where=published)


@pytest.mark.parametrize(
    ("bed", "options", "message"),
    [
        ("chr2\t300\t400\n", {}, "not inside its record"),
        ("chr9\t3\t40\n", {}, "does not have"),
        ("chr2\t110\t120\n", {}, "no window holds a known base"),
        (None, {"outputs": ["p.gff"]}, "does not say its format"),
        (None, {"class_name": "maybe"}, "no such class"),
        (None, {"fasta": None}, "nothing to predict"),
    ],
)
def test_faults_leave_nothing_behind(tmp_path, published, fasta, bed, options, message):
    options = {"fasta": fasta[0], "outputs": ["p.tsv", "p.bed"], **options}
    if bed is not None:
        (tmp_path / "r.bed").write_text(bed)
        options["bed"] = tmp_path / "r.bed"
    with pytest.raises(UserError, match=message):
        predict(published, [tmp_path / name for name in options.pop("outputs")], say=silent, **options)
    assert {path.name for path in tmp_path.iterdir()} <= {"r.bed"}


def test_a_folder_that_is_no_model_is_named(tmp_path, fasta):
    with pytest.raises(UserError, match="not the folder of a fine-tuned model"):
        predict(tmp_path, [tmp_path / "p.tsv"], fasta=fasta[0])


def test_the_commands_write_their_files(tmp_path, published, fasta):
    runner = CliRunner()
    arguments = ["predict", str(published), "--fasta", str(fasta[0]), "--output", str(tmp_path / "p.tsv"), "--step-bp", "25"]
    found = runner.invoke(app, arguments)
    assert found.exit_code == 0 and "windows of 2 records" in found.output
    (tmp_path / "r.bed").write_text("chr2\t10\t60\n")
    arguments = ["explain", str(published), "--bed", str(tmp_path / "r.bed"), "--fasta", str(fasta[0]), "--output", str(tmp_path / "e.tsv")]
    found = runner.invoke(app, [*arguments, "--method", "gradients"])
    assert found.exit_code == 0 and len((tmp_path / "e.tsv").read_text().splitlines()) == 51


def test_overlaps_become_means_and_gaps_stay_empty():
    generator = np.random.default_rng(0)
    start = generator.integers(0, 80, 12)
    end, value = start + generator.integers(1, 15, 12), generator.normal(size=12)
    cells = mean_track(start, end, value)
    for place in range(100):
        over = (start <= place) & (place < end)
        inside = (cells[0] <= place) & (place < cells[1])
        assert inside.sum() == (1 if over.any() else 0)
        if over.any():
            assert cells[2][inside][0] == pytest.approx(value[over].mean())
