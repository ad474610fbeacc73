"""Genome, vocabulary, pretraining and selection as sections of the page. Each reads its artefacts and nothing else."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from grover_dist.analysis.embeddings import TOP, read_table
from grover_dist.analysis.token_statistics import TokenStatistics, token_statistics
from grover_dist.corpus.corpus import Corpus
from grover_dist.report import figures
from grover_dist.report.page import Column, PageSection, big_bases, decimals, integer, interval, percent, percent2, seconds
from grover_dist.run_dir import Artifact

_MOST_RECORDS = 30
_BASELINES = {"majority": "majority", "markov": "Markov chain", "forest": "TF-IDF + forest"}


def genome_section(genome: Artifact | None) -> PageSection:
    section = PageSection("genome", "Genome")
    if genome is None:
        section.note("No genome stage was found in this run.")
        return section
    summary = json.loads(genome.file("summary.json").read_text())
    section.text(
        f"{integer(summary['bases'])} bases A, C, G, T in {integer(summary['contigs'])} contigs of {integer(summary['records'])} records; "
        f"GC {percent(summary['gc'])}, soft-masked {percent(summary['soft_masked'])}."
    )
    other = summary.get("other_letters", {})
    if other:
        kinds = ", ".join(f"{letter} {integer(count)}" for letter, count in sorted(other.items(), key=lambda item: -item[1]))
        section.note(f"Other letters end a contig and are not read: {kinds}.")
    records = summary.get("per_record", [])
    largest = sorted(records, key=lambda row: -row["bases"])[:_MOST_RECORDS]
    shown = [row for row in records if row in largest]
    columns = [
        Column("record", "name", number=False),
        Column("letters", "letters", integer),
        Column("bases", "bases", integer),
        Column("contigs", "contigs", integer),
        Column("GC", "gc", percent),
        Column("soft-masked", lambda row: row["soft_masked_bases"] / row["bases"] if row["bases"] else None, percent),
    ]
    caption = f"The {_MOST_RECORDS} largest of {integer(len(records))} records." if len(records) > len(shown) else None
    section.table(shown, columns, caption)
    return section


def vocabulary_section(
    learn: Artifact | None, health: Artifact | None, candidates: Sequence[int], chosen: int | None, analysis: Artifact | None
) -> PageSection:
    section = PageSection("vocabulary", "Vocabulary")
    if learn is None:
        section.note("No vocabulary has been learned in this run.")
        return section
    corpus = Corpus.open(learn)
    known = sorted(cycles for cycles in set(candidates) if cycles <= corpus.cycles_known)
    rows, lengths, statistics_of = [], {}, {}
    for cycles in known:
        statistics = statistics_of[cycles] = token_statistics(corpus, cycles)
        rows.append(_vocabulary_row(cycles, statistics) | {"chosen": cycles == chosen})
        lengths[f"{cycles:,}"] = Counter(statistics.length_bp[statistics.is_word].tolist())
    columns = [
        Column("cycles", "cycles", integer),
        Column("words", "words", integer),
        Column("bases per token", "bases_per_token", decimals(2)),
        Column("dead words", "dead", integer),
        Column("words with CG", "with_cg", integer),
        Column("median count", "median_count", integer),
        Column("longest", "longest_bp", lambda n: f"{n} bp"),
        Column("longest word", "longest", lambda word: word if len(word) <= 24 else f"{word[:20]}…", number=False, word=True),
    ]
    section.text(
        "One learning pass gives every candidate: a smaller vocabulary is the beginning of a larger one. "
        "Dead words are entries that never occur, because later merges took all of their occurrences."
    )
    section.table(rows, columns)
    rows = health_rows(health, known, chosen)
    if rows:
        section.table(
            rows,
            [
                Column("cycles", "cycles", integer),
                Column("reverse-complement closure", "closure", percent),
                Column("boundaries shared by both strands", "agreement", percent),
                Column("re-synchronises within (p95)", "resynchronisation", lambda n: f"{n:.0f} bp"),
                Column("one substitution changes (p95)", "footprint", lambda n: f"{n:.0f} bp"),
            ],
            "Health: share of words whose reverse complement is a word; agreement of the two strands' token boundaries; how far from a cut "
            "the tokens of a cut-out piece may differ; how many bases change their token with one substitution.",
        )
    section.figure(figures.length_histogram(lengths), "Dictionary entries by token length, for each candidate (cycles).")
    shown = chosen if chosen in statistics_of else (known[-1] if known else None)
    if shown is not None:
        section.heading(f"Dictionary of {shown:,} cycles" + (", the chosen one" if shown == chosen else ""))
        _dictionary(section, statistics_of[shown], analysis if analysis and analysis.counts.get("cycles") == shown else None)
    return section


def health_rows(health: Artifact | None, known: Sequence[int], chosen: int | None) -> list[dict[str, Any]]:
    """What the health stage says of each candidate (grover_dist.bpe.health); empty where it was not run."""
    figures = json.loads(health.file("health.json").read_text()) if health is not None else {}
    rows = []
    for cycles in known:
        found = figures.get(str(cycles))
        if found is not None:
            rows.append(
                {
                    "cycles": cycles,
                    "chosen": cycles == chosen,
                    "closure": found["reverse_complement_closure"],
                    "agreement": found["boundary_agreement"],
                    "resynchronisation": (found["resynchronisation_bp"] or {}).get("p95"),
                    "footprint": (found["substitution_footprint_bp"] or {}).get("p95"),
                }
            )
    return rows


def _vocabulary_row(cycles: int, statistics: TokenStatistics) -> dict[str, Any]:
    words = np.flatnonzero(statistics.is_word)
    count, length_bp = statistics.count[words], statistics.length_bp[words]
    longest = statistics.strings[words[int(np.argmax(length_bp))]]
    return {
        "cycles": cycles,
        "words": len(words),
        "bases_per_token": float((count * length_bp).sum() / max(count.sum(), 1)),
        "dead": int((count == 0).sum()),
        "with_cg": sum("CG" in statistics.strings[i] for i in words),
        "median_count": float(np.median(count)),
        "longest_bp": len(longest),
        "longest": longest,
    }


def _dictionary(section: PageSection, statistics: TokenStatistics, analysis: Artifact | None) -> None:
    titles, kinds = ["word", "length", "count", "GC", "soft-masked"], ["text", "integer", "integer", "percent", "percent"]
    words = np.flatnonzero(statistics.is_word)
    words = words[np.argsort(-statistics.count[words], kind="stable")]
    masked = statistics.masked_share
    rows: list[list[Any]] = [
        [
            statistics.strings[i],
            int(statistics.length_bp[i]),
            int(statistics.count[i]),
            round(float(statistics.gc[i]), 4),
            None if np.isnan(masked[i]) else round(float(masked[i]), 4),
        ]
        for i in words
    ]
    if analysis is not None:
        table = read_table(analysis, "tokens.arrow").to_pydict()
        performance = {
            token: (tests, first, top)
            for token, tests, first, top in zip(
                table["token"], table["masked_tests"], table["masked_accuracy"], table[f"masked_top{TOP}"], strict=True
            )
        }
        titles += ["masked tests", "predicted first", f"in first {TOP}"]
        kinds += ["integer", "percent", "percent"]
        for row in rows:
            tests, first, top = performance.get(row[0], (0, None, None))
            row += [tests, None if first is None else round(first, 4), None if top is None else round(top, 4)]
    section.dictionary(titles, kinds, rows)


def pretraining_section(pretrained: Sequence[Artifact], chosen: int | None) -> PageSection:
    section = PageSection("pretraining", "Pretraining")
    if not pretrained:
        section.note("No candidate has been pretrained in this run.")
        return section
    curves, rows = [], []
    for cycles, artifacts in _by_cycles(pretrained).items():
        points = _held_out_curve(artifacts)
        if points:
            curves.append(figures.Series(f"{cycles:,}", [x for x, _ in points], [y for _, y in points]))
        last = artifacts[-1]
        rows.append(
            {"chosen": cycles == chosen, "cycles": cycles, "wall_seconds": sum(item.manifest["wall_seconds"] for item in artifacts)}
            | {key: last.counts.get(key) for key in ("parameters", "steps", "bases", "bits_per_base", "perplexity", "top1", f"top{TOP}")}
        )
    if any(len(curve.x) > 1 for curve in curves):
        section.figure(
            figures.learning_curves(curves),
            "Loss on held-out windows with masks that never change. Bits per base compare vocabularies of any size; "
            "guessing bases at random costs 2.",
        )
    columns = [
        Column("cycles", "cycles", integer),
        Column("parameters", "parameters", integer),
        Column("steps", "steps", integer),
        Column("bases seen", "bases", big_bases),
        Column("bits per base", "bits_per_base", decimals(4)),
        Column("perplexity", "perplexity", decimals(1)),
        Column("predicted first", "top1", percent),
        Column(f"in first {TOP}", f"top{TOP}", percent),
        Column("wall time", "wall_seconds", seconds),
    ]
    section.table(rows, columns, "Held-out figures at the end of pretraining, over masked tokens.")
    return section


def _by_cycles(artifacts: Sequence[Artifact]) -> dict[int, list[Artifact]]:
    """Artefacts of each candidate, the one with the largest budget last."""
    grouped: dict[int, list[Artifact]] = {}
    for artifact in artifacts:
        grouped.setdefault(int(artifact.counts["cycles"]), []).append(artifact)
    return {cycles: sorted(grouped[cycles], key=lambda item: item.counts["bases"]) for cycles in sorted(grouped)}


def _held_out_curve(artifacts: Sequence[Artifact]) -> list[tuple[float, float]]:
    """(bases seen, bits per base), over all rungs of a candidate."""
    points: dict[float, float] = {}
    for artifact in artifacts:
        path = artifact.file("metrics.jsonl")
        for line in path.read_text().splitlines() if path.is_file() else ():
            values = json.loads(line)
            if "held_out_bits_per_base" in values:
                points[values["bases"]] = values["held_out_bits_per_base"]
    return sorted(points.items())


def selection_section(selection: Artifact | None) -> PageSection:
    section = PageSection("selection", "Selection")
    if selection is None:
        section.note("No vocabulary has been selected in this run.")
        return section
    decision = json.loads(selection.file("decision.json").read_text())
    table = read_table(selection, "table.arrow").to_pylist()
    section.text(decision["sentence"])
    section.text(f"{decision['pretraining_sentence']} {decision['baselines_sentence']}")
    series = []
    for cycles in sorted({row["cycles"] for row in table}):
        mine = [row for row in table if row["cycles"] == cycles]
        columns = {key: [row[key] for row in mine] for key in ("k", "accuracy", "low", "high")}
        series.append(figures.Series(f"{cycles:,}", columns["k"], columns["accuracy"], columns["low"], columns["high"]))
    one = [row for row in table if row["cycles"] == table[0]["cycles"]]
    baselines = [figures.Series(name, [row["k"] for row in one], [row[key] for row in one]) for key, name in _BASELINES.items()]
    twins = [row for row in table if row["cycles"] == decision["chosen"]]
    baselines.append(figures.Series("untrained twin", [row["k"] for row in twins], [row["twin"] for row in twins]))
    level = percent(decision["confidence"]).replace(".0", "")
    section.figure(
        figures.accuracy_by_k(series, baselines),
        f"Accuracy of predicting the next k bases, by candidate (cycles); bars: {level} intervals by bootstrap over genome blocks. Lines: "
        "what needs no language model, and the chosen model's twin trained from random weights.",
    )
    columns = [
        Column("cycles", "cycles", integer),
        Column("k", "k", integer),
        Column("accuracy", "accuracy", percent2),
        Column("interval", lambda row: interval(row["low"], row["high"], percent2)),
        Column("untrained twin", "twin", percent2),
        Column("majority", "majority", percent2),
        Column("Markov", "markov", percent2),
        Column("forest", "forest", percent2),
        Column("chance", "chance", percent2),
    ]
    for row in table:
        row["chosen"] = row["cycles"] == decision["chosen"]
    section.table(table, columns)
    _criteria(section, decision)
    section.heading("What would change the decision")
    section.bullets(decision["would_change"])
    cost = decision["cost"]
    section.note(
        f"Rule: {decision['rule']}. Cost: {big_bases(cost['spent'])} of pretraining, {percent(cost['share'])} of training every candidate "
        f"to the whole budget. {decision['bootstrap']['positions']:,} held-out positions in {decision['bootstrap']['blocks']:,} blocks."
    )
    return section


def _criteria(section: PageSection, decision: Mapping[str, Any]) -> None:
    """Every criterion beside the one that decided, and who is beaten in nothing."""
    rows = [row | {"chosen": row["cycles"] == decision["chosen"]} for row in decision["candidates"] if row["finalist"]]
    compared = [row for row in rows if row["training_flops"]]
    if len(compared) > 1:
        section.heading("Accuracy against compute and length")
        merits = {
            "pretraining (PFLOP)": [row["training_flops"] / 1e15 for row in compared],
            "tokens of an input": [row["tokens_per_input"] for row in compared],
        }
        section.figure(
            figures.pareto_view(
                [f"{row['cycles']:,}" for row in compared],
                [row["mean_accuracy"] for row in compared],
                merits,
                [row["on_pareto_front"] for row in compared],
            ),
            "Candidates that were trained to the whole budget. Filled: no other is at least as accurate, as cheap to train and as short in "
            "tokens, and better in one of them.",
        )
    columns = [
        Column("cycles", "cycles", integer),
        Column("mean accuracy", "mean_accuracy", percent2),
        Column("interval", lambda row: interval(row["mean_accuracy_low"], row["mean_accuracy_high"], percent2)),
        Column("bits per base", "bits_per_base", decimals(4)),
        Column("loss against token frequencies", "unigram_normalized_loss", decimals(4)),
        Column("tokens an input", "tokens_per_input", decimals(1)),
        Column("on the front", lambda row: "yes" if row["on_pareto_front"] else "no"),
    ]
    would = ", ".join(f"{name.replace('_', ' ')}: {found['chosen']:,}" for name, found in decision["other_criteria"].items())
    section.table(rows, columns, f"Decided by {decision['criterion'].replace('_', ' ')}. What each criterion would choose: {would}.")
