"""The FASTA reader: what it reads, and how it answers every broken file."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grover_dist.errors import UserError
from grover_dist.genome import fasta
from grover_dist.genome.fasta import read_fasta, read_fasta_files

BGZIP_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")


def write(folder, text: bytes, name="genome.fa"):
    path = folder / name
    path.write_bytes(text)
    return path


def read(path, **options) -> dict[str, str]:
    return {record.name: record.letters.tobytes().decode() for record in read_fasta(path, **options)}


def bgzip(data: bytes, block: int = 11) -> bytes:
    """Several gzip members with the BC field, then the end block, as `bgzip` writes them."""
    out = b""
    for at in range(0, len(data), block):
        piece = data[at : at + block]
        packer = zlib.compressobj(wbits=-15)
        body = packer.compress(piece) + packer.flush()
        size = len(body) + 25
        out += b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x06\0BC\x02\0" + struct.pack("<H", size) + body
        out += struct.pack("<II", zlib.crc32(piece), len(piece))
    return out + BGZIP_END


TEXT = b"\n>chr1 the first\r\nACGTn\r\nRYac\n>chr2\n\nAC GT\n\n>chrM\nTTTT"
WANTED = {"chr1": "ACGTnRYac", "chr2": "ACGT", "chrM": "TTTT"}


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bgzip, lambda text: gzip.compress(text[:20]) + gzip.compress(text[20:])])
def test_reads_plain_gzip_bgzip_and_joined_gzip(tmp_path, pack):
    assert read(write(tmp_path, pack(TEXT))) == WANTED


@given(
    records=st.lists(st.text("ACGTNacgtn", min_size=1, max_size=30), min_size=1, max_size=6),
    width=st.integers(1, 12),
    block=st.integers(1, 40),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_any_cut_into_blocks_and_lines_reads_the_same(tmp_path_factory, records, width, block, end):
    text = "".join(
        f">r{i} x{end}" + "".join(seq[at : at + width] + end for at in range(0, len(seq), width)) for i, seq in enumerate(records)
    )
    path = write(tmp_path_factory.mktemp("f"), text.encode())
    before, fasta.BLOCK_BYTES = fasta.BLOCK_BYTES, block
    try:
        assert list(read(path).values()) == records
    finally:
        fasta.BLOCK_BYTES = before


def test_patterns_choose_records(tmp_path):
    path = write(tmp_path, TEXT)
    assert list(read(path, include=("chr*",), exclude=("chrM",))) == ["chr1", "chr2"]
    assert list(read(path, include=("chr[12]",))) == ["chr1", "chr2"]
    with pytest.raises(UserError, match=r"'chr3' matches no record.*nearest record names: .*'chr"):
        read(path, include=("chr1", "chr3"))
    with pytest.raises(UserError, match=r"genome\.exclude"):
        read(path, exclude=("scaffold*",))


def test_a_left_out_record_may_hold_anything(tmp_path):
    path = write(tmp_path, b">good\nACGT\n>protein\nMKL*\n>empty\n>late\nAC\n")
    assert read(path, exclude=("protein", "empty")) == {"good": "ACGT", "late": "AC"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "file is empty"),
        (b"\n\n", "file is empty"),
        (b"ACGT\n", r"does not begin with '>'.*Got: 'A'"),
        (b"\x00\x01\x02", r"does not begin with '>'.*Got: byte 0x00"),
        (b">a\nACGT\n>b\n>c\nAC\n", r"record 'b' has no bases.*line 3"),
        (b">a\nAC\n>b\n", "record 'b' has no bases"),
        (b">a\nAC\n>b", "record 'b' has no bases"),
        (b">a\nAC\n>b\nAC\n>a\nGG\n", r"two records have the name 'a'.*line 5, and .*line 1"),
        (b">\nAC\n", "record has no name"),
        (b">a\nACGT\nACJT\n", r"not an IUPAC.*record 'a', offset 6 \(0-based\), line 3.*Got: 'J'"),
        (b">a\nAC\xc3\xa9\n", r"offset 2 .*Got: byte 0xc3"),
        (b">a\nAC>GT\n", r"offset 2 .*line 2.*Got: '>'"),
    ],
)
def test_broken_text_is_named(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        read(write(tmp_path, text))


def test_missing_file_names_the_nearest(tmp_path):
    write(tmp_path, TEXT, "yeast.fa.gz")
    with pytest.raises(UserError, match=r"no such FASTA file.*'yeast\.fa\.gz'"):
        read_fasta(tmp_path / "yeats.fa.gz")
    with pytest.raises(UserError, match="folder"):
        read_fasta(tmp_path)


@pytest.mark.parametrize("pack", [gzip.compress, bgzip])
@pytest.mark.parametrize("cut", [5, 30])
def test_truncated_gzip(tmp_path, pack, cut):
    packed = pack(TEXT * 1)
    with pytest.raises(UserError, match="ends too early"):
        read(write(tmp_path, packed[:-cut]))


def test_bgzip_cut_between_blocks_is_found(tmp_path):
    packed = bgzip(TEXT)
    with pytest.raises(UserError, match="ends too early"):
        read(write(tmp_path, packed[: -len(BGZIP_END)]))


def test_damaged_gzip(tmp_path):
    packed = bytearray(gzip.compress(TEXT))
    packed[15] ^= 0xFF
    with pytest.raises(UserError, match=r"damaged|ends too early"):
        read(write(tmp_path, bytes(packed)))


def test_names_must_differ_between_files(tmp_path):
    one, two = write(tmp_path, b">a\nAC\n", "one.fa"), write(tmp_path, b">b\nAC\n>a\nGG\n", "two.fa")
    with pytest.raises(UserError, match=r"two records have the name 'a'.*two\.fa, line 3, and .*one\.fa, line 1"):
        list(read_fasta_files([one, two]))


def two_bit(records: dict[str, str], order: str = "<") -> bytes:
    def u4(*numbers: int) -> bytes:
        return struct.pack(f"{order}{len(numbers)}I", *numbers)

    def runs(flags: np.ndarray) -> bytes:
        edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(int), [0]])))
        starts, ends = edges[0::2], edges[1::2]
        return u4(len(starts), *starts.tolist(), *(ends - starts).tolist())

    index, bodies = b"", b""
    offset = 16 + sum(5 + len(name) for name in records)
    for name, sequence in records.items():
        index += bytes([len(name)]) + name.encode() + u4(offset + len(bodies))
        letters = np.array(list(sequence))
        codes = [max(0, "TCAG".find(letter)) for letter in sequence.upper()] + [0, 0, 0]
        packed = bytes(codes[i] << 6 | codes[i + 1] << 4 | codes[i + 2] << 2 | codes[i + 3] for i in range(0, len(sequence), 4))
        bodies += u4(len(sequence)) + runs(np.char.upper(letters) == "N") + runs(np.char.islower(letters)) + u4(0) + packed
    return u4(0x1A412743, 0, len(records), 0) + index + bodies


@pytest.mark.parametrize("order", ["<", ">"])
def test_two_bit_gives_the_same_letters(tmp_path, order):
    records = {"chr1": "ACGTNNNacgtnACGTT", "chr2": "T", "chrM": "gattaca"}
    path = write(tmp_path, two_bit(records, order), "genome.2bit")
    assert read(path) == records
    assert read(path, include=("chrM",)) == {"chrM": "gattaca"}
    with pytest.raises(UserError, match="cut short"):
        read(write(tmp_path, two_bit(records, order)[:-2], "cut.2bit"))


def test_peak_memory_is_below_three_bytes_a_base(tmp_path):
    n = 30_000_000
    line = b"ACGT" * 15 + b"\n"
    path = write(tmp_path, b">big\n" + line * (n // 60))
    tracemalloc.start()
    try:
        (record,) = read_fasta(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(record.letters) == n
    assert peak < 3 * n
