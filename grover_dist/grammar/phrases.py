"""Words that stand together more often than chance: pairs against independence, longer phrases against a Markov chain of their parts.

Tokenization itself ties neighbours: a pair that merges early never stands side by side, and what a token may end with depends on the next
one. So a phrase must beat two nulls: the margins of its parts (hypergeometric tail), and its own count in a genome whose bases were
shuffled with all dinucleotides kept and tokenized by the same vocabulary (binomial tail). p is the larger of both, q Benjamini and
Hochberg's over all n-grams of that length that are frequent enough to be tested.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from scipy import stats

from grover_dist.analysis.correlation import false_discovery_rate
from grover_dist.bpe.encode import encode_codes
from grover_dist.corpus.corpus import Corpus
from grover_dist.genome.shuffle import shuffle_dinucleotides
from grover_dist.grammar.counting import SparseCounts, ngram_keys, split_keys

_SHUFFLE_BLOCK_BP = 10_000  # composition on a larger scale stays in the null
_PIECE_BP = 200_000


@dataclass(frozen=True)
class Phrases:
    """ids int64 [n, length]; count; expected: from the parts; shuffled: count in the shuffled genome, scaled to the real one's tokens."""

    ids: np.ndarray
    count: np.ndarray
    expected: np.ndarray
    shuffled: np.ndarray
    p: np.ndarray
    q: np.ndarray

    def __len__(self) -> int:
        return len(self.count)

    @property
    def fold(self) -> np.ndarray:
        """Over the stronger null."""
        return self.count / np.maximum(np.maximum(self.expected, self.shuffled), 1e-12)

    @property
    def bits(self) -> np.ndarray:
        """What the phrase saves over the stronger null in the whole genome: count times log2 of the fold."""
        return self.count * np.log2(np.maximum(self.fold, 1e-12))

    def take(self, chosen: np.ndarray) -> Phrases:
        return Phrases(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))

    def table(self, strings: list[str]) -> pa.Table:
        words = np.array(strings, object)
        return pa.table(
            {
                "words": pa.array([list(line) for line in words[self.ids]], pa.list_(pa.string())),
                "sequence": ["".join(line) for line in words[self.ids]],
                "count": self.count,
                "expected": self.expected,
                "fold": self.fold,
                "shuffled": self.shuffled,
                "bits": self.bits,
                "p": self.p,
                "q": self.q,
            }
        )


@dataclass(frozen=True)
class ShuffledCounts:
    """n-grams of the shuffled genome by length, and its tokens."""

    tokens: int
    ngrams: dict[int, SparseCounts]


def count_shuffled(corpus: Corpus, cycles: int, lengths: tuple[int, ...], *, most_bp: int, seed: int) -> ShuffledCounts:
    """n-grams of up to `most_bp` shuffled bases, in pieces spread evenly over the genome and tokenized each for itself."""
    size = len(corpus.vocabulary.strings(cycles))
    pieces = [
        (start, min(start + _PIECE_BP, stop))
        for first, stop in zip(corpus.store.contigs.row_start[:-1].tolist(), corpus.store.contigs.row_start[1:].tolist(), strict=True)
        for start in range(first, stop, _PIECE_BP)
    ]
    wanted = max(1, min(len(pieces), most_bp // _PIECE_BP))
    chosen = ((np.arange(wanted) + 0.5) * len(pieces) / wanted).astype(np.int64)
    tokens, found = 0, {n: [] for n in lengths}
    for index in chosen.tolist():
        codes = shuffle_dinucleotides(corpus.store.base(*pieces[index]), seed * 1_000_003 + index, _SHUFFLE_BLOCK_BP)
        ids = encode_codes(codes, corpus.vocabulary, cycles)
        tokens += len(ids)
        for n in lengths:
            found[n].append(ngram_keys(ids, n, size))
    return ShuffledCounts(tokens, {n: SparseCounts.of(np.concatenate(keys)) for n, keys in found.items()})


def pairs_beyond_chance(pairs: SparseCounts, size: int, shuffled: ShuffledCounts, min_count: int) -> Phrases:
    """Every pair of words seen `min_count` times, against independence of its two places."""
    left, right = pairs.keys // size, pairs.keys % size
    as_left = np.bincount(left, weights=pairs.counts, minlength=size)
    as_right = np.bincount(right, weights=pairs.counts, minlength=size)
    tested = pairs.counts >= min_count
    left, right, count = left[tested], right[tested], pairs.counts[tested]
    total = int(pairs.counts.sum())
    return _judge(pairs.keys[tested], 2, size, count, as_left[left], as_right[right], np.full(len(count), total), total, shuffled)


def phrases_beyond_chance(
    ngrams: SparseCounts,
    n: int,
    shorter: SparseCounts,
    middle: np.ndarray,
    size: int,
    tokens: int,
    shuffled: ShuffledCounts,
    min_count: int,
) -> Phrases:
    """n-grams (n >= 3) against a Markov chain of order n - 2. shorter: counts of (n-1)-grams; middle: of the (n-2)-grams that
    `ngrams.keys` have between first and last token, where those are counted `min_count` times.
    """
    tested = ngrams.counts >= min_count
    keys = ngrams.keys[tested]
    first, last = shorter.of_keys(keys // size), shorter.of_keys(keys % size ** (n - 1))
    return _judge(keys, n, size, ngrams.counts[tested], first, last, middle[tested], tokens, shuffled)


def _judge(
    keys: np.ndarray,
    n: int,
    size: int,
    count: np.ndarray,
    first: np.ndarray,
    last: np.ndarray,
    whole: np.ndarray,
    tokens: int,
    shuffled: ShuffledCounts,
) -> Phrases:
    """first and last: how often the phrase's beginning and end occur among the `whole` places where both could."""
    whole = np.maximum(whole, np.maximum(first, last))
    p = stats.hypergeom.sf(count - 1, whole, first, last)
    there = shuffled.ngrams[n].of_keys(keys)
    share = tokens / max(tokens + shuffled.tokens, 1)
    p = np.maximum(p, stats.binom.sf(count - 1, count + there, share))
    expected = first * last / np.maximum(whole, 1)
    scaled = there * (tokens / max(shuffled.tokens, 1))
    return Phrases(split_keys(keys, n, size), count, expected, scaled, p, false_discovery_rate(p))
