"""Motif files, exact score distributions, and a scan against a plain loop over both strands."""

from __future__ import annotations

from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest

from grover_dist.errors import UserError
from grover_dist.finetune.builders.motifs import (
    MA0139_1,
    SCALE,
    Motif,
    log_odds,
    read_motif,
    score_distribution,
    threshold,
)
from grover_dist.finetune.builders.scan import base_frequencies, first_of_overlapping, scan, score_places

BACKGROUND = np.array([0.3, 0.2, 0.2, 0.3])
JASPAR = ">MA1.1\tone\nA [ 8 1 0 ]\nC [ 0 1 9 ]\nG [ 1 7 0 ]\nT [ 1 1 1 ]\n>MA2.1 two\n1 2\n3 4\n5 6\n7 8\n"
MEME = """MEME version 4

ALPHABET= ACGT

MOTIF MA1.1 one
letter-probability matrix: alength= 4 w= 3 nsites= 10 E= 0
 0.8 0.0 0.1 0.1
 0.1 0.1 0.7 0.1
 0.0 0.9 0.0 0.1
URL http://example.org
"""


def test_jaspar_and_meme_say_the_same(tmp_path):
    (tmp_path / "a.jaspar").write_text(JASPAR)
    (tmp_path / "a.meme").write_text(MEME)
    one = read_motif(tmp_path / "a.jaspar", "one")
    assert np.allclose(one.counts, read_motif(tmp_path / "a.meme").counts) and one.width_bp == 3
    assert read_motif(tmp_path / "a.jaspar", "MA2.1").counts.tolist() == [[1, 3, 5, 7], [2, 4, 6, 8]]


def test_the_ctcf_motif_is_whole():
    motif = read_motif(MA0139_1)
    assert motif.width_bp == 19 and motif.counts.sum(axis=1).min() == 908
    assert "".join("ACGT"[base] for base in motif.counts.argmax(axis=1)) == "TGGCCACCAGGGGGCGCTA"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (JASPAR, "several motifs"),
        (">x\n1 2\n3 4\n5 6\n", "four lines"),
        (">x\n0 2\n0 4\n0 6\n0 1\n", "no or negative counts"),
        ("nothing", "no motif"),
        ("MEME version 4\nMOTIF a\n", "no letter-probability"),
        ("MEME version 4\nMOTIF a\nletter-probability matrix: w= 3\n0.1 0.2 0.3 0.4\n", "not as many lines"),
    ],
)
def test_faults_of_motif_files_are_named(tmp_path, text, message):
    (tmp_path / "m.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        read_motif(tmp_path / "m.txt")


def random_motif(width, seed=0):
    return Motif("random", np.random.default_rng(seed).gamma(0.5, 10, (width, 4)) + 0.01)


@pytest.mark.parametrize("width", [1, 3, 6])
def test_the_score_distribution_is_that_of_all_words(width):
    scores = log_odds(random_motif(width), BACKGROUND)
    lowest, distribution = score_distribution(scores, BACKGROUND)
    expected = np.zeros_like(distribution)
    for word in product(range(4), repeat=width):
        expected[sum(scores[i, base] for i, base in enumerate(word)) - lowest] += np.prod(BACKGROUND[list(word)])
    assert np.allclose(distribution, expected) and distribution.sum() == pytest.approx(1)
    total = {word: sum(scores[i, base] for i, base in enumerate(word)) for word in product(range(4), repeat=width)}
    for p_value in (0.5, 0.1, 0.02):
        try:
            least = threshold(scores, BACKGROUND, p_value)
        except UserError:
            assert width == 1
            continue
        reached = sum(np.prod(BACKGROUND[list(word)]) for word, score in total.items() if score >= least)
        lower = max((score for score in total.values() if score < least), default=None)
        assert reached <= p_value * (1 + 1e-9)
        assert lower is None or sum(np.prod(BACKGROUND[list(word)]) for word, score in total.items() if score >= lower) > p_value


def test_a_motif_too_short_for_the_p_value_is_refused():
    with pytest.raises(UserError, match="too short for this p-value"):
        threshold(log_odds(random_motif(3), BACKGROUND), BACKGROUND, 1e-9)


def store_of(texts):
    codes = np.array(["ACGT".index(letter) for text in texts for letter in text], np.uint8)
    edges = np.concatenate([[0], np.cumsum([len(text) for text in texts])])
    return SimpleNamespace(base=lambda a, b: codes[a:b], contigs=SimpleNamespace(row_start=edges, n_rows=len(codes)))


def test_sites_equal_a_loop_over_both_strands():
    generator = np.random.default_rng(3)
    store = store_of(["".join(generator.choice(list("ACGT"), n)) for n in (700, 5, 900)])
    motif = random_motif(6, seed=2)
    found = scan(store, motif, 5e-3)
    scores = log_odds(motif, base_frequencies(store))
    least = threshold(scores, base_frequencies(store), 5e-3)
    hits = {}
    for start, stop in ((0, 700), (700, 705), (705, 1_605)):
        for row in range(start, stop - 5):
            word = store.base(row, row + 6)
            both = [int(scores[np.arange(6), w].sum()) for w in (word, 3 - word[::-1])]
            if max(both) >= least:
                hits[row] = (max(both), both[1] > both[0])
    kept = {}
    for row in sorted(hits, key=lambda row: (-hits[row][0], row)):
        if all(abs(row - other) >= 6 for other in kept):
            kept[row] = hits[row]
    assert 5 < len(kept) < len(hits) + 1
    assert found.row.tolist() == sorted(kept)
    assert [(round(score * SCALE), bool(minus)) for score, minus in zip(found.score, found.minus, strict=True)] == [
        kept[row] for row in sorted(kept)
    ]
    assert found.threshold == least / SCALE and found.best >= found.score.max()


def test_sequences_shorter_than_the_motif_have_no_place():
    scores = log_odds(random_motif(6), BACKGROUND)
    assert len(score_places(np.zeros(5, np.uint8), scores, scores)[0]) == 0


def test_the_best_of_overlapping_sites_stays():
    start, score = np.array([0, 3, 5, 20]), np.array([5, 9, 7, 1])
    assert first_of_overlapping(start, score, 4).tolist() == [1, 3]
    assert first_of_overlapping(start, score, 3).tolist() == [0, 1, 3]
