"""The exported tokenizer gives the learner's ids, and Hugging Face's trainer the learner's merges where its rule is ours."""

from __future__ import annotations

import gzip
import random
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, trainers

from grover_dist.bpe.encode import encode_codes
from grover_dist.bpe.reference import learn_reference
from grover_dist.bpe.vocabulary import Vocabulary
from tests.bpe.hostile_cases import hostile_contig, learn_levels, merges_of


def read_record(path: Path, name: str) -> str:
    lines, inside = [], False
    with gzip.open(path, "rt") as handle:
        for line in handle:
            if line.startswith(">"):
                if inside:
                    break
                inside = line[1:].split()[0] == name
            elif inside:
                lines.append(line.strip())
    return "".join(lines)


def codes_of(text: str) -> np.ndarray:
    codes = np.full(256, 255, np.uint8)
    for code, base in enumerate("ACGT"):
        codes[ord(base)] = codes[ord(base.lower())] = code
    return codes[np.frombuffer(text.encode(), np.uint8)]


def contigs_of(codes: np.ndarray) -> list[np.ndarray]:
    known = np.concatenate([[False], codes < 4, [False]])
    edges = np.flatnonzero(known[1:] != known[:-1]).reshape(-1, 2)
    return [codes[start:stop] for start, stop in edges]


def check_whole_text(text: str, cycles: int) -> None:
    contigs = contigs_of(codes_of(text))
    vocabulary, levels = learn_levels(contigs, [], cycles)
    expected, row = [], 0
    starts = iter(contigs)
    position = 0
    codes = codes_of(text)
    while position < len(codes):
        if codes[position] > 3:
            expected.append(1)
            position += 1
            continue
        contig = next(starts)
        boundaries = np.flatnonzero(levels[row : row + len(contig)] > cycles)
        bases = "".join("ACGT"[code] for code in contig)
        ids = {string: token for token, string in enumerate(vocabulary.strings())}
        ends = [*boundaries[1:].tolist(), len(contig)]
        expected += [ids[bases[a:b]] for a, b in zip(boundaries.tolist(), ends, strict=True)]
        position += len(contig)
        row += len(contig)
    found = vocabulary.to_tokenizer(cycles).encode(text, add_special_tokens=False).ids
    assert found == expected
    assert encode_codes(codes, vocabulary, cycles).tolist() == expected


def test_yeast_chromosome_one_whole(data_dir):
    text = read_record(data_dir / "yeast" / "R64-1-1.fa.gz", "I")
    assert len(text) == 230_218
    check_whole_text(text, 600)


def test_chr22_with_its_gaps_and_lower_case(data_dir):
    text = read_record(data_dir / "human" / "hg19_chr22_1-22000000.fa.gz", "22")[19_180_000:19_320_000]
    assert "N" in text and "a" in text and len(contigs_of(codes_of(text))) > 2
    check_whole_text(text, 300)


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return learn_levels([np.random.default_rng(3).integers(0, 4, 4_000)], [], 50)[0]


def test_auto_tokenizer_loads_it(vocabulary, tmp_path):
    from transformers import AutoTokenizer

    vocabulary.save_tokenizer(tmp_path, 40, max_length=512)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert len(tokenizer) == 49 and tokenizer.model_max_length == 512
    assert [tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.mask_token_id] == [
        0,
        1,
        2,
        3,
        4,
    ]
    assert tokenizer.convert_ids_to_tokens(list(range(49))) == vocabulary.strings(40)
    ids = tokenizer("acgNNryACG\nT[MASK]A")["input_ids"]
    assert ids[0] == 2 and ids[-1] == 3 and ids.count(1) == 5 and ids.count(4) == 1
    assert tokenizer("ACGT" * 300, truncation=True)["input_ids"][-1] == 3
    assert (
        tokenizer("acgtt", add_special_tokens=False)["input_ids"]
        == encode_codes(np.array([0, 1, 2, 3, 3], np.uint8), vocabulary, 40).tolist()
    )
    tokenizer.save_pretrained(tmp_path / "again")
    assert AutoTokenizer.from_pretrained(tmp_path / "again")("ACGTTAG")["input_ids"] == tokenizer("ACGTTAG")["input_ids"]


def hugging_face_merges(contigs: list[list[int]], n: int, min_frequency: int = 2) -> list[tuple[str, str]]:
    """Each contig is one word. The trainer sorts its alphabet, as we do."""
    import json

    tokenizer = Tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(vocab_size=4 + n, min_frequency=min_frequency, show_progress=False, initial_alphabet=list("ACGT"))
    tokenizer.train_from_iterator(["".join("ACGT"[base] for base in contig) for contig in contigs], trainer)
    return [tuple(merge) for merge in json.loads(tokenizer.to_str())["model"]["merges"]]


def letters_of(merges: list[tuple[int, int, int]]) -> list[tuple[str, str]]:
    strings, pairs = list("ACGT"), []
    for left, right, _ in merges:
        pairs.append((strings[left], strings[right]))
        strings.append(strings[left] + strings[right])
    return pairs


def test_hugging_face_trainer_agrees_on_every_short_sequence():
    words = [
        list(word) for letters, longest in ((2, 7), (3, 5)) for n in range(1, longest + 1) for word in product(range(letters), repeat=n)
    ]
    pairs = [[left, right] for left in words[:30] for right in words[:30]]  # two contigs of up to four bases
    for contigs in [[word] for word in words] + pairs:
        expected = letters_of(learn_reference(contigs, 30)[0])
        assert hugging_face_merges(contigs, 30) == expected, contigs


def test_hugging_face_trainer_differs_where_a_pair_occurs_once():
    """The smallest example, AC: the trainer's own default merges what occurs once; we stop, as a token that occurs once says nothing."""
    assert learn_reference([[0, 1]], 1)[0] == []
    assert hugging_face_merges([[0, 1]], 1, min_frequency=0) == [("A", "C")]
    assert hugging_face_merges([[0, 1]], 1) == []


def test_hugging_face_trainer_agrees():
    rng = random.Random(4)
    compared = 0
    for _ in range(80):
        contigs = [hostile_contig(rng) for _ in range(rng.randrange(1, 4))]
        merges, _ = learn_reference(contigs, 30)
        if not merges:
            continue
        vocabulary, _ = learn_levels(contigs, [], len(merges))
        strings = vocabulary.strings()[5:]
        ours = [(strings[a], strings[b]) for a, b, _ in merges_of(vocabulary)]
        assert hugging_face_merges(contigs, len(merges)) == ours
        compared += len(merges)
    assert compared > 300
