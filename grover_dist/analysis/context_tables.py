"""Context and repeats of one model as tables and findings, for the analysis stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from scipy import stats
from transformers.models.bert.modeling_bert import BertForMaskedLM

from grover_dist.analysis.context import ContextProfile, ExplainableVariance, explainable_variance
from grover_dist.analysis.enrichment import Enrichment, class_enrichment, enrichment
from grover_dist.analysis.regions import SOFT_MASK
from grover_dist.analysis.token_statistics import TokenStatistics
from grover_dist.analysis.tracks import ClassTrack
from grover_dist.corpus.batches import MicroBatch
from grover_dist.corpus.corpus import Corpus

SIGNIFICANT = 0.05
MIN_TESTS = 10  # masked occurrences, to relate a word's accuracy to its repeats
_NAMED = 8  # words in a sentence


def context_tables(
    models: Mapping[str, BertForMaskedLM],
    profiles: Mapping[str, ContextProfile],
    batches: Sequence[MicroBatch],
    statistics: TokenStatistics,
    seed: int,
) -> tuple[pa.Table, dict[str, Any]]:
    """`context.arrow` (one row a model, token and layer) and its summary. models: trained and twin."""
    size = len(statistics.strings)
    variances = {name: explainable_variance(model, batches, size, seed=seed) for name, model in models.items()}
    table = pa.concat_tables([_context_rows(name, profiles[name], variances[name], statistics) for name in models])
    summary: dict[str, Any] = {"layers": len(next(iter(profiles.values())).anisotropy) - 1}
    for name, profile in profiles.items():
        used = profile.count > 1
        summary[name] = {
            "self_similarity": [_mean(profile.adjusted[layer, used]) for layer in range(len(profile.anisotropy))],
            "anisotropy": [round(float(x), 5) for x in profile.anisotropy],
            "intra_context": [round(float(x), 5) for x in profile.intra_context],
            "explainable_variance": _mean(variances[name].share),
            "explainable_variance_adjusted": _mean(variances[name].adjusted),
        }
    trained, twin = summary["trained"], summary["twin"]
    summary["findings"] = [
        f"Adjusted self-similarity goes from {trained['self_similarity'][0]:.2f} at the input to {trained['self_similarity'][-1]:.2f} "
        f"in the last layer (untrained twin {twin['self_similarity'][0]:.2f} to {twin['self_similarity'][-1]:.2f})",
    ]
    if trained["explainable_variance"] is not None:
        summary["findings"].append(
            f"The first component of a token's vectors explains {100 * trained['explainable_variance']:.1f} % of them, "
            f"{100 * trained['explainable_variance_adjusted']:.1f} points above mixed tokens "
            f"(twin {100 * twin['explainable_variance']:.1f} %, {100 * twin['explainable_variance_adjusted']:.1f} points)"
        )
    return table, summary


def repeat_tables(
    corpus: Corpus,
    cycles: int,
    statistics: TokenStatistics,
    tests: np.ndarray,
    first: np.ndarray,
    seed: int,
    tracks: Sequence[ClassTrack] = (),
) -> tuple[pa.Table | None, dict[str, Any]]:
    """`repeats.arrow` (one row a word and class: of the soft mask and of each track) and its summary; None where there is neither.

    tests, first: masked occurrences of each token and how often it was predicted first.
    """
    masked_bases, bases = int(statistics.masked_bases.sum()), int((statistics.count * statistics.length_bp).sum())
    tables, summary = [], {"findings": [], "tracks": []}
    if masked_bases in (0, bases):
        summary["findings"].append("The genome has no soft mask" if masked_bases == 0 else "The whole genome is soft-masked")
    else:
        found = enrichment(corpus, cycles, seed=seed)
        summary |= _repeat_summary(found, statistics, tests, first)
        tables.append(_enrichment_rows(SOFT_MASK, "", found, statistics))
    for track in tracks:
        by_class = class_enrichment(corpus, cycles, track.of_rows, len(track.classes), seed=seed)
        tables += [_enrichment_rows(track.name, name, found, statistics) for name, found in zip(track.classes, by_class, strict=True)]
        rows = [_class_row(track, name, found, statistics, tests, first) for name, found in zip(track.classes, by_class, strict=True)]
        summary["tracks"] += rows
        best = max(rows, key=lambda row: row["enriched"])
        text = f"{track.name}: words are enriched in {sum(row['enriched'] > 0 for row in rows)} of {len(rows)} classes"
        if best["enriched"]:
            text += f", most in {best['class']} ({best['enriched']} words, above all {', '.join(best['top'][:4])})"
        summary["findings"].append(text)
    return (pa.concat_tables(tables) if tables else None), summary


def _enrichment_rows(track: str, name: str, found: Enrichment, statistics: TokenStatistics) -> pa.Table:
    words = np.flatnonzero(statistics.is_word)
    return pa.table(
        {
            "track": [track] * len(words),
            "class": [name] * len(words),
            "token": [statistics.strings[i] for i in words],
            "bases_sampled": found.bases[words],
            **{key: _nullable(getattr(found, key)[words]) for key in ("share", "expected", "fold", "p", "q")},
        }
    )


def _class_row(
    track: ClassTrack, name: str, found: Enrichment, statistics: TokenStatistics, tests: np.ndarray, first: np.ndarray
) -> dict[str, Any]:
    """Enriched words of one class, and how well the model predicts them where they are masked."""
    enriched = np.flatnonzero(np.nan_to_num(found.q, nan=1.0) < SIGNIFICANT)
    order = enriched[np.argsort(-found.fold[enriched], kind="stable")]
    asked, others = tests[enriched].sum(), np.setdiff1d(np.flatnonzero(statistics.is_word), enriched)
    rows = track.row_stop[track.kind == track.classes.index(name)] - track.row_start[track.kind == track.classes.index(name)]
    return {
        "track": track.name,
        "class": name,
        "intervals": len(rows),
        "bases": int(rows.sum()),
        "enriched": len(enriched),
        "top": [_short(statistics.strings[i]) for i in order[:8]],
        "fold": round(float(found.fold[order[0]]), 3) if len(order) else None,
        "accuracy": float(first[enriched].sum() / asked) if asked else None,
        "accuracy_others": float(first[others].sum() / max(tests[others].sum(), 1)),
    }


def _repeat_summary(found: Enrichment, statistics: TokenStatistics, tests: np.ndarray, first: np.ndarray) -> dict[str, Any]:
    tested = np.isfinite(found.q)
    enriched = np.flatnonzero(tested & (np.nan_to_num(found.q, nan=1.0) < SIGNIFICANT))
    order = enriched[np.argsort(-found.fold[enriched], kind="stable")]
    judged = tested & (tests >= MIN_TESTS)
    summary: dict[str, Any] = {
        "tested": int(tested.sum()),
        "enriched": len(enriched),
        "top": [
            {"token": statistics.strings[i], "fold": round(float(found.fold[i]), 3), "share": round(float(found.share[i]), 4)}
            for i in order[:20]
        ],
    }
    named = ", ".join(_short(statistics.strings[i]) for i in order[:_NAMED])
    summary["findings"] = [
        f"{len(enriched)} of {int(tested.sum())} words are enriched in soft-masked bases at a false discovery rate of "
        f"{100 * SIGNIFICANT:.0f} %" + (f", most of all {named}" if named else "")
    ]
    if judged.sum() >= 10:
        rho, p = stats.spearmanr(found.share[judged], first[judged] / tests[judged])
        summary |= {"accuracy_rho": float(rho), "accuracy_p": float(p), "accuracy_words": int(judged.sum())}
        direction = "rises" if rho > 0 else "falls"
        verdict = f"{direction} with its soft-masked share" if p < SIGNIFICANT else "is not related to its soft-masked share"
        summary["findings"].append(f"A word's masked accuracy {verdict} (rho {rho:.2f}, p = {p:.1g}, {int(judged.sum())} words)")
    return summary


def _context_rows(name: str, profile: ContextProfile, variance: ExplainableVariance, statistics: TokenStatistics) -> pa.Table:
    words = np.flatnonzero(statistics.is_word & (profile.count > 1))
    layers = len(profile.anisotropy)
    last = np.repeat(np.arange(layers) == layers - 1, len(words))
    columns: dict[str, Any] = {
        "model": [name] * (layers * len(words)),
        "token": [statistics.strings[i] for i in words] * layers,
        "layer": np.repeat(np.arange(layers, dtype=np.int32), len(words)),
        "n": np.tile(profile.count[words], layers),
        "self_similarity": profile.self_similarity[:, words].ravel(),
        "adjusted": profile.adjusted[:, words].ravel(),
    }
    for key, values in (("explainable_variance", variance.share), ("explainable_variance_adjusted", variance.adjusted)):
        tiled = np.where(last, np.tile(values[words], layers), np.nan)
        columns[key] = _nullable(tiled)
    return pa.table(columns)


def _short(word: str) -> str:
    return word if len(word) <= 20 else f"{word[:17]}..."


def _nullable(values: np.ndarray) -> pa.Array:
    return pa.array(values, mask=~np.isfinite(values))


def _mean(values: np.ndarray) -> float | None:
    return round(float(np.nanmean(values)), 5) if np.isfinite(values).any() else None
