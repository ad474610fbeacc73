"""Stage "grammar": the book of the chosen vocabulary, as tables and as a folder of pages that needs no network.

index.html, book.css, book.js, data/   the book; open index.html in a browser
words.arrow            one row a word
tracks.arrow           one row a word: occurrences in each bin of the genome; bins.arrow: where the bins are
neighbours.arrow       one row a word, side and neighbour: pointwise mutual information in bits, count
similar.arrow          one row a word and near word, by embedding (cosine) and by substitution (probability)
phrases.arrow          every n-gram that is frequent enough, with both nulls, p and q
influence.arrow        context word, distance, target: gain of the masked prediction in nats
influence_profile.arrow  mean influence and attention by distance; the model and its untrained twin
positions.arrow        words at fixed places around anchors
grammar.json           findings in words, and numbers of the figures
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from grover_dist.analysis.embeddings import read_table, write_arrow
from grover_dist.analysis.sums import TWIN_SEED, load_model
from grover_dist.analysis.token_statistics import TokenStatistics, token_statistics
from grover_dist.analysis.tracks import load_anchors
from grover_dist.analysis.truths import is_synthetic, read_truth
from grover_dist.config import Config
from grover_dist.corpus.corpus import Corpus
from grover_dist.corpus.windows import make_windows
from grover_dist.errors import UserError
from grover_dist.genome.split import split_blocks
from grover_dist.genome.synthetic import TSS_OFFSET
from grover_dist.grammar import page
from grover_dist.grammar.book import Book, findings
from grover_dist.grammar.counting import WordCounts, count_phrases, count_words, make_bins, shards, sum_shards
from grover_dist.grammar.influence import Influence, measure_influence
from grover_dist.grammar.neighbours import embedding_neighbours, side_neighbours, substitutes
from grover_dist.grammar.phrases import Phrases, count_shuffled, pairs_beyond_chance, phrases_beyond_chance
from grover_dist.grammar.positions import Anchors, PositionRules, position_rules
from grover_dist.model.bert import masked_lm
from grover_dist.run_dir import Artifact, RunDir, Work

_FORMAT = 1  # of the pages; a change makes a new book of the same run


def write_grammar(
    config: Config,
    run: RunDir,
    corpus: Artifact,
    pretrained: Artifact,
    analysis: Artifact,
    genome: Artifact | None = None,
    *,
    cycles: int,
    say: Callable[[str], None] = print,
) -> Artifact:
    """The grammar book of one candidate. UserError where the analysis is of another vocabulary or model."""
    if analysis.counts["cycles"] != cycles or analysis.manifest["inputs"].get("pretrained") != pretrained.digest:
        raise UserError(
            "the analysis is not of this model",
            where=analysis.path,
            got=f"{analysis.counts['cycles']} cycles",
            expected=f"{cycles} cycles, made from {pretrained.path.name}",
            hint="run `grover-dist analyze CONFIG` again",
        )
    settings = {
        "format": _FORMAT,
        "grammar": config.grammar,
        "cycles": cycles,
        "windows": config.windows,
        "split": config.split,
        "seed": config.seed,
        "name": config.run.name,
    }
    inputs = {"corpus": corpus, "pretrained": pretrained, "analysis": analysis} | ({"genome": genome} if genome is not None else {})

    def write(work: Work) -> None:
        book = make_book(config, Corpus.open(corpus), pretrained, analysis, genome, cycles)
        for name, table in book.tables().items():
            write_arrow(work, name, table)
        summary = findings(book)
        work.write_json("grammar.json", summary)
        page.write_pages(book, summary, work.path)
        work.counts |= {"cycles": cycles, "words": int(book.statistics.is_word.sum()), **summary["counts"]}
        for sentence in summary["findings"]:
            say(f"grammar: {sentence}")

    return run.once("grammar", f"c{cycles}", write, settings=settings, inputs=inputs, say=say)


def grammar_of_run(config: Config, run: RunDir, say: Callable[[str], None] = print) -> Artifact:
    """The book of a run's newest analysis, from what its folder holds. UserError where something it needs is not there."""
    corpus, pretrained, analysis = analysed(run)
    cycles = int(analysis.counts["cycles"])
    return write_grammar(config, run, corpus, pretrained, analysis, run.latest("genome"), cycles=cycles, say=say)


def analysed(run: RunDir) -> tuple[Artifact, Artifact, Artifact]:
    """Corpus, model and analysis of a run's newest analysis. UserError where one of them is not there."""
    corpus, analysis = run.latest("learn"), run.latest("analysis")
    if corpus is None or analysis is None:
        missing = "vocabulary" if corpus is None else "analysis"
        raise UserError(f"the run has no {missing} yet", where=run.path, hint="run `grover-dist analyze CONFIG` first")
    inputs = analysis.manifest["inputs"]
    models = [found for found in _complete(run, "pretrain", f"c{analysis.counts['cycles']}") if found.digest == inputs.get("pretrained")]
    if not models:
        raise UserError(
            "the model that was analysed is not in the run's folder",
            where=run.path / "pretrain",
            expected=f"a pretrain stage of {analysis.counts['cycles']} cycles with digest {str(inputs.get('pretrained'))[:12]}",
            hint="run `grover-dist analyze CONFIG` again",
        )
    corpora = [found for found in _complete(run, "learn", "*") if found.digest == inputs.get("corpus")]
    return (corpora[0] if corpora else corpus), models[0], analysis


def _complete(run: RunDir, stage: str, name: str) -> list[Artifact]:
    named = [found for found in run.names(stage) if name in ("*", found.rpartition("/")[2][:-9])]
    return [artifact for artifact in map(run.at, named) if artifact is not None]


def make_book(
    config: Config, corpus: Corpus, pretrained: Artifact, analysis: Artifact, genome: Artifact | None, cycles: int, parts: int = 8
) -> Book:
    """Everything that the book says, before it is written."""
    settings, statistics = config.grammar, token_statistics(corpus, cycles)
    size = len(statistics.strings)
    bins, pieces = make_bins(corpus, settings.bins), shards(corpus, cycles, parts)
    counts = sum_shards(pieces, lambda start, stop: count_words(corpus, cycles, start, stop, bins))
    assert isinstance(counts, WordCounts)
    words = word_columns(statistics, analysis)
    contextual = np.stack(read_table(analysis, "embeddings.arrow")["trained_contextual"].to_numpy(zero_copy_only=False)).astype(np.float64)
    model = load_model(pretrained)
    twin = masked_lm(model.config, seed=config.seed ^ TWIN_SEED)
    windows = make_windows(
        corpus.store, split_blocks(corpus.store.contigs, config.split, config.seed), config.windows, cycles, config.seed
    ).held_out
    influence: dict[str, Influence] = {}
    for name, weights, targets in (("trained", model, settings.influence_targets), ("twin", twin, settings.influence_targets // 4)):
        if targets:
            influence[name] = measure_influence(
                weights, corpus, windows, cycles, targets=targets, distance=settings.influence_distance, seed=config.seed
            )
    positions = [
        position_rules(corpus, cycles, anchors, flank_bp=settings.anchor_flank_bp, bin_bp=settings.anchor_bin_bp, seed=config.seed)
        for anchors in anchors_of(config, corpus, genome)
    ]
    neighbours = {
        side: side_neighbours(counts.pairs, size, side=side, min_count=settings.min_count, most=settings.neighbours)
        for side in ("left", "right")
    }
    return Book(
        name=config.run.name,
        cycles=cycles,
        corpus=corpus,
        statistics=statistics,
        bins=bins,
        counts=counts,
        words=words,
        neighbours=neighbours,
        near=embedding_neighbours(contextual, words["sampled"] >= settings.min_count, settings.neighbours),
        substitutes=substitutes(_confusion(analysis, statistics), settings.neighbours),
        enrichment=_enrichment(analysis, statistics),
        phrases=find_phrases(config, corpus, cycles, counts, pieces),
        influence=influence,
        positions=[found for found in positions if isinstance(found, PositionRules)],
        untested=[found for found in positions if isinstance(found, str)],
    )


def find_phrases(config: Config, corpus: Corpus, cycles: int, counts: WordCounts, pieces: list[tuple[int, int]]) -> list[Phrases]:
    """Phrases of 2, 3 ... tokens that are frequent enough to be tested."""
    settings, size = config.grammar, len(counts.count)
    # A key is a number of `phrase_tokens` digits to the base of the vocabulary's size, and must fit into 63 bits.
    longest = max(2, min(settings.phrase_tokens, int(63 / np.log2(size))))
    shuffled = count_shuffled(corpus, cycles, tuple(range(2, longest + 1)), most_bp=settings.shuffled_bp, seed=config.seed)
    tokens = int(counts.count.sum())
    ngrams = {2: counts.pairs}
    found = [pairs_beyond_chance(counts.pairs, size, shuffled, settings.min_count)]
    for n in range(3, longest + 1):
        frequent = ngrams[n - 1].at_least(settings.min_count)
        if not len(frequent.keys):
            break
        ngrams[n] = sum_shards(pieces, lambda a, b, n=n, frequent=frequent: count_phrases(corpus, cycles, a, b, n, frequent))
        tested = ngrams[n].keys[ngrams[n].counts >= settings.min_count]
        middle = tested // size % size ** (n - 2)
        middle_counts = counts.count[middle] if n == 3 else ngrams[n - 2].of_keys(middle)
        shorter, least = ngrams[n - 1], settings.min_count
        found.append(phrases_beyond_chance(ngrams[n].at_least(least), n, shorter, middle_counts, size, tokens, shuffled, least))
    return found


def anchors_of(config: Config, corpus: Corpus, genome: Artifact | None) -> list[Anchors]:
    """Those of the settings; for a synthetic genome also the planted starts and sites."""
    contigs = corpus.store.contigs
    found = [Anchors(settings.name, *load_anchors(settings, contigs)) for settings in config.grammar.anchors]
    if is_synthetic(genome):
        assert genome is not None
        for name, kind, offset in (("planted TSS", "promoters", TSS_OFFSET), ("planted CTCF site", "ctcf_bound", 0)):
            lines = read_truth(genome, kind)
            minus = np.array([line[5] == "-" for line in lines], bool)
            position = np.array([line[2] - 1 - offset if line[5] == "-" else line[1] + offset for line in lines], np.int64)
            record = np.array([contigs.record_index(line[0]) for line in lines], np.int64)
            rows = contigs.rows_of_positions(record, position) if len(lines) else np.empty(0, np.int64)
            found.append(Anchors(name, rows[rows >= 0], minus[rows >= 0]))
    return found


def word_columns(statistics: TokenStatistics, analysis: Artifact) -> dict[str, np.ndarray]:
    """What the analysis says of each word, by model id; NaN where it says nothing."""
    size = len(statistics.strings)
    tokens = read_table(analysis, "tokens.arrow")
    ids = tokens["id"].to_numpy()
    columns = {}
    for name in ("sampled", "masked_tests", "masked_accuracy", "masked_top5", "masked_perplexity", "masked_share"):
        column = np.full(size, np.nan)
        column[ids] = tokens[name].to_numpy(zero_copy_only=False).astype(np.float64)
        columns[name] = column
    columns["sampled"] = np.nan_to_num(columns["sampled"])
    context = read_table(analysis, "context.arrow")
    model, token, layer, adjusted = (context[name].to_numpy(zero_copy_only=False) for name in ("model", "token", "layer", "adjusted"))
    last = (model == "trained") & (layer == layer.max(initial=0))
    columns["self_similarity"] = np.full(size, np.nan)
    columns["self_similarity"][_ids(statistics, token[last])] = adjusted[last]
    return columns


def _confusion(analysis: Artifact, statistics: TokenStatistics) -> Mapping[str, np.ndarray]:
    table = read_table(analysis, "confusion.arrow")
    columns = {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}
    return columns | {name: _ids(statistics, columns[name]) for name in ("token", "predicted")}


def _enrichment(analysis: Artifact, statistics: TokenStatistics) -> dict[str, np.ndarray] | None:
    """Lines of repeats.arrow by word, best first; None where the genome has no annotation at all."""
    if not analysis.file("repeats.arrow").is_file():
        return None
    table = read_table(analysis, "repeats.arrow")
    columns = {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names if name not in ("bases_sampled",)}
    columns["token"] = _ids(statistics, columns["token"])
    for name in ("share", "expected", "fold", "p", "q"):
        columns[name] = columns[name].astype(np.float64)
    return columns


def _ids(statistics: TokenStatistics, strings: np.ndarray) -> np.ndarray:
    index = {text: place for place, text in enumerate(statistics.strings)}
    return np.array([index[text] for text in strings], np.int64)


def read_grammar(artifact: Artifact) -> dict[str, Any]:
    return json.loads(artifact.file("grammar.json").read_text())
