"""Start sites from every format, and annotations of another assembly."""

from __future__ import annotations

import gzip
from types import SimpleNamespace

import pytest

from grover_dist.errors import UserError
from grover_dist.finetune.builders.annotations import on_genome, read_peaks, read_tss

REFGENE = "0\tNM_1\tchr7\t{strand}\t{low}\t{high}\t1\t2\t1\t0,\t9,\t0\tGENE\tunk\tunk\t-1,\n"
FORMATS = {
    "bed": "chr7\t100\t180\ta\t0\t+\nchr7\t300\t380\tb\t0\t-\n",
    "refgene": REFGENE.format(strand="+", low=100, high=180) + REFGENE.format(strand="-", low=300, high=380),
    "gtf": "#!x\n7\tE\tgene\t1\t2\t.\t+\t.\tgene_id \"g\";\n7\tE\ttranscript\t101\t180\t.\t+\t.\tgene_id \"g\"; transcript_id \"a\";\n"
    "7\tE\ttranscript\t301\t380\t.\t-\t.\tgene_id \"g\"; transcript_id \"b\";\n",
    # EPDnew: 60 bp from -49 to +10, thick from the start site to +10
    "epdnew": "chr7\t51\t111\ta\t900\t+\t100\t111\nchr7\t369\t429\tb\t900\t-\t369\t380\n",
}  # fmt: skip


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_gives_the_same_start_sites(tmp_path, format):
    path = tmp_path / "tss.gz"
    path.write_bytes(gzip.compress(FORMATS[format].encode()))
    sites, found = read_tss(path)
    assert found == format
    by_strand = dict(zip(sites.strand.tolist(), zip(sites.start_bp.tolist(), sites.end_bp.tolist(), strict=True), strict=True))
    assert by_strand == {"+": (100, 101), "-": (379, 380)}


def test_a_place_and_strand_counts_once(tmp_path):
    (tmp_path / "t.bed").write_text(FORMATS["bed"] * 2 + "chr7\t100\t500\tlonger\t0\t+\nchr7\t100\t101\tother\t0\t-\n")
    assert len(read_tss(tmp_path / "t.bed")[0]) == 3


def test_start_sites_need_strands_and_a_known_format(tmp_path):
    (tmp_path / "t.bed").write_text("chr7\t100\t180\n")
    with pytest.raises(UserError, match="needs a strand"):
        read_tss(tmp_path / "t.bed")
    with pytest.raises(UserError, match="unknown format"):
        read_tss(tmp_path / "t.bed", "gff9")
    (tmp_path / "t.bed").write_text("# nothing\n")
    with pytest.raises(UserError, match="no transcription start site"):
        read_tss(tmp_path / "t.bed")


def test_another_assembly_is_named(tmp_path):
    contigs = SimpleNamespace(record_names=("7",), record_lengths_bp=(1_000,))
    (tmp_path / "p.bed").write_text("chr7\t10\t20\nchr7\t990\t1500\n")
    peaks = read_peaks(tmp_path / "p.bed")
    with pytest.raises(UserError, match="past the end") as error:
        on_genome(peaks, contigs, where=tmp_path / "p.bed", piece=False)
    assert "7 has 1,000 bases and the file goes to 1,500" in str(error.value) and "--piece" in str(error.value)
    kept, notes = on_genome(peaks, contigs, where=tmp_path / "p.bed", piece=True)
    assert kept.record.tolist() == ["7"] and "left out 1 lines" in notes[1]
    (tmp_path / "q.bed").write_text("scaffold_3\t10\t20\n")
    with pytest.raises(UserError, match="lie on records of the genome"):
        on_genome(read_peaks(tmp_path / "q.bed"), contigs, where="q.bed", piece=True)
