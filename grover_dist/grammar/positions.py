"""Position rules: words that stand at a fixed distance from annotated anchors (transcription starts, peak summits).

Every anchor's surroundings are read along its strand and tokenized anew in that direction with flanks, so that both strands count alike. A
word at a place must beat two nulls: the same place around shifted anchors nearby (hypergeometric tail), and the other places around the
same anchors (binomial tail). p is the larger of both; q is Benjamini and Hochberg's over all words and places with enough occurrences.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from scipy import stats

from grover_dist.analysis.correlation import false_discovery_rate
from grover_dist.bpe.encode import encode_codes
from grover_dist.corpus.corpus import Corpus

CONTROLS = 4  # shifted anchors for each anchor
SHIFT_BP = (1_000, 10_000)
PAD_BP = 100  # of flank on either side that is tokenized and thrown away: words near a cut end differ
MIN_ANCHORS = 20
MIN_OCCURRENCES = 5


@dataclass(frozen=True)
class Anchors:
    """rows int64[n]: the anchor's base in the store; minus bool[n]."""

    name: str
    rows: np.ndarray
    minus: np.ndarray


@dataclass(frozen=True)
class PositionRules:
    """One line a word and place. place_bp int64: first base of the bin, relative to the anchor along its strand."""

    name: str
    anchors: int
    word: np.ndarray
    place_bp: np.ndarray
    count: np.ndarray
    controls: np.ndarray
    fold: np.ndarray
    p: np.ndarray
    q: np.ndarray

    def table(self, strings: list[str]) -> pa.Table:
        fields = {key: getattr(self, key) for key in ("place_bp", "count", "controls", "fold", "p", "q")}
        return pa.table({"anchor": [self.name] * len(self.word), "word": [strings[i] for i in self.word], **fields})


def position_rules(corpus: Corpus, cycles: int, anchors: Anchors, *, flank_bp: int, bin_bp: int, seed: int) -> PositionRules | str:
    """A sentence instead where fewer than MIN_ANCHORS have their flanks inside a contig."""
    random = np.random.default_rng([seed, 0x706F73])
    rows, minus = _inside(corpus, anchors.rows, anchors.minus, flank_bp)
    if len(rows) < MIN_ANCHORS:
        return f"{anchors.name}: not tested; {len(rows)} anchors have {flank_bp + PAD_BP} bases on either side, {MIN_ANCHORS} are needed"
    size, bins = len(corpus.vocabulary.strings(cycles)), 2 * flank_bp // bin_bp
    shift = random.integers(*SHIFT_BP, (len(rows), CONTROLS)) * random.choice([-1, 1], (len(rows), CONTROLS))
    moved = (rows[:, None] + shift).ravel()
    contig_of = corpus.store.contigs.contig_of
    same = contig_of(np.clip(moved, 0, corpus.store.n_rows - 1)) == np.repeat(contig_of(rows), CONTROLS)
    control_rows, control_minus = _inside(corpus, moved[same], np.repeat(minus, CONTROLS)[same], flank_bp)
    ours = _place_counts(corpus, cycles, rows, minus, flank_bp, bin_bp, bins, size)
    theirs = _place_counts(corpus, cycles, control_rows, control_minus, flank_bp, bin_bp, bins, size)
    word, place = np.nonzero(ours >= MIN_OCCURRENCES)
    count, controls = ours[word, place], theirs[word, place]
    n, m = len(rows), len(control_rows)
    p = stats.hypergeom.sf(count - 1, n + m, count + controls, n)
    p = np.maximum(p, stats.binom.sf(count - 1, ours.sum(axis=1)[word], 1 / bins))
    fold = (count / n) / ((controls + 0.5) / (m + 0.5))
    return PositionRules(anchors.name, n, word, place * bin_bp - flank_bp, count, controls, fold, p, false_discovery_rate(p))


def _inside(corpus: Corpus, rows: np.ndarray, minus: np.ndarray, flank_bp: int) -> tuple[np.ndarray, np.ndarray]:
    """Those whose surroundings lie in one contig."""
    contigs, reach = corpus.store.contigs, flank_bp + PAD_BP
    kept = (rows >= reach) & (rows + reach < corpus.store.n_rows)
    rows, minus = rows[kept], minus[kept]
    whole = contigs.contig_of(rows - reach) == contigs.contig_of(rows + reach)
    return rows[whole], minus[whole]


def _place_counts(
    corpus: Corpus, cycles: int, rows: np.ndarray, minus: np.ndarray, flank_bp: int, bin_bp: int, bins: int, size: int
) -> np.ndarray:
    """Anchors with the word beginning in the bin, int64 [size, bins]; an anchor counts once in a bin."""
    found = np.zeros((size, bins), np.int64)
    lengths = corpus.vocabulary.lengths(cycles).astype(np.int64)
    reach = flank_bp + PAD_BP
    for row, turned in zip(rows.tolist(), minus.tolist(), strict=True):
        codes = corpus.store.base(row - reach, row + reach + 1)
        ids = encode_codes(3 - codes[::-1] if turned else codes, corpus.vocabulary, cycles)
        begins = np.cumsum(lengths[ids]) - lengths[ids] - PAD_BP
        here = (begins >= 0) & (begins < bins * bin_bp)
        seen = np.unique(ids[here].astype(np.int64) * bins + begins[here] // bin_bp)
        found[seen // bins, seen % bins] += 1
    return found
