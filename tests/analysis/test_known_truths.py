"""Planted transposons are found word by word; a genome without order has nothing to find."""

from __future__ import annotations

import numpy as np
import pytest

from grover_dist.analysis.context_tables import SIGNIFICANT
from grover_dist.analysis.enrichment import enrichment
from grover_dist.analysis.truths import planted_share
from grover_dist.corpus.corpus import Corpus
from grover_dist.corpus.shuffled import shuffle_corpus

MOST = 0.5  # of a word's bases in repeats, to be a word of repeats


@pytest.mark.parametrize("cycles", [30, 60])
def test_words_of_planted_repeats_are_flagged(small_run, cycles: int) -> None:
    """Truth: where the generator put transposons and tandem repeats. Flagged: from the soft mask, by enrichment."""
    corpus = Corpus.open(small_run.learn)
    found = enrichment(corpus, cycles, seed=1)
    used = np.isfinite(found.q)
    truth = planted_share(corpus, cycles, small_run.genome, cycles + 9)[used] >= MOST
    flagged = ((found.q < SIGNIFICANT) & (found.share >= MOST))[used]
    hits = (truth & flagged).sum()
    assert truth.sum() >= 8 and (~truth).sum() >= 8
    assert hits / truth.sum() > 0.9 and hits / flagged.sum() > 0.9


def test_a_shuffled_genome_has_no_words_of_repeats(small_run) -> None:
    """The same mask over shuffled bases of the same vocabulary, in blocks so small that no composition differs inside the mask."""
    shuffled = Corpus.open(shuffle_corpus(small_run.config, small_run.run, small_run.learn, 60, say=lambda _: None))
    found = enrichment(shuffled, 60, seed=1)
    tested = np.isfinite(found.q)
    assert tested.sum() > 40 and (found.q[tested] < SIGNIFICANT).sum() <= 1
