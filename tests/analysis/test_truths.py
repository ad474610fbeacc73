"""Each question says yes where its truth is there, and no where it is not."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from grover_dist.analysis import truths
from grover_dist.analysis.token_statistics import TokenStatistics, token_statistics
from grover_dist.corpus.corpus import Corpus


def statistics_of(words: list[str], masked: list[float] | None = None) -> TokenStatistics:
    """Every word occurs 100 times; `masked`: its share of soft-masked bases."""
    strings = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    length = np.array([0] * 5 + [len(word) for word in words])
    count = np.array([0] * 5 + [100] * len(words))
    share = np.array([0.0] * 5 + (masked or [0.0] * len(words)))
    zeros = np.zeros(len(strings))
    return TokenStatistics(strings, length, zeros, zeros, zeros, count, (share * count * length).astype(int))


def test_planted_share_is_the_soft_mask_of_a_synthetic_genome(small_run) -> None:
    corpus = Corpus.open(small_run.learn)
    statistics = token_statistics(corpus, small_run.chosen)
    share = truths.planted_share(corpus, small_run.chosen, small_run.genome, len(statistics.strings))
    used = statistics.count > 0
    np.testing.assert_allclose(share[used], statistics.masked_share[used], atol=1e-12)


def test_repeat_words_by_mask() -> None:
    truth = np.array([0.0] * 5 + [1.0, 0.95, 0.2, 0.1])
    assert truths.repeat_words_by_mask(statistics_of(["A", "C", "G", "T"], [1.0, 0.95, 0.2, 0.1]), truth).found
    assert not truths.repeat_words_by_mask(statistics_of(["A", "C", "G", "T"], [1.0, 0.1, 0.95, 0.1]), truth).found
    assert truths.repeat_words_by_mask(statistics_of(["A", "C", "G", "T"]), np.zeros(9)).found is None


def test_tandem_units() -> None:
    units = ["A", "AC", "TTAGGG", "AAAT"]
    arrays = ["AAAAAA", "CACACA", "GGTTAGGGT", "TAAATAAA"]
    assert truths.tandem_units(statistics_of(arrays), units).found
    assert truths.tandem_units(statistics_of(["TTTTTT", "GTGTGT", "ACCCTAACC", "ATTTATTT"]), units).found  # the other strand
    assert not truths.tandem_units(statistics_of(["AAAAAA", "CACACA", "GATTACA"]), units).found


def test_cpg_depletion() -> None:
    assert truths.cpg_depletion(statistics_of(["AGC", "GCA", "TGC", "GCT", "GCTA"])).found
    assert not truths.cpg_depletion(statistics_of(["AGC", "GCA", "TGC", "GCT", "ACG", "CGT"])).found
    assert truths.cpg_depletion(statistics_of(["A", "C"])).found is None


def test_pieces_of_a_motif() -> None:
    instances = ["TATAAAAG", "TATATAAG"]
    assert truths._shares_piece("GGTATA", instances) and truths._shares_piece("AAG", instances)
    assert not truths._shares_piece("GGTATG", instances) and not truths._shares_piece("TA", instances)


def test_auc_equals_its_definition() -> None:
    values, positive = np.array([0.1, 0.4, 0.4, 0.8]), np.array([False, True, False, True])
    pairs = [(a > b) + 0.5 * (a == b) for a in values[positive] for b in values[~positive]]
    assert truths._auc(values, positive) == pytest.approx(np.mean(pairs))


@pytest.mark.parametrize(("words", "found"), [([30, 3], True), ([4, 3], False)])
def test_motif_is_found_only_where_it_is_enriched(words: list[int], found: bool) -> None:
    """Windows of one word each: `words` of 40 promoters and of 40 controls hold a piece of the motif at its place."""
    strings = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "GGCC", "TATA"]
    rows = [("promoters", i, i < words[0]) for i in range(40)] + [("non_promoters", i, i < words[1]) for i in range(40)]
    held = {(kind, 1_000 * i): inside for kind, i, inside in rows}

    class Genome:
        def file(self, name: str) -> SimpleNamespace:
            kind = name.removeprefix("truth/").removesuffix(".bed")
            lines = [f"{kind}\t{start}\t{start + 300}\tx\t0\t+" for name, start in held if name == kind]
            return SimpleNamespace(read_text=lambda: "\n".join(lines))

    class Words:
        vocabulary = SimpleNamespace(strings=lambda cycles: strings)

        def tokens(self, record: str, start_bp: int, end_bp: int, cycles: int) -> SimpleNamespace:
            at_motif = start_bp % 1_000 == 216
            return SimpleNamespace(ids=[6 if at_motif and held[record, start_bp // 1_000 * 1_000] else 5])

    planted = {"tata_word": "TATAWAAG", "tata_from_tss_bp": [-33, -29], "tss_offset_bp": 249}
    assert truths.motif_at_tss(Words(), 2, Genome(), planted, "tata").found == found
