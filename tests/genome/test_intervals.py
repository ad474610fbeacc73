"""Readers of annotations: coordinates, names, and their faults."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from grover_dist.errors import UserError
from grover_dist.genome.contigs import ContigTable
from grover_dist.genome.intervals import (
    NO_POINT,
    match_records,
    read_bed,
    read_gtf,
    read_narrow_peak,
    read_refgene,
    read_sgd_features,
)


def contigs_of(**lengths: int) -> ContigTable:
    return ContigTable.from_json(
        {
            "record": list(range(len(lengths))),
            "start_bp": [0] * len(lengths),
            "end_bp": list(lengths.values()),
            "records": [{"name": name, "length_bp": length, "source": "", "digest": ""} for name, length in lengths.items()],
        }
    )


def write(folder, text):
    path = folder / "annotation.txt"
    path.write_text(text)
    return path


def test_bed(tmp_path):
    found = read_bed(write(tmp_path, "track name=x\n#c\nchr1\t0\t10\n\nchr2\t5\t6\tone\t3.5\t-\n"))
    assert found.record.tolist() == ["chr1", "chr2"]
    assert found.start_bp.tolist() == [0, 5]
    assert found.end_bp.tolist() == [10, 6]
    assert found.strand.tolist() == [".", "-"]
    assert found.name.tolist() == [".", "one"]
    assert np.isnan(found.score[0])
    assert found.score[1] == 3.5
    assert found.point_bp.tolist() == [NO_POINT, NO_POINT]


@pytest.mark.parametrize(
    ("reader", "text", "message"),
    [
        (read_bed, "chr1\t0\t10\nchr1 5 9\n", "line 2"),
        (read_bed, "chr1\t9\t5\n", "end lies before the start"),
        (read_bed, "chr1\tx\t5\n", "line 1"),
        (read_narrow_peak, "chr1\t1\t5\n", "10 columns of narrowPeak"),
        (read_gtf, "I\tsgd\tgene\t1\n", "9 columns of GTF"),
    ],
)
def test_lines_that_are_none(tmp_path, reader, text, message):
    with pytest.raises(UserError, match=message):
        reader(write(tmp_path, text))


def test_files_that_are_none(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_bed(tmp_path / "none.bed")
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"chr1\t1\t2\n" * 100)[:-9])
    with pytest.raises(UserError, match="cut short"):
        read_bed(tmp_path / "cut.gz")


def test_an_empty_annotation(tmp_path):
    found = read_bed(write(tmp_path, "# nothing\n"))
    assert len(found) == 0
    assert len(match_records(found, contigs_of(a=5), where="x")[0]) == 0


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("chr22", "22"),
        ("22", "chr22"),
        ("4", "IV"),
        ("chrIV", "IV"),
        ("IV", "chr4"),
        ("MT", "chrM"),
        ("chrM", "Mito"),
        ("Mito", "Mito"),
        ("x", "y"),
    ],
)
def test_naming_styles(tmp_path, theirs, ours):
    found, match = match_records(read_bed(write(tmp_path, f"{theirs}\t0\t4\n")), contigs_of(**{ours: 9}), where="x", aliases={"x": "y"})
    assert found.record.tolist() == [ours]
    assert match.renamed == {theirs: ours}
    assert f"{theirs} -> {ours}" in str(match) or theirs == ours


def test_chromosome_x_is_not_the_tenth(tmp_path):
    annotation = read_bed(write(tmp_path, "X\t0\t4\n" + "1\t0\t4\n" * 99))
    assert match_records(annotation, contigs_of(chr10=9, chr1=9), where="x")[1].unknown == {"X": 1}


def test_lines_of_unknown_records_are_reported_or_refused(tmp_path):
    annotation = read_bed(write(tmp_path, "chr1\t0\t4\n" * 96 + "chrUn_3\t0\t4\n" * 4))
    found, match = match_records(annotation, contigs_of(chr1=9), where="x")
    assert len(found) == 96
    assert match.unknown == {"chrUn_3": 4}
    assert "left out 4 lines of chrUn_3" in str(match)
    with pytest.raises(UserError, match=r"only 96\.0% .*annotation\.bed.*'chrUn_3'"):
        match_records(annotation, contigs_of(chr1=9), where="annotation.bed", at_least=0.97)


def test_lines_past_the_end_of_a_piece(tmp_path):
    assert len(read_bed(write(tmp_path, "a\t0\t9\na\t5\t10\n")).inside(contigs_of(a=9))) == 1


def test_real_annotations_of_chr22(data_dir):
    human = contigs_of(**{"22": 22_000_000})
    peaks, _ = match_records(read_narrow_peak(data_dir / "ctcf" / "hg19_chr22_Gm12878_CTCF.narrowPeak.gz"), human, where="peaks")
    assert peaks.point_bp[0] == 17_255_482 + 180
    assert ((peaks.start_bp <= peaks.point_bp) & (peaks.point_bp < peaks.end_bp)).all()
    genes, match = match_records(read_refgene(data_dir / "human" / "hg19_refGene_chr22.txt.gz"), human, where="refGene")
    assert match.renamed == {"chr22": "22"}
    assert (genes.start_bp[0], genes.end_bp[0], genes.strand[0], genes.name[0]) == (16_150_528, 16_193_009, "-", "NR_122113|DUXAP8")
    assert 0 < len(genes.inside(human)) < len(genes)
    states = read_bed(data_dir / "human" / "hg19_chr22_Gm12878_ChromHMM15_5kb.bed.gz")
    assert states.name[0] == "E13"


def test_real_annotations_of_yeast_agree_with_each_other(data_dir):
    """Ensembl's GTF and SGD's own table give the same places to the same genes, in two coordinate conventions."""
    lengths = {"I": 230_218, "Mito": 85_779} | {
        name: 2_000_000 for name in ["II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII", "XIII", "XIV", "XV", "XVI"]
    }
    yeast = contigs_of(**lengths)
    genes, _ = match_records(read_gtf(data_dir / "yeast" / "R64-1-1.96.gtf.gz"), yeast, where="GTF")
    sgd, match = match_records(read_sgd_features(data_dir / "yeast" / "SGD_features.tab.gz", ("ORF",)), yeast, where="SGD")
    assert match.renamed["4"] == "IV"
    places = dict(zip(genes.name, zip(genes.record, genes.start_bp, genes.end_bp, genes.strand, strict=True), strict=True))
    both = [i for i, name in enumerate(sgd.name) if name.removeprefix("ORF|") in places]
    assert len(both) > 6_000
    same = [(sgd.record[i], sgd.start_bp[i], sgd.end_bp[i], sgd.strand[i]) == places[sgd.name[i].removeprefix("ORF|")] for i in both]
    assert np.mean(same) > 0.98
