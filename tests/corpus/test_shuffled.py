"""The shuffled corpus is a corpus: its levels are those of encoding its bases anew, at every number of cycles."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from grover_dist.bpe.encode import encode_codes
from grover_dist.corpus.corpus import Corpus
from grover_dist.corpus.shuffled import shuffle_corpus


@pytest.fixture(scope="module")
def pair(small_run):
    shuffled = shuffle_corpus(small_run.config, small_run.run, small_run.learn, 60, say=lambda _: None)
    return Corpus.open(small_run.learn), Corpus.open(shuffled)


@pytest.mark.parametrize("cycles", [1, 7, 30, 60])
def test_levels_are_those_of_encoding(pair, cycles: int) -> None:
    _, shuffled = pair
    edges = shuffled.store.contigs.row_start.tolist()
    for start, stop in pairwise(edges):
        expected = encode_codes(shuffled.store.base(start, stop), shuffled.vocabulary, cycles)
        assert np.array_equal(shuffled.ids_of_rows(start, stop, cycles), expected)


def test_contigs_and_pairs_of_bases_stay(pair) -> None:
    real, shuffled = pair
    assert shuffled.store.n_rows == real.store.n_rows and shuffled.cycles_known == 60
    for start, stop in zip(real.store.contigs.row_start[:-1].tolist(), real.store.contigs.row_start[1:].tolist(), strict=True):
        a, b = (corpus.store.base(start, stop).astype(int) for corpus in pair)
        assert not np.array_equal(a, b)
        assert np.array_equal(np.bincount(a[:-1] * 4 + a[1:], minlength=16), np.bincount(b[:-1] * 4 + b[1:], minlength=16))
    assert np.array_equal(real.store.masked(0, real.store.n_rows), shuffled.store.masked(0, real.store.n_rows))
