"""Stage "report": everything the run has made, as one HTML file that needs no network."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from grover_dist.analysis.truths import Truth, check_truths, is_synthetic
from grover_dist.config import Config
from grover_dist.report.analysis_sections import (
    context_section,
    embeddings_section,
    finetune_section,
    grammar_section,
    masked_section,
    provenance_section,
    regions_section,
    repeats_section,
    truths_section,
)
from grover_dist.report.page import Tile, big_bases, percent, render
from grover_dist.report.sections import genome_section, pretraining_section, selection_section, vocabulary_section
from grover_dist.run_dir import Artifact, RunDir, Work

STAGES = (
    "genome",
    "learn",
    "health",
    "kmer-task",
    "kmer-baselines",
    "pretrain",
    "kmer",
    "selection",
    "finetune",
    "analysis",
    "grammar",
    "export",
)
_FORMAT = 2  # of the page; a change makes a new report of the same run


def write_report(
    config: Config, run: RunDir, artifacts: Mapping[str, Artifact | Sequence[Artifact]], say: Callable[[str], None] = print
) -> Artifact:
    """Write report/report-<hash>/report.html (and truths.json for a synthetic genome) from these artefacts; what is absent is said so.

    The names of the mapping do not matter: each artefact's manifest names its stage.
    """
    by_stage: dict[str, list[Artifact]] = {}
    for value in artifacts.values():
        for artifact in [value] if isinstance(value, Artifact) else value:
            by_stage.setdefault(artifact.manifest["stage"], []).append(artifact)
    by_stage = {stage: by_stage[stage] for stage in sorted(by_stage, key=lambda s: STAGES.index(s) if s in STAGES else len(STAGES))}
    inputs = {f"{stage}-{i:03d}": artifact for stage, found in by_stage.items() for i, artifact in enumerate(found)}

    def write(work: Work) -> None:
        truths = _truths(by_stage)
        html = _page(config, by_stage, truths)
        work.file("report.html").write_text(html, encoding="utf-8")
        if truths is not None:
            work.write_json("truths.json", [truth.to_json() for truth in truths])
            work.counts |= {"truths_found": sum(bool(t.found) for t in truths), "truths_tested": sum(t.found is not None for t in truths)}
            for truth in truths:
                answer = {True: "found", False: "NOT FOUND", None: "not tested"}[truth.found]
                say(f"planted truth, {truth.name}: {answer}. {truth.sentence}")

    settings = {"format": _FORMAT, "name": config.run.name, "candidates": config.pretrain.candidates}
    return run.once("report", "report", write, settings=settings, inputs=inputs, say=say)


def _page(config: Config, by_stage: Mapping[str, Sequence[Artifact]], truths: Sequence[Truth] | None) -> str:
    decision = _decision(by_stage)
    chosen = decision["chosen"] if decision else None
    sections = [truths_section(truths)] if truths is not None else []
    analysis = _last(by_stage, "analysis")
    grammar = _last(by_stage, "grammar")
    embedding_sections = [
        make(analysis) for make in (embeddings_section, masked_section, context_section, repeats_section, regions_section)
    ]
    sections += [
        genome_section(_last(by_stage, "genome")),
        vocabulary_section(_last(by_stage, "learn"), _last(by_stage, "health"), config.pretrain.candidates, chosen, analysis),
        pretraining_section(by_stage.get("pretrain", ()), chosen),
        selection_section(_last(by_stage, "selection")),
        *(section for section in embedding_sections if section is not None),
        *([grammar_section(grammar)] if grammar is not None else []),
        finetune_section(by_stage.get("finetune", ())),
        provenance_section(by_stage),
    ]
    headline = decision["sentence"] if decision else "No vocabulary has been selected yet: the run is not complete."
    headline = headline[:1].upper() + headline[1:]
    subtitle = "A genome, the vocabularies learned from it, the language models trained on each, and the evidence by which one was chosen."
    return render(f"Run {config.run.name}", subtitle, headline, _tiles(by_stage, decision, truths), sections)


def _tiles(by_stage: Mapping[str, Sequence[Artifact]], decision: Mapping[str, Any] | None, truths: Sequence[Truth] | None) -> list[Tile]:
    tiles = []
    genome = _last(by_stage, "genome")
    if genome is not None:
        tiles.append(Tile(big_bases(genome.counts["bases"]), "bases in the genome"))
    if decision:
        row = next(row for row in decision["candidates"] if row["cycles"] == decision["chosen"])
        tiles.append(Tile(f"{decision['chosen']:,}", f"cycles chosen, of {len(decision['candidates'])} candidates"))
        if row["bits_per_base"] is not None:
            tiles.append(Tile(f"{row['bits_per_base']:.3f}", "bits per base, held-out masked tokens"))
        best = max(decision["baselines"].items(), key=lambda item: item[1]["accuracy"])
        name = {"majority": "majority class", "markov": "Markov chain", "forest": "TF-IDF forest"}[best[0]]
        tiles.append(
            Tile(percent(row["mean_accuracy"]), f"mean next-k-mer accuracy; best baseline ({name}) {percent(best[1]['accuracy'])}")
        )
    if truths is not None:
        tested = [truth for truth in truths if truth.found is not None]
        tiles.append(Tile(f"{sum(truth.found for truth in tested)} of {len(tested)}", "planted truths found"))
    return tiles


def _decision(by_stage: Mapping[str, Sequence[Artifact]]) -> dict[str, Any] | None:
    selection = _last(by_stage, "selection")
    return None if selection is None else json.loads(selection.file("decision.json").read_text())


def _truths(by_stage: Mapping[str, Sequence[Artifact]]) -> list[Truth] | None:
    genome, learn, decision = _last(by_stage, "genome"), _last(by_stage, "learn"), _decision(by_stage)
    if not is_synthetic(genome) or learn is None:
        return None
    analysis = _last(by_stage, "analysis")
    cycles = decision["chosen"] if decision else analysis.counts["cycles"] if analysis else learn.counts["cycles"]
    pretrained = [artifact for artifact in by_stage.get("pretrain", ()) if artifact.counts["cycles"] == cycles]
    return check_truths(
        genome,
        learn,
        cycles=cycles,
        analysis=analysis if analysis is not None and analysis.counts["cycles"] == cycles else None,
        pretrained=max(pretrained, key=lambda artifact: artifact.counts["bases"], default=None),
        selection=_last(by_stage, "selection"),
        baselines=_last(by_stage, "kmer-baselines"),
        finetuned={artifact.manifest["name"]: artifact for artifact in by_stage.get("finetune", ())},
    )


def _last(by_stage: Mapping[str, Sequence[Artifact]], stage: str) -> Artifact | None:
    found = by_stage.get(stage)
    return found[-1] if found else None
