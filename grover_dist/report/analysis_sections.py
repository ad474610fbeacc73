"""Embeddings, fine-tuned tasks, planted truths and provenance as sections of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from grover_dist.analysis.context_tables import MIN_TESTS, SIGNIFICANT
from grover_dist.analysis.embeddings import KINDS, OTHER_NAMES, OTHERS, PROPERTIES, PROPERTY_NAMES, read_summary, read_table
from grover_dist.analysis.finetune_scores import method_rows, read_metrics
from grover_dist.analysis.masked import masked_findings
from grover_dist.analysis.regions import SOFT_MASK
from grover_dist.analysis.truths import Truth
from grover_dist.grammar.stage import read_grammar
from grover_dist.report import figures
from grover_dist.report.page import NOTHING, Column, PageSection, big_bases, decimals, integer, interval, percent, seconds
from grover_dist.report.task_figures import task_figure
from grover_dist.run_dir import Artifact


def embeddings_section(analysis: Artifact | None) -> PageSection:
    section = PageSection("embeddings", "What the token embeddings hold")
    if analysis is None:
        section.note("No analysis was made in this run.")
        return section
    summary = read_summary(analysis)
    tokens = read_table(analysis, "tokens.arrow")
    section.text(
        f"Average last-layer vector of each of {integer(summary['words'])} words over {integer(summary['tokens_sampled'])} tokens of "
        f"{integer(summary['windows'])} held-out windows, at {integer(summary['cycles'])} cycles. The null is the same architecture with "
        "random weights: a token's neighbours differ with the token, so part of its composition shows without any training."
    )
    explained = summary["explained"]["trained contextual"]
    if len(explained) > 1:
        chosen = np.array([value is not None for value in tokens["contextual_pc1"].to_pylist()])
        columns = {name: tokens[name].to_numpy(zero_copy_only=False)[chosen] for name in ("gc", "length_bp", "count")}
        colours = {"GC content": columns["gc"], "length (bases)": columns["length_bp"], "log10 count": np.log10(columns["count"])}
        x, y = (tokens[f"contextual_pc{i}"].to_numpy(zero_copy_only=False)[chosen].astype(float) for i in (1, 2))
        section.figure(
            figures.embedding_map(x, y, colours, explained),
            "Principal components of the average contextual embeddings; each point is a word, coloured by what is known of it.",
        )
    if "map_x" in tokens.column_names and "contextual_pc1" in tokens.column_names:
        mapped = np.array([value is not None for value in tokens["map_x"].to_pylist()])
        x, y, cluster = (tokens[name].to_numpy(zero_copy_only=False)[mapped] for name in ("map_x", "map_y", "cluster"))
        section.figure(
            figures.word_clusters(x, y, cluster.astype(int)),
            "The same vectors laid out in the plane so that near words stay near (the axes mean nothing); colours and markers are the "
            "clusters of an average linkage by cosine, the largest first. Coordinates and clusters are in tokens.arrow.",
        )
    contextual = [line for line in summary["strongest"] if line["kind"] == "contextual"]
    if contextual:
        section.figure(
            figures.correlation_bars(
                [PROPERTY_NAMES[line["property"]] for line in contextual],
                [line["rho"] for line in contextual],
                {"untrained twin": [line["twin_rho"] for line in contextual]}
                | {
                    OTHER_NAMES[name]: [line[f"{name}_rho"] for line in contextual]
                    for name in OTHERS
                    if all(line.get(f"{name}_rho") is not None for line in contextual)
                },
            ),
            f"The strongest of the first {len(explained)} components for each property.",
        )
    columns = [
        Column("vectors", "kind", number=False),
        Column("property", lambda line: PROPERTY_NAMES[line["property"]], number=False),
        Column("component", lambda line: f"PC{line['component']}"),
        Column("rho", "rho", decimals(2)),
        Column("given the other properties", "partial", decimals(2)),
        Column("untrained twin", "twin_rho", decimals(2)),
        *(
            Column(OTHER_NAMES[name], f"{name}_rho", decimals(2))
            for name in OTHERS
            if any(line.get(f"{name}_rho") is not None for line in summary["strongest"])
        ),
        Column("words", "n", integer),
        Column(
            "beyond the nulls",
            lambda line: "yes" if line["beyond_twin"] and line.get("beyond_shuffled") is not False else "no",
            number=False,
        ),
    ]
    order = {(kind, name): (KINDS[::-1].index(kind), PROPERTIES.index(name)) for kind in KINDS for name in PROPERTIES}
    lines = sorted(summary["strongest"], key=lambda line: order[line["kind"], line["property"]])
    section.table(
        lines,
        columns,
        "Spearman's rho of the component that follows each property best. The twin's is the largest |rho| of any of its components. "
        "All components are in correlations.arrow.",
    )
    return section


def context_section(analysis: Artifact | None) -> PageSection | None:
    """None where there is no analysis: the section before it has said so."""
    if analysis is None:
        return None
    section = PageSection("context", "What the context does to a token")
    summary = read_summary(analysis)["context"]
    section.text(" ".join(f"{sentence}." for sentence in summary["findings"]))
    section.figure(
        figures.similarity_by_layer(summary["trained"]["self_similarity"], summary["twin"]["self_similarity"]),
        "Mean cosine between two occurrences of the same token, over all occurrences in the sampled windows, minus that of "
        "different tokens (anisotropy). Lower means that the context has changed the vectors more.",
    )
    section.note("Each token's numbers are in context.arrow.")
    return section


def masked_section(analysis: Artifact | None) -> PageSection | None:
    if analysis is None:
        return None
    section = PageSection("masked", "Masked words, one by one")
    summary = read_summary(analysis)["masked"]
    section.text(" ".join(f"{sentence}." for sentence in masked_findings(summary)))
    rows = [row for row in summary["by_length"] if row["tests"] >= MIN_TESTS]
    if len(rows) > 1:
        section.figure(
            figures.masked_by_length([row["length_bp"] for row in rows], [row["top1"] for row in rows], [row["top5"] for row in rows]),
            f"Held-out masked words by their length, lengths with {MIN_TESTS} tests or more.",
        )
    columns = [
        Column("masked word", "token", number=False, word=True),
        Column("predicted instead", "predicted", number=False, word=True),
        Column("times", "first", integer),
        Column("tests of the word", "tests", integer),
    ]
    if summary["confused"]:
        section.table(summary["confused"], columns, "The commonest confusions. All are in confusion.arrow, each word in tokens.arrow.")
    return section


def repeats_section(analysis: Artifact | None) -> PageSection | None:
    if analysis is None:
        return None
    section = PageSection("repeats", "Words of repeats")
    summary = read_summary(analysis)["repeats"]
    section.text(" ".join(f"{sentence}." for sentence in summary["findings"]))
    if summary["tracks"]:
        section.table(
            summary["tracks"],
            [
                Column("annotation", "track", number=False),
                Column("class", "class", number=False),
                Column("bases", "bases", big_bases),
                Column("words enriched", "enriched", integer),
                Column("strongest", lambda row: ", ".join(row["top"][:4]) or None, number=False, word=True),
                Column("over expectation", "fold", lambda value: f"{value:.2f} x"),
                Column("predicted first", "accuracy", percent),
                Column("other words", "accuracy_others", percent),
            ],
            "Words enriched in each class (block permutation, q < 0.05 over all words and classes of the annotation), and how often the "
            "model predicts them first where they are masked.",
        )
    if "top" not in summary:
        return section
    tokens = read_table(analysis, "tokens.arrow").to_pydict()
    rows = read_table(analysis, "repeats.arrow").to_pylist()
    q = {row["token"]: row["q"] for row in rows if row["track"] == SOFT_MASK}
    judged = [i for i, tests in enumerate(tokens["masked_tests"]) if tests >= MIN_TESTS and tokens["masked_share"][i] is not None]
    if len(judged) > 1:
        share, accuracy = (np.array([tokens[name][i] for i in judged]) for name in ("masked_share", "masked_accuracy"))
        enriched = np.array([(q[tokens["token"][i]] is not None) and q[tokens["token"][i]] < SIGNIFICANT for i in judged])
        section.figure(
            figures.accuracy_by_repeats(share, accuracy, enriched),
            f"Each point is a word with at least {MIN_TESTS} masked occurrences. Enrichment is tested against the soft mask of other "
            "genome blocks, so that runs of the mask and of the tokens stay as they are.",
        )
    columns = [
        Column("word", "token", number=False, word=True),
        Column("share in soft mask", "share", percent),
        Column("over expectation", "fold", lambda value: f"{value:.2f} x"),
    ]
    section.table(summary["top"], columns, f"The most enriched of {integer(summary['enriched'])} words. All are in repeats.arrow.")
    return section


def regions_section(analysis: Artifact | None) -> PageSection | None:
    if analysis is None:
        return None
    section = PageSection("regions", "Regions")
    summary = read_summary(analysis)["regions"]
    section.text(
        "Embeddings of held-out windows, asked for the class of their window by a linear probe and by nearest neighbours; a genome block "
        "is never on both sides. A relation counts only where it beats shuffled labels, composition alone and the untrained twin."
    )
    section.text(" ".join(f"{sentence}." for sentence in summary["findings"]))
    columns = [
        Column("labels", "label", number=False),
        Column("classes", "classes", number=False),
        Column("windows", "windows", integer),
        Column("readout", "readout", number=False),
        Column("probe", "probe", number=False),
        Column("balanced accuracy", "accuracy", percent),
        Column("shuffled", "shuffled_labels", percent),
        Column("composition", "composition", percent),
        Column("twin", "untrained_twin", percent),
        Column("relation", lambda row: "yes" if row["found"] else "no", number=False),
    ]
    if summary["probes"]:
        section.table(summary["probes"], columns)
    return section


def grammar_section(grammar: Artifact) -> PageSection:
    section = PageSection("grammar", "The grammar book")
    section.text(
        "Every word with its places, neighbours, substitutes and annotations, and the rules over words. A phrase counts only where it "
        "beats both its parts and a genome shuffled with all dinucleotides kept; an influence, where it is above 0 beyond chance."
    )
    section.bullets([f"{sentence}." for sentence in read_grammar(grammar)["findings"]])
    section.link("Open the grammar book", f"../../grammar/{grammar.path.name}/index.html")
    section.note(f"Its tables are in grammar/{grammar.path.name} of the run's folder.")
    return section


def finetune_section(finetuned: Sequence[Artifact]) -> PageSection:
    section = PageSection("tasks", "Fine-tuned tasks")
    if not finetuned:
        section.note("No task was fine-tuned in this run: finetune.tasks is empty.")
        return section
    chart, rows, sentences, remarks = {}, [], [], []
    for artifact in finetuned:
        task, metrics = artifact.manifest["name"], read_metrics(artifact)
        chart[task] = method_rows(metrics)
        rows += [{"task": task, "chosen": row["ours"], **row} for row in chart[task]]
        test = metrics["rows"]["test"]
        sentences.append(f"{task} ({integer(test)} test sequences): {metrics['sentence'].rstrip('.')}.")
        remarks += [f"{task}: {text}" for text in (*metrics["data"].get("notes", ()), *metrics["data"].get("warnings", ()))]
    section.bullets(sentences)
    section.bullets(remarks)
    section.figure(
        figures.task_scores(chart, "Matthews correlation (MCC) on the test part"),
        "Test score of each task with its interval: the fine-tuned model (dots), the same model from random weights and what needs no "
        "language model (diamonds).",
    )
    columns = [
        Column("task", "task", number=False),
        Column("method", "method", number=False),
        Column("MCC", "value", decimals(3)),
        Column("interval", lambda row: interval(row["low"], row["high"], decimals(3))),
        Column("AUROC", "auroc", decimals(3)),
        Column("AUPRC", "auprc", decimals(3)),
        Column("F1", "f1", decimals(3)),
        Column("accuracy", "accuracy", percent),
    ]
    section.table(rows, columns)
    scans = [row for row in rows if "true_window_rank" in row]
    if scans:
        section.table(
            scans,
            [
                Column("task", "task", number=False),
                Column("method", "method", number=False),
                Column("precision at 50 % recall", "precision_at_recall_50", percent),
                Column("precision at 80 % recall", "precision_at_recall_80", percent),
                Column("true window first", "true_window_first", percent),
                Column("rank of the true window", "true_window_rank", decimals(2)),
            ],
            "Scans: the rank of the window with the start site among the windows of its scan, 1 = first.",
        )
    for artifact in finetuned:
        metrics = read_metrics(artifact)
        svg = task_figure(artifact, metrics)
        if svg is not None:
            section.heading(artifact.manifest["name"])
            curve = f"; the curves are for class '{metrics['classes'][1]}'" if len(metrics["classes"]) == 2 else ""
            section.figure(svg, f"Curves and confusion matrices of the first seed{curve}.")
    return section


def truths_section(truths: Sequence[Truth]) -> PageSection:
    section = PageSection("truths", "Planted truths")
    tested = [truth for truth in truths if truth.found is not None]
    section.text(
        f"The genome is synthetic, so what should be found is known: {sum(truth.found for truth in tested)} of {len(tested)} tested truths "
        "were found. Every question has a criterion that could fail; what was not found is said so."
    )
    rows = [truth.to_json() | {"value": _short(truth.value), "null": _short(truth.null)} for truth in truths]
    section.blocks.append({"kind": "truths", "truths": rows})
    return section


def _short(value: float | None) -> str:
    if value is None:
        return NOTHING
    return f"{value:.3g}"


def provenance_section(artifacts: Mapping[str, Sequence[Artifact]]) -> PageSection:
    section = PageSection("provenance", "Where every number comes from")
    rows = []
    versions: dict[str, str] = {}
    for stage in artifacts.values():
        for artifact in stage:
            manifest = artifact.manifest
            versions |= manifest["versions"]
            rows.append(
                {
                    "stage": manifest["stage"],
                    "folder": f"{manifest['stage']}/{artifact.path.name}",
                    "settings": manifest["settings_hash"][:12],
                    "digest": artifact.digest[:12],
                    "bytes": sum(file["bytes"] for file in manifest["files"].values()),
                    "wall": manifest["wall_seconds"],
                    "cpu": manifest["cpu_seconds"],
                }
            )
    columns = [
        Column("folder", "folder", number=False, word=True),
        Column("settings", "settings", number=False, word=True),
        Column("content", "digest", number=False, word=True),
        Column("size", "bytes", lambda n: big_bases(n).replace("b", "B")),
        Column("wall time", "wall", seconds),
        Column("CPU time", "cpu", seconds),
    ]
    section.text(
        "Folders are relative to the run's folder. Each holds manifest.json with its settings, the hashes of its inputs and the checksum "
        "of every file. CPU time is that of the process that wrote the stage."
    )
    section.table(rows, columns)
    section.note("Versions: " + ", ".join(f"{name} {version}" for name, version in sorted(versions.items())) + ".")
    return section
