"""Rows, regions and windows to tokens, against the slow oracle and the exported tokenizer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grover_dist.corpus import token_table
from grover_dist.corpus.build import build_corpus
from grover_dist.corpus.corpus import Corpus
from grover_dist.corpus.token_table import make_table
from grover_dist.errors import UserError
from grover_dist.genome.stage import build_genome
from grover_dist.run_dir import RunDir

CYCLES = 120  # of the `learned` fixture


def quiet(_: str) -> None: ...


@pytest.mark.parametrize("cycles", [0, 7, CYCLES])
def test_ids_of_whole_contigs_are_the_oracles(learned, rechunked, cycles):
    edges = learned.store.contigs.row_start
    for contig in range(1, len(edges) - 1):  # the first is long
        expected = learned.reference_ids(contig, cycles)
        assert learned.corpus.ids_of_rows(edges[contig], edges[contig + 1], cycles).tolist() == expected
        assert rechunked.ids_of_rows(edges[contig], edges[contig + 1], cycles).tolist() == expected


def test_tokens_longer_than_a_machine_word(learned):
    """A run of 6,000 A makes tokens far beyond 32 bases, which no 2-bit key could hold."""
    lengths = learned.corpus.vocabulary.lengths()
    assert lengths.max() > 100
    ids = learned.corpus.ids_of_rows(0, learned.store.n_rows, CYCLES)
    assert lengths[ids].max() > 100
    assert lengths[ids].sum() == learned.store.n_rows


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_region_and_back(learned, data):
    corpus = learned.corpus
    contigs = corpus.store.contigs
    record = data.draw(st.sampled_from(contigs.record_names))
    length = contigs.record_lengths_bp[contigs.record_index(record)]
    start = data.draw(st.integers(0, length - 1))
    end = data.draw(st.integers(start + 1, min(length, start + 7_000)))
    cycles = data.draw(st.sampled_from([0, 3, 50, CYCLES]))
    tokens = corpus.tokens(record, start, end, cycles)
    strings = corpus.vocabulary.strings()
    index = tokens.token_of_base(start, end)
    rows = contigs.rows_of_positions(np.full(end - start, contigs.record_index(record)), np.arange(start, end))
    # Exactly the real bases of the region have a token, and the token shows their letter at their place.
    assert ((index >= 0) == (rows >= 0)).all()
    for position in range(start, end, 1 + (end - start) // 50):
        token = index[position - start]
        if token >= 0:
            letter = strings[tokens.ids[token]][position - tokens.start_bp[token]]
            row = rows[position - start]
            assert letter == "ACGT"[corpus.store.base(row, row + 1)[0]]
    # The same tokens as those of the whole record that overlap the region.
    whole = corpus.tokens(record, 0, length, cycles)
    inside = (whole.start_bp < end) & (whole.end_bp > start)
    assert tokens.ids.tolist() == whole.ids[inside].tolist()
    assert tokens.start_bp.tolist() == whole.start_bp[inside].tolist()
    assert tokens.end_bp.tolist() == whole.end_bp[inside].tolist()
    assert (corpus.vocabulary.lengths()[tokens.ids] == tokens.end_bp - tokens.start_bp).all()


def test_windows_are_the_same_rows(learned, rechunked):
    rng = np.random.default_rng(5)
    for cycles in (4, CYCLES):
        starts = learned.corpus.starts_of_rows(0, learned.store.n_rows, cycles)
        first = rng.integers(0, len(starts) - 40, 200)
        row_start, row_stop = starts[first], starts[first + 30]
        out = np.full((200, 33), -7, np.int64)
        again = out.copy()
        learned.corpus.ids_of_windows(row_start, row_stop, cycles, out, column=2)
        rechunked.ids_of_windows(row_start, row_stop, cycles, again, column=2)
        expected = [learned.corpus.ids_of_rows(a, b, cycles).tolist() for a, b in zip(row_start, row_stop, strict=True)]
        assert out[:, 2:32].tolist() == again[:, 2:32].tolist() == expected
        assert (out[:, [0, 1, 32]] == -7).all()
        assert (again[:, [0, 1, 32]] == -7).all()


@pytest.mark.parametrize("window", [(-1, 5), (5, 5), (7, 3), (5, 10**9)])
def test_windows_that_are_not_there(learned, window):
    with pytest.raises(IndexError, match="a window is empty"):
        learned.corpus.ids_of_windows(np.array([window[0]]), np.array([window[1]]), 5, np.zeros((1, 99), np.int64))


def test_no_window(learned):
    learned.corpus.ids_of_windows(np.empty(0, np.int64), np.empty(0, np.int64), 5, np.zeros((0, 9), np.int64))


def test_rows_inside_a_token(learned):
    starts = learned.corpus.starts_of_rows(0, 5_000, CYCLES)
    inside = int(np.setdiff1d(np.arange(5_000), starts)[0])
    with pytest.raises(ValueError, match="inside a token"):
        learned.corpus.ids_of_rows(0, inside, CYCLES)


@pytest.mark.parametrize("cycles", [-1, CYCLES + 1])
def test_a_vocabulary_that_was_not_learned(learned, cycles):
    with pytest.raises(UserError, match=r"was not learned.*Expected: 0 to 120"):
        learned.corpus.tokens("big", 0, 10, cycles)


def test_a_region_on_an_unknown_record(learned):
    with pytest.raises(UserError, match="nearest: 'short'"):
        learned.corpus.tokens("shorts", 0, 10, 5)


def test_a_multiplier_that_makes_two_keys_equal_is_not_used(learned, monkeypatch):
    vocabulary = learned.corpus.vocabulary
    monkeypatch.setattr(token_table, "_MULTIPLIERS", (2**32, *token_table._MULTIPLIERS))  # its powers vanish: long tokens collide
    assert int(make_table(vocabulary.left, vocabulary.right).multiplier) == token_table._MULTIPLIERS[1]


def test_a_store_of_other_merges(learned, tmp_path):
    import shutil

    copied = shutil.copytree(learned.artifact.path, tmp_path / "copy")
    lines = (copied / "merges.txt").read_text().splitlines(keepends=True)
    (copied / "merges.txt").write_text("".join(lines[:-1]))
    with pytest.raises(UserError, match="not made by these merges"):
        Corpus.open(copied)


def test_a_token_that_the_vocabulary_lacks_is_an_error_not_an_id(learned):
    vocabulary = learned.corpus.vocabulary
    other = Corpus(learned.store, type(vocabulary)(vocabulary.left[::-1] * 0 + 5, vocabulary.right * 0 + 5, vocabulary.count))
    other._tables[CYCLES] = make_table(np.array([6]), np.array([6]))
    with pytest.raises(UserError, match="a token that its vocabulary does not"):
        other.ids_of_rows(0, learned.store.n_rows, CYCLES)
    with pytest.raises(UserError, match="a token that its vocabulary does not"):
        other.ids_of_windows(np.array([0]), np.array([int(learned.store.contigs.row_start[1])]), CYCLES, np.zeros((1, 99_999), np.int64))


@pytest.mark.parametrize(("file", "record"), [("yeast/R64-1-1.fa.gz", "I"), ("human/hg19_chr22_1-22000000.fa.gz", "22")])
def test_real_records_equal_the_exported_tokenizer(data_dir, settings_for, tmp_path, file, record):
    """Ids, starts and ends, N as one [UNK] each, lower case read as upper case."""
    from grover_dist.genome.fasta import read_fasta

    config = settings_for(
        tmp_path / "run", data_dir / file, genome={"fasta": str(data_dir / file), "include": [record]}, bpe={"cycles": 300}
    )
    run = RunDir.open(config)
    corpus = Corpus.open(build_corpus(config, run, build_genome(config, run, say=quiet), n_workers=2, say=quiet))
    (read,) = read_fasta(data_dir / file, include=(record,))
    start, end = (0, 230_218) if record == "I" else (17_000_000, 17_300_000)
    if record == "22":
        piece = corpus.store.contigs.rows_of(record, start, end)
        assert piece
        start = int(corpus.store.contigs.start_bp[corpus.store.contigs.contig_of(np.array([piece[0][0]]))[0]]) - 50
        end = start + 300_050
    for cycles in (20, 300):
        tokens = corpus.tokens(record, start, end, cycles)
        stop = int(tokens.end_bp[-1])
        encoding = corpus.vocabulary.to_tokenizer(cycles).encode(read.letters[start:stop].tobytes().decode(), add_special_tokens=False)
        kept = [(token, *span) for token, span in zip(encoding.ids, encoding.offsets, strict=True) if token != 1]
        # Where the text was cut out of a longer contig, its end may be tokenized otherwise.
        n = len(kept) - 50
        found = list(zip(tokens.ids.tolist(), (tokens.start_bp - start).tolist(), (tokens.end_bp - start).tolist(), strict=True))
        assert found[:n] == kept[:n]
        assert n > 10_000
