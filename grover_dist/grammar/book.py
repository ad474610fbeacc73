"""The book as data: everything that is said of words and rules, its Arrow tables, and its findings in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from grover_dist.analysis.token_statistics import TokenStatistics
from grover_dist.corpus.corpus import Corpus
from grover_dist.grammar.counting import Bins, WordCounts
from grover_dist.grammar.influence import Influence, influence_table
from grover_dist.grammar.neighbours import Ranked
from grover_dist.grammar.phrases import Phrases
from grover_dist.grammar.positions import PositionRules

SIGNIFICANT = 0.05
_COMPLEMENT = str.maketrans("ACGT", "TGCA")


@dataclass(frozen=True)
class Book:
    """Arrays by model id. words: columns of the analysis. near, substitutes, neighbours: ranked lists of each word. enrichment: lines of
    repeats.arrow with ids, None without annotation. phrases: of 2, 3 ... tokens. influence: by "trained" and "twin", empty when not asked
    for. untested: sentences about anchors.
    """

    name: str
    cycles: int
    corpus: Corpus
    statistics: TokenStatistics
    bins: Bins
    counts: WordCounts
    words: Mapping[str, np.ndarray]
    neighbours: Mapping[str, Ranked]
    near: Ranked
    substitutes: Ranked
    enrichment: Mapping[str, np.ndarray] | None
    phrases: Sequence[Phrases]
    influence: Mapping[str, Influence]
    positions: Sequence[PositionRules]
    untested: Sequence[str]

    @property
    def strings(self) -> list[str]:
        return self.statistics.strings

    @property
    def ids(self) -> np.ndarray:
        """Model ids of the words: everything but the special tokens."""
        return np.flatnonzero(self.statistics.is_word)

    def reverse_complements(self) -> list[int]:
        """Id of each word's reverse complement, -1 where that is no word."""
        index = {text: place for place, text in enumerate(self.strings)}
        words = zip(self.strings, self.statistics.is_word, strict=True)
        return [index.get(reverse_complement(text), -1) if word else -1 for text, word in words]

    def tables(self) -> dict[str, pa.Table]:
        """By file name."""
        found = {
            "words.arrow": self._words(),
            "tracks.arrow": self._tracks(),
            "bins.arrow": self._bins(),
            "neighbours.arrow": self._neighbours(),
            "similar.arrow": self._similar(),
            "phrases.arrow": pa.concat_tables([phrases.table(self.strings) for phrases in self.phrases]),
        }
        if self.influence:
            found["influence.arrow"] = influence_table(self.influence["trained"], self.strings)
            found["influence_profile.arrow"] = self._profiles()
        if self.positions:
            found["positions.arrow"] = pa.concat_tables([rules.table(self.strings) for rules in self.positions])
        return found

    def _words(self) -> pa.Table:
        ids, statistics = self.ids, self.statistics
        complements = self.reverse_complements()
        columns: dict[str, Any] = {
            "id": ids,
            "word": [self.strings[i] for i in ids],
            "count": self.counts.count[ids],
            "reverse_complement": [reverse_complement(self.strings[i]) for i in ids],
            "reverse_complement_count": [int(self.counts.count[complements[i]]) if complements[i] >= 0 else None for i in ids],
            **{name: getattr(statistics, name)[ids] for name in ("length_bp", "gc", "ag", "ac")},
        }
        for name in ("masked_share", "masked_tests", "masked_accuracy", "masked_top5", "masked_perplexity", "self_similarity"):
            columns[name] = nullable(self.words[name][ids])
        columns["ambiguity"] = nullable(1.0 - self.words["self_similarity"][ids])
        return pa.table(columns)

    def _tracks(self) -> pa.Table:
        counts = np.ascontiguousarray(self.counts.bins[self.ids])
        column = pa.FixedSizeListArray.from_arrays(pa.array(counts.ravel()), self.bins.total)
        return pa.table({"word": [self.strings[i] for i in self.ids], "count": column})

    def _bins(self) -> pa.Table:
        rows = []
        for record, (name, length) in enumerate(
            zip(self.corpus.store.contigs.record_names, self.corpus.store.contigs.record_lengths_bp, strict=True)
        ):
            size = int(self.bins.bin_bp[record])
            number = int(self.bins.record_first[record + 1] - self.bins.record_first[record])
            rows += [{"record": name, "start_bp": at * size, "end_bp": min(length, (at + 1) * size)} for at in range(number)]
        return pa.Table.from_pylist(rows)

    def _neighbours(self) -> pa.Table:
        parts = [
            ranked.table(self.strings, ("neighbour", "bits", "count")).append_column("side", pa.array([side] * len(ranked.of)))
            for side, ranked in self.neighbours.items()
        ]
        return pa.concat_tables(parts)

    def _similar(self) -> pa.Table:
        parts = [
            ranked.table(self.strings, ("similar", "value", "count")).append_column("by", pa.array([kind] * len(ranked.of)))
            for kind, ranked in (("embedding", self.near), ("substitution", self.substitutes))
        ]
        return pa.concat_tables(parts)

    def _profiles(self) -> pa.Table:
        rows = []
        for name, found in self.influence.items():
            columns = zip(found.distances.tolist(), *(values.tolist() for values in found.profile()), strict=True)
            rows += [
                dict(zip(("distance", "nats", "error", "attention"), line, strict=True)) | {"model": name, "targets": len(found.target)}
                for line in columns
            ]
        return pa.Table.from_pylist(rows)


def findings(book: Book) -> dict[str, Any]:
    """Sentences, the counts that the manifest shows, and what each sentence's null says."""
    counts: dict[str, int] = {}
    sentences = []
    for phrases in book.phrases:
        n = phrases.ids.shape[1]
        beyond = phrases.q < SIGNIFICANT
        counts[f"phrases_of_{n}"] = int(beyond.sum())
        text = (
            f"{int(beyond.sum()):,} of {len(phrases):,} frequent {'pairs' if n == 2 else f'phrases of {n} words'} beat both chance and the "
            f"shuffled genome at a false discovery rate of {100 * SIGNIFICANT:.0f} %"
        )
        if beyond.any():
            best = int(np.argmax(np.where(beyond, phrases.bits, -np.inf)))
            words = " ".join(book.strings[i] for i in phrases.ids[best])
            text += f", most of all {shorten(words)} ({phrases.count[best]:,} times, {phrases.fold[best]:.1f} x the stronger null)"
        sentences.append(text)
    if book.influence:
        sentences += _influence_findings(book, counts)
    for rules in book.positions:
        beyond = rules.q < SIGNIFICANT
        counts[f"positions: {rules.name}"] = int(beyond.sum())
        text = f"{rules.name}: {int(beyond.sum())} of {len(rules.word)} words at a place around {rules.anchors:,} anchors are rules"
        if beyond.any():
            best = int(np.argmin(np.where(beyond, rules.p, np.inf)))
            text += f", most of all {shorten(book.strings[rules.word[best]])} from {rules.place_bp[best]:+d} ({rules.fold[best]:.1f} x)"
        sentences.append(text)
    return {"cycles": book.cycles, "counts": counts, "findings": [*sentences, *book.untested]}


def _influence_findings(book: Book, counts: dict[str, int]) -> list[str]:
    found = book.influence["trained"]
    if not len(found.target):
        return ["Influence was not measured: no held-out window is long enough for grammar.influence_distance"]
    mean, _, _ = found.profile()
    twin = book.influence["twin"].profile()[0] if "twin" in book.influence else np.full(len(mean), np.nan)
    near, far = np.abs(found.distances) == 1, np.abs(found.distances) > 3
    pairs = found.pairs()
    beyond = pairs["q"] < SIGNIFICANT
    counts["influences"] = int(beyond.sum())
    over_all, inside = found.agreement()
    text = f"Hiding a direct neighbour costs a masked word's prediction {mean[near].mean():.3f} nats (twin {twin[near].mean():.3f})"
    if far.any():
        text += f", a word more than three places away {mean[far].mean():.3f}"
    text += f"; influence follows attention with rho {over_all:.2f}, and {inside:.2f} at equal distance"
    sentences = [text]
    if not len(beyond):
        return [*sentences, "No pair of words at a distance was seen five times: raise grammar.influence_targets to test them"]
    line = f"{int(beyond.sum())} of {len(beyond)} pairs of words at a distance that were seen five times or more predict each other"
    apart = beyond & (np.abs(pairs["distance"]) > 1)
    if apart.any():
        best = int(np.argmax(np.where(apart, pairs["nats"], -np.inf)))
        context, target = book.strings[pairs["context"][best]], book.strings[pairs["target"][best]]
        line += f", most of all {shorten(context)} at {pairs['distance'][best]:+d} for {shorten(target)} ({pairs['nats'][best]:.2f} nats)"
    return [*sentences, line]


def nullable(values: np.ndarray) -> pa.Array:
    return pa.array(values, mask=~np.isfinite(values))


def reverse_complement(text: str) -> str:
    return text.translate(_COMPLEMENT)[::-1]


def shorten(text: str, most: int = 32) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."
