"""Stage "analysis": what the embedding of a token encodes, beside the same numbers for a model that was never trained.

    tokens.arrow        one row a token: content, occurrences, soft-masked share, masked-token performance, components
    embeddings.arrow    one row a token: its static and its average contextual vector, of the model and of its nulls
    correlations.arrow  component by property: Spearman's rho, partial rho, p, q; models and nulls, static and contextual
    confusion.arrow     one row a pair of masked and expected word: how often first, mean probability
    context.arrow       one row a model, token and layer: self-similarity, explainable variance
    repeats.arrow       one row a token and class: enrichment in soft-masked bases (where the genome has some and not only those) and in
                        each class of each annotation track
    analysis.json       shares of variance, and the findings in words

The twin is the same architecture with its random initial weights. Its average contextual vectors are not empty: a token's neighbours
differ with the token, so composition shows in them without any training. Only what goes beyond the twin was learned.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

from grover_dist.analysis.context_tables import context_tables, repeat_tables
from grover_dist.analysis.correlation import Correlations, differ, false_discovery_rate, spearman
from grover_dist.analysis.map import with_map
from grover_dist.analysis.masked import TOP, MaskedPerformance, confusion_table, masked_findings, masked_summary
from grover_dist.analysis.regions import probe_rows, region_probes
from grover_dist.analysis.sums import MapParts, held_out_batches, make_model, map_here, model_sums, unmask
from grover_dist.analysis.token_statistics import TokenStatistics, token_statistics
from grover_dist.analysis.tracks import ClassTrack, load_track
from grover_dist.analysis.word2vec import cbow
from grover_dist.config import Config
from grover_dist.corpus.corpus import Corpus
from grover_dist.corpus.windows import make_windows
from grover_dist.errors import UserError
from grover_dist.genome.split import split_blocks
from grover_dist.run_dir import Artifact, RunDir, Work

PROPERTIES = ("log_count", "gc", "ag", "ac", "length_bp")
PROPERTY_NAMES = {"log_count": "log frequency", "gc": "GC content", "ag": "AG content", "ac": "AC content", "length_bp": "length"}
OTHER_NAMES = {"shuffled": "model of the shuffled genome", "word2vec": "Word2Vec"}
KINDS = ("static", "contextual")
MODELS = ("trained", "twin")
OTHERS = ("shuffled", "word2vec")  # where they were made
MIN_OCCURRENCES = 5  # of a token in the sample, to have an average contextual vector
MIN_WORDS = 10


def analyze(
    config: Config,
    run: RunDir,
    corpus: Artifact,
    pretrained: Artifact,
    *,
    cycles: int,
    shuffled: Artifact | None = None,
    map_parts: MapParts = map_here,
    say: Callable[[str], None] = print,
) -> Artifact:
    """Analyse the embeddings of one pretrained candidate on held-out windows. shuffled: the model of the shuffled genome, as a null.
    map_parts: where the passes of the models over the windows are made.

    UserError where fewer than ten tokens occur in the windows.
    """
    settings = {
        "analysis": config.analysis,
        "cycles": cycles,
        "windows": config.windows,
        "split": config.split,
        "mask": config.pretrain.held_out_mask,
        "seed": config.seed,
    }

    inputs = {"corpus": corpus, "pretrained": pretrained} | ({"shuffled": shuffled} if shuffled is not None else {})

    def write(work: Work) -> None:
        summary = _write_analysis(config, Corpus.open(corpus), pretrained, shuffled, cycles, work, map_parts)
        work.counts |= {"cycles": cycles, "windows": summary["windows"], "tokens_sampled": summary["tokens_sampled"]}
        for sentence in summary["findings"]:
            say(f"analysis: {sentence}")

    return run.once("analysis", f"c{cycles}", write, settings=settings, inputs=inputs, say=say)


def _write_analysis(
    config: Config, corpus: Corpus, pretrained: Artifact, shuffled: Artifact | None, cycles: int, work: Work, map_parts: MapParts
) -> dict[str, Any]:
    statistics = token_statistics(corpus, cycles)
    vectors: dict[tuple[str, str], np.ndarray] = {}
    parents = {"trained": pretrained, "twin": pretrained} | ({"shuffled": shuffled} if shuffled is not None else {})
    sums = {name: model_sums(config, corpus, parent, cycles, name=name, map_parts=map_parts) for name, parent in parents.items()}
    models = {name: make_model(config, parent, name) for name, parent in parents.items()}
    for name, weights in models.items():
        vectors[name, "contextual"] = sums[name].contextual.means
        vectors[name, "static"] = weights.bert.embeddings.word_embeddings.weight.detach().double().cpu().numpy()
    model, twin, contextual, performance = models["trained"], models["twin"], sums["trained"].contextual, sums["trained"].masked
    chosen = statistics.is_word & (statistics.count > 0) & (contextual.count >= MIN_OCCURRENCES)
    if chosen.sum() < MIN_WORDS:
        raise UserError(
            "too few tokens occur in the sampled windows to compare their embeddings",
            where="analysis.windows",
            got=f"{int(chosen.sum())} tokens with {MIN_OCCURRENCES} occurrences in {sums['trained'].windows} windows",
            expected=f"at least {MIN_WORDS}",
            hint="raise analysis.windows, or hold out more of the genome",
        )
    if config.analysis.word2vec_tokens:
        train = make_windows(
            corpus.store, split_blocks(corpus.store.contigs, config.split, config.seed), config.windows, cycles, config.seed
        ).train
        vectors["word2vec", "static"] = cbow(
            corpus, train, cycles, hidden=model.config.hidden_size, tokens=config.analysis.word2vec_tokens, seed=config.seed
        )
    properties = token_properties(statistics, chosen)
    components = min(config.analysis.components, int(chosen.sum()) - 1, model.config.hidden_size)
    scores, explained, correlations = {}, {}, {}
    for key, table in vectors.items():
        scores[key], explained[key] = principal_components(table[chosen], components)
        correlations[key] = spearman(scores[key], properties)
        scores[key] = _orient(scores[key], correlations[key])
        correlations[key] = spearman(scores[key], properties)
    tokens = _token_table(statistics, contextual.count, performance, chosen, scores)
    tokens = with_map(tokens, vectors["trained", "contextual"][chosen], chosen[statistics.is_word], config.analysis, config.seed)
    write_arrow(work, "tokens.arrow", tokens)
    write_arrow(work, "embeddings.arrow", _vector_table(statistics, vectors))
    write_arrow(work, "correlations.arrow", _correlation_table(correlations))
    write_arrow(work, "confusion.arrow", confusion_table(performance, statistics.strings))
    summary = {
        "cycles": cycles,
        "windows": sums["trained"].windows,
        "tokens_sampled": int(contextual.count.sum()),
        "words": int(chosen.sum()),
        "layers": model.config.num_hidden_layers,
        "explained": {f"{name} {kind}": [round(float(x), 6) for x in shares] for (name, kind), shares in explained.items()},
        "strongest": strongest(correlations),
        "masked": masked_summary(performance, statistics),
    }
    plain = [unmask(batch) for batch in held_out_batches(config, corpus, cycles)]
    table, summary["context"] = context_tables(
        {"trained": model, "twin": twin}, {name: sums[name].context.profile() for name in MODELS}, plain, statistics, config.seed
    )
    write_arrow(work, "context.arrow", table)
    tracks = [load_track(settings, corpus.store.contigs) for settings in config.analysis.tracks]
    classes = [track for track in tracks if isinstance(track, ClassTrack)]
    table, summary["repeats"] = repeat_tables(corpus, cycles, statistics, performance.tests, performance.first, config.seed, classes)
    if table is not None:
        write_arrow(work, "repeats.arrow", table)
    probes, sentences = region_probes(config, corpus, cycles, {"trained": model, "twin": twin}, tracks)
    summary["regions"] = {"findings": sentences, "probes": probe_rows(probes)}
    deeper = (summary[part]["findings"] for part in ("context", "repeats", "regions"))
    summary["findings"] = [*findings(summary), *masked_findings(summary["masked"]), *chain.from_iterable(deeper)]
    work.write_json("analysis.json", summary)
    return summary


def principal_components(vectors: np.ndarray, components: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores [n, components] and shares of variance [components] of the rows of `vectors`, centred and not scaled."""
    centred = vectors - vectors.mean(axis=0)
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    shares = singular**2 / max(float((singular**2).sum()), np.finfo(float).tiny)
    return left[:, :components] * singular[:components], shares[:components]


def token_properties(statistics: TokenStatistics, chosen: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "log_count": np.log10(statistics.count[chosen]),
        "gc": statistics.gc[chosen],
        "ag": statistics.ag[chosen],
        "ac": statistics.ac[chosen],
        "length_bp": statistics.length_bp[chosen].astype(float),
    }


def strongest(correlations: dict[tuple[str, str], Correlations]) -> list[dict[str, Any]]:
    """For each kind of vector and property: the model's component with the largest |rho|, and the twin's own best beside it."""
    found = []
    for kind in KINDS:
        trained, twin = correlations["trained", kind], correlations["twin", kind]
        for column, name in enumerate(trained.properties):
            rho, null = trained.rho[:, column], twin.rho[:, column]
            if not np.isfinite(rho).any():
                continue
            best = int(np.nanargmax(np.abs(rho)))
            best_null = float(np.nanmax(np.abs(null))) if np.isfinite(null).any() else float("nan")
            others = {f"{other}_rho": _largest(correlations.get((other, kind)), column) for other in OTHERS}
            shuffled = others["shuffled_rho"]
            found.append(
                {
                    "kind": kind,
                    "property": name,
                    "component": best + 1,
                    "rho": round(float(rho[best]), 4),
                    "partial": round(float(trained.partial[best, column]), 4),
                    "twin_rho": round(best_null, 4),
                    "n": trained.n,
                    "beyond_twin": differ(float(rho[best]), best_null, trained.n),
                    "beyond_shuffled": None if shuffled is None else differ(float(rho[best]), shuffled, trained.n),
                    **others,
                }
            )
    return found


def _largest(correlations: Correlations | None, column: int) -> float | None:
    """The largest |rho| of any component with a property."""
    if correlations is None or not np.isfinite(correlations.rho[:, column]).any():
        return None
    return round(float(np.nanmax(np.abs(correlations.rho[:, column]))), 4)


def findings(summary: dict[str, Any]) -> list[str]:
    """One sentence for each property of the average contextual embedding, with its null."""
    sentences = []
    for line in summary["strongest"]:
        if line["kind"] != "contextual":
            continue
        verdict = "beyond the untrained twin" if line["beyond_twin"] else "not beyond the untrained twin"
        if line["beyond_twin"] and line["beyond_shuffled"] is not None:
            verdict += f" {'and' if line['beyond_shuffled'] else 'but not beyond'} the {OTHER_NAMES['shuffled']}"
        others = "".join(f", {OTHER_NAMES[name]} {line[f'{name}_rho']:.2f}" for name in OTHERS if line.get(f"{name}_rho") is not None)
        sentences.append(
            f"{PROPERTY_NAMES[line['property']]}: PC{line['component']}, rho {line['rho']:.2f} "
            f"(twin {line['twin_rho']:.2f}{others}, given the other properties {line['partial']:.2f}), {verdict}"
        )
    return sentences


def read_table(artifact: Artifact, name: str) -> pa.Table:
    """An Arrow IPC table of an artefact, memory-mapped."""
    return pa.ipc.open_file(pa.memory_map(str(artifact.file(name)))).read_all()


def read_summary(artifact: Artifact) -> dict[str, Any]:
    return json.loads(artifact.file("analysis.json").read_text())


def _orient(scores: np.ndarray, correlations: Correlations) -> np.ndarray:
    """The sign of a component means nothing: choose it so that its strongest correlation is positive."""
    rho = np.nan_to_num(correlations.rho)
    signs = np.sign(rho[np.arange(len(rho)), np.abs(rho).argmax(axis=1)])
    return scores * np.where(signs == 0, 1.0, signs)


def _token_table(
    statistics: TokenStatistics,
    sampled: np.ndarray,
    performance: MaskedPerformance,
    chosen: np.ndarray,
    scores: dict[tuple[str, str], np.ndarray],
) -> pa.Table:
    """One row a token that is not special, by id. Components are null for tokens without enough occurrences in the sample."""
    words = np.flatnonzero(statistics.is_word)
    tests = performance.tests[words]

    def per_test(values: np.ndarray) -> pa.Array:
        return pa.array(values[words] / np.maximum(tests, 1), mask=tests == 0)

    columns: dict[str, Any] = {
        "id": words,
        "token": [statistics.strings[i] for i in words],
        "length_bp": statistics.length_bp[words],
        "gc": statistics.gc[words],
        "ag": statistics.ag[words],
        "ac": statistics.ac[words],
        "count": statistics.count[words],
        "masked_share": pa.array(statistics.masked_share[words], mask=statistics.count[words] == 0),
        "sampled": sampled[words],
        "masked_tests": tests,
        "masked_accuracy": per_test(performance.first),
        "masked_top5": per_test(performance.in_five),
        f"masked_top{TOP}": per_test(performance.in_top),
        "masked_nats": per_test(performance.nats),
        "masked_perplexity": pa.array(performance.perplexity[words], mask=tests == 0),
    }
    for (name, kind), values in scores.items():
        if name != "trained":
            continue
        full = np.full((len(chosen), values.shape[1]), np.nan)
        full[chosen] = values
        for component in range(values.shape[1]):
            columns[f"{kind}_pc{component + 1}"] = pa.array(full[words, component], mask=~chosen[words])
    return pa.table(columns)


def _vector_table(statistics: TokenStatistics, vectors: dict[tuple[str, str], np.ndarray]) -> pa.Table:
    columns: dict[str, Any] = {"token": statistics.strings}
    for (name, kind), values in vectors.items():
        flat = pa.array(values.astype(np.float32).ravel())
        columns[f"{name}_{kind}"] = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    return pa.table(columns)


def _correlation_table(correlations: dict[tuple[str, str], Correlations]) -> pa.Table:
    rows = []
    for (name, kind), found in correlations.items():
        q = false_discovery_rate(found.p.ravel()).reshape(found.p.shape)
        for component, column in np.ndindex(found.rho.shape):
            values = {key: float(getattr(found, key)[component, column]) for key in ("rho", "partial", "p")}
            rows.append(
                {"model": name, "vectors": kind, "component": component + 1, "property": found.properties[column], "n": found.n}
                | values
                | {"q": float(q[component, column])}
            )
    return pa.Table.from_pylist(rows)


def write_arrow(work: Work, name: str, table: pa.Table) -> None:
    with pa.OSFile(str(work.file(name)), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
