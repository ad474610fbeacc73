"""Planted transposons are found word by word; a genome without order has nothing to find."""

from __future__ import annotations

import numpy as np

from grover_dist.analysis.context_tables import SIGNIFICANT
from grover_dist.analysis.enrichment import enrichment
from grover_dist.analysis.truths import planted_share
from grover_dist.config import config_from
from grover_dist.corpus.build import build_corpus
from grover_dist.corpus.corpus import Corpus
from grover_dist.corpus.shuffled import shuffle_corpus
from grover_dist.genome.stage import build_genome
from grover_dist.run_dir import RunDir

MOST = 0.8  # of a word's bases in repeats, to be a word of repeats
CYCLES = 300


def test_words_of_planted_repeats_are_flagged(tmp_path) -> None:
    """Truth: where the generator put transposons and tandem repeats. Flagged: from the soft mask, by enrichment."""
    fewer = {"promoters": 40, "ctcf_sites": 40, "tandem_repeats": 20}
    synthetic = fewer | {"length_bp": 600_000, "transposons": {"families": 2, "length_bp": 120, "share": 0.45, "divergence": 0.03}}
    settings = {"run": {"dir": str(tmp_path / "run")}, "genome": {"synthetic": synthetic}, "bpe": {"cycles": CYCLES}}
    config = config_from(settings | {"pretrain": {"candidates": [CYCLES]}})
    run = RunDir.open(config)
    genome = build_genome(config, run, say=lambda _: None)
    corpus = Corpus.open(build_corpus(config, run, genome, say=lambda _: None))
    found = enrichment(corpus, CYCLES, seed=1, permutations=99)
    used = np.isfinite(found.q)
    truth = planted_share(corpus, CYCLES, genome, CYCLES + 9)[used] >= MOST
    flagged = ((found.q < SIGNIFICANT) & (found.share >= MOST))[used]
    hits = (truth & flagged).sum()
    assert truth.sum() >= 40 and (~truth).sum() >= 40
    assert hits / truth.sum() > 0.9 and hits / flagged.sum() > 0.9


def test_a_shuffled_genome_has_no_words_of_repeats(small_run) -> None:
    """The same mask over shuffled bases of the same vocabulary, in blocks so small that no composition differs inside the mask."""
    shuffled = Corpus.open(shuffle_corpus(small_run.config, small_run.run, small_run.learn, 60, say=lambda _: None))
    found = enrichment(shuffled, 60, seed=1)
    tested = np.isfinite(found.q)
    assert tested.sum() > 40 and (found.q[tested] < SIGNIFICANT).sum() <= 1
