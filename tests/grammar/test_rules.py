"""Phrases and position rules: by hand, planted ones found, and nothing where the order of bases is chance."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from grover_dist.config import config_from
from grover_dist.corpus.build import build_corpus
from grover_dist.corpus.corpus import Corpus
from grover_dist.genome.shuffle import shuffle_dinucleotides
from grover_dist.genome.stage import build_genome
from grover_dist.grammar.counting import SparseCounts, count_words, make_bins, shards
from grover_dist.grammar.phrases import ShuffledCounts, pairs_beyond_chance, phrases_beyond_chance
from grover_dist.grammar.positions import Anchors, position_rules
from grover_dist.grammar.stage import find_phrases
from grover_dist.run_dir import RunDir

CYCLES, N, MOTIF = 120, 300_000, "GCATGCAAGTCCTGAT"
SIZE = 10  # of the vocabulary in the cases by hand


def letters(codes: np.ndarray) -> str:
    return "".join("ACGT"[code] for code in codes)


def learned(folder, text: str) -> SimpleNamespace:
    (folder / "genome.fa").write_text(f">one\n{text}\n")
    settings = {"run": {"dir": str(folder / "run")}, "genome": {"fasta": str(folder / "genome.fa")}, "bpe": {"cycles": CYCLES}}
    config = config_from(settings | {"pretrain": {"candidates": [CYCLES]}, "split": {"block_bp": 5_000}})
    run = RunDir.open(config)
    corpus = build_corpus(config, run, build_genome(config, run, say=lambda _: None), say=lambda _: None)
    return SimpleNamespace(config=config, corpus=Corpus.open(corpus))


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> SimpleNamespace:
    """A motif at every hundredth base or so, on both strands; between them chance."""
    random = np.random.default_rng(1)
    codes = random.choice(4, N, p=[0.3, 0.2, 0.2, 0.3]).astype(np.uint8)
    motif = np.array(["ACGT".index(letter) for letter in MOTIF], np.uint8)
    starts, minus = np.arange(2_000, N - 2_000, 1_000), random.random(len(range(2_000, N - 2_000, 1_000))) < 0.5
    for start, turned in zip(starts, minus, strict=True):
        codes[start : start + len(motif)] = 3 - motif[::-1] if turned else motif
    found = learned(tmp_path_factory.mktemp("planted"), letters(codes))
    first = np.where(minus, starts + len(motif) - 1, starts)
    return SimpleNamespace(**vars(found), codes=codes, anchors=Anchors("motif", first, minus))


@pytest.fixture(scope="module")
def shuffled(planted, tmp_path_factory) -> SimpleNamespace:
    return learned(tmp_path_factory.mktemp("shuffled"), letters(shuffle_dinucleotides(planted.codes, 7)))


def phrases(genome: SimpleNamespace):
    pieces = shards(genome.corpus, CYCLES, 2)
    counts = count_words(genome.corpus, CYCLES, 0, genome.corpus.store.n_rows, make_bins(genome.corpus, 10))
    return find_phrases(genome.config, genome.corpus, CYCLES, counts, pieces)


def test_pairs_by_hand() -> None:
    """Ten tokens 5 5, five 5 6 and five 6 5: margins, Fisher's tail, and the shuffled genome's count as the second null."""
    pairs = SparseCounts(np.array([55, 56, 65]), np.array([10, 5, 5]))
    none = ShuffledCounts(20, {2: SparseCounts(np.array([99]), np.array([1]))})
    found = pairs_beyond_chance(pairs, SIZE, none, min_count=5)
    assert found.expected.tolist() == pytest.approx([15 * 15 / 20, 15 * 5 / 20, 5 * 15 / 20])
    assert found.p[1] == pytest.approx(max(stats.hypergeom.sf(4, 20, 15, 5), stats.binom.sf(4, 5, 0.5)))
    many = ShuffledCounts(20, {2: SparseCounts(np.array([56]), np.array([9]))})
    assert pairs_beyond_chance(pairs, SIZE, many, min_count=5).p[1] > 0.5
    assert pairs_beyond_chance(pairs, SIZE, many, min_count=5).shuffled[1] == 9
    assert len(pairs_beyond_chance(pairs, SIZE, none, min_count=6)) == 1


def test_triples_against_a_chain_of_pairs() -> None:
    """5 6 7 ten times; 5 6 occurs 20 times, 6 7 occurs 30 times, 6 occurs 60 times: 10 are expected."""
    triples = SparseCounts(np.array([567]), np.array([10]))
    shorter = SparseCounts(np.array([56, 67]), np.array([20, 30]))
    none = ShuffledCounts(1_000, {3: SparseCounts(np.array([1]), np.array([1]))})
    found = phrases_beyond_chance(triples, 3, shorter, np.array([60]), SIZE, 1_000, none, min_count=5)
    assert found.expected[0] == pytest.approx(10) and found.fold[0] == pytest.approx(1) and found.p[0] > 0.5
    assert found.table([str(i) for i in range(SIZE)]).to_pylist()[0]["words"] == ["5", "6", "7"]


def test_the_planted_motif_is_among_the_phrases(planted) -> None:
    strings = planted.corpus.vocabulary.strings(CYCLES)
    found = ["".join(strings[i] for i in ids) for part in phrases(planted) for ids, q in zip(part.ids, part.q, strict=True) if q < 0.05]
    complement = MOTIF.translate(str.maketrans("ACGT", "TGCA"))[::-1]
    pieces = [text for text in found if len(text) >= 5 and (text in MOTIF or text in complement)]
    assert len(pieces) >= 2


def test_a_shuffled_genome_has_no_phrases(shuffled) -> None:
    found = phrases(shuffled)
    assert len(found) >= 2 and len(found[0]) > 500  # enough was tested
    assert sum(int((part.q < 0.05).sum()) for part in found) <= 2


def test_words_of_the_motif_stand_at_their_place_on_both_strands(planted) -> None:
    rules = position_rules(planted.corpus, CYCLES, planted.anchors, flank_bp=60, bin_bp=5, seed=1)
    strings = planted.corpus.vocabulary.strings(CYCLES)
    beyond = rules.q < 0.01
    assert beyond.sum() >= 3 and rules.anchors == len(planted.anchors.rows)
    places = rules.place_bp[beyond]
    assert ((places >= -5) & (places <= 20)).all()  # nowhere but at the motif, or at a word that its edge takes in
    inside = [strings[w] for w, at in zip(rules.word[beyond], places, strict=True) if 0 <= at < 10]
    assert any(word in MOTIF for word in inside)


def test_no_rules_where_nothing_was_planted(shuffled, planted) -> None:
    rules = position_rules(shuffled.corpus, CYCLES, planted.anchors, flank_bp=60, bin_bp=5, seed=1)
    assert len(rules.word) > 300 and (rules.q < 0.05).sum() <= 1


def test_too_few_anchors_are_said(planted) -> None:
    few = Anchors("edge", np.array([5, 40, 299_990]), np.zeros(3, bool))
    assert "0 anchors have 160 bases" in position_rules(planted.corpus, CYCLES, few, flank_bp=60, bin_bp=5, seed=1)
