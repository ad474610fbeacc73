from __future__ import annotations

import json
import pickle
import random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from grover_dist.bpe import encode
from grover_dist.bpe.encode import encode_codes, encode_many
from grover_dist.bpe.reference import encode_reference, learn_reference
from grover_dist.bpe.vocabulary import Vocabulary
from grover_dist.errors import UserError
from tests.bpe.hostile_cases import hostile_contig, merges_of

SMALL = Vocabulary.from_rows([(8, 8, 30), (5, 8, 20), (9, 9, 10), (10, 5, 4)])  # TT, AT, TTTT, ATA


def test_ids_strings_and_lengths():
    assert SMALL.cycles == 4 and SMALL.size == 13
    assert SMALL.strings() == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "A", "C", "G", "T", "TT", "AT", "TTTT", "ATA"]
    assert SMALL.lengths().tolist() == [0] * 5 + [1] * 4 + [2, 2, 4, 3]
    assert SMALL.at(2).strings() == SMALL.strings(2) == SMALL.strings()[:11]


def test_a_file_of_merges_comes_back(tmp_path):
    SMALL.write(tmp_path, {"note": 1})
    assert (tmp_path / "merges.txt").read_text() == "T T 30\nA T 20\nTT TT 10\nAT A 4\n"
    assert Vocabulary.read(tmp_path) == SMALL
    described = json.loads((tmp_path / "vocabulary.json").read_text())
    assert described["tokens"]["ATA"] == 12 and described["size"] == 13 and described["note"] == 1


@pytest.mark.parametrize("text", ["T T\n", "T T 3\nTT C x\n", "A TT 3\n", "T T 3\nT T 2\n", "T N 3\n"])
def test_a_wrong_line_is_named(tmp_path, text):
    (tmp_path / "merges.txt").write_text(text)
    with pytest.raises(UserError, match=f"line {text.count(chr(10))}"):
        Vocabulary.read(tmp_path)


def test_more_cycles_than_learned_is_an_error():
    with pytest.raises(UserError, match="fewer cycles"):
        SMALL.at(5)


def test_pickles_without_its_tables():
    encode_codes(np.zeros(3, np.uint8), SMALL)
    assert pickle.loads(pickle.dumps(SMALL)) == SMALL
    assert len(pickle.dumps(SMALL)) < 1_000


@pytest.fixture(scope="module")
def learned() -> tuple[np.ndarray, Vocabulary]:
    rng = np.random.default_rng(11)
    text = np.concatenate([rng.integers(0, 2, 700), np.tile([0, 3, 3], 60), np.zeros(90, int), rng.integers(0, 4, 500)]).astype(np.uint8)
    merges, _ = learn_reference([text.tolist()], 90)
    return text, Vocabulary.from_rows([(a + 5, b + 5, n) for a, b, n in merges])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1_300), st.integers(0, 700), st.integers(0, 80), st.integers(0, 3))
def test_encoding_equals_the_oracle(learned, start, length, cycles, mutations):
    text, vocabulary = learned
    piece = text[start : start + length].copy()
    piece[: mutations * 40 : 7] = 2
    expected = [token + 5 for token in encode_reference(piece.tolist(), merges_of(vocabulary)[:cycles])]
    assert encode_codes(piece, vocabulary, cycles).tolist() == expected


def test_runs_longer_than_the_short_path(learned):
    _, vocabulary = learned
    for n in (255, 256, 257, 1_001):
        run = np.zeros(n, np.uint8)
        expected = [token + 5 for token in encode_reference(run.tolist(), merges_of(vocabulary))]
        assert encode_codes(run, vocabulary).tolist() == expected


def test_unknown_codes_are_one_unk_each_and_break_the_sequence():
    assert encode_codes(np.array([3, 3, 4, 3, 3, 255, 255, 0], np.uint8), SMALL).tolist() == [9, 1, 9, 1, 1, 5]
    assert encode_codes(np.array([], np.uint8), SMALL).tolist() == []


def test_many_sequences_are_encoded_each_by_itself(learned):
    text, vocabulary = learned
    rows = text[: 28 * 50].reshape(28, 50)
    ids, counts = encode_many(rows, vocabulary, 60)
    assert ids.shape == (28, counts.max())
    for row, found, count in zip(rows, ids, counts, strict=True):
        assert found[:count].tolist() == encode_codes(row, vocabulary, 60).tolist()
        assert not found[count:].any()


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32 - 1),
    cycles=st.integers(0, 80),
    chunk=st.sampled_from([1, 2, 5, 17, 64, 300]),
    overlap=st.sampled_from([1, 4, 30, 4_096]),
)
def test_a_long_sequence_in_chunks_equals_the_whole(learned, monkeypatch, seed, cycles, chunk, overlap):
    monkeypatch.setattr(encode, "_OVERLAP", overlap)
    _, vocabulary = learned
    rng = random.Random(seed)
    codes = np.array(sum((hostile_contig(rng) for _ in range(rng.randrange(1, 12))), []), np.uint8)  # noqa: RUF017
    for _ in range(rng.choice([0, 0, 1, 5])):
        codes[rng.randrange(len(codes))] = 4
    whole = encode_codes(codes, vocabulary, cycles, chunk=1 << 30)
    assert encode_codes(codes, vocabulary, cycles, chunk=chunk).tolist() == whole.tolist()


def test_a_run_of_one_base_over_many_chunks(learned):
    _, vocabulary = learned
    codes = np.concatenate([[1, 2, 3], np.zeros(5_001), [3, 0, 0, 0, 0, 0]]).astype(np.uint8)
    whole = encode_codes(codes, vocabulary, chunk=1 << 30)
    for chunk in (7, 100, 1_000):
        assert encode_codes(codes, vocabulary, chunk=chunk).tolist() == whole.tolist()


def test_only_chunks_go_through_the_lists(learned, monkeypatch):
    """Memory is that of a chunk: 48 bytes a base of it."""
    _, vocabulary = learned
    sizes, encode_whole = [], encode._encode

    def spy(codes, *rest):
        sizes.append(len(codes))
        return encode_whole(codes, *rest)

    monkeypatch.setattr(encode, "_encode", spy)
    codes = np.random.default_rng(0).integers(0, 4, 1_500_000).astype(np.uint8)
    codes[1_400_000] = 4
    encode_codes(codes, vocabulary)
    assert max(sizes) <= encode._CHUNK + encode._OVERLAP
    assert sum(sizes) < 1.1 * len(codes)  # linear: the overlaps are small
