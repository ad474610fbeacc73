"""What was planted in a synthetic genome, and whether the run found it. Each question has a criterion that could fail, and a null."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from grover_dist.analysis.correlation import false_discovery_rate
from grover_dist.analysis.embeddings import read_summary, read_table
from grover_dist.analysis.finetune_scores import COMPOSITION, OURS, method_rows, read_metrics
from grover_dist.analysis.token_statistics import TokenStatistics, token_chunks, token_statistics
from grover_dist.corpus.corpus import Corpus
from grover_dist.genome.synthetic import iupac_instances
from grover_dist.run_dir import Artifact

REPEAT_SHARE = 0.9  # of a word's bases inside planted repeats, to be a repeat word
MIN_GC_WORDS = 4  # a smaller vocabulary says nothing about dinucleotides
MIN_TESTS = 10  # masked occurrences, to judge a word's accuracy
MIN_MOTIF_BP = 4  # of a planted word, for a token to count as a piece of it; a token of three must be one wholly
SIGNIFICANT = 0.05
_COMPLEMENT = str.maketrans("ACGT", "TGCA")


@dataclass(frozen=True)
class Truth:
    """found: None where the run has not what the question needs. null: the value of something that knows nothing, where there is one."""

    name: str
    question: str
    found: bool | None
    value: float | None
    null: float | None
    needed: str
    sentence: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def check_truths(
    genome: Artifact,
    learn: Artifact,
    *,
    cycles: int,
    analysis: Artifact | None = None,
    pretrained: Artifact | None = None,
    selection: Artifact | None = None,
    baselines: Artifact | None = None,
    finetuned: Mapping[str, Artifact] | None = None,
) -> list[Truth]:
    """All questions, for the vocabulary of `cycles`. `genome` is the artefact of a synthetic genome; `finetuned` is by task name."""
    planted = json.loads(genome.file("truth/truth.json").read_text())
    corpus = Corpus.open(learn)
    statistics = token_statistics(corpus, cycles)
    repeat_share = planted_share(corpus, cycles, genome, len(statistics.strings))
    found = [
        repeat_words_by_mask(statistics, repeat_share),
        repeat_words_by_model(statistics, repeat_share, analysis),
        tandem_units(statistics, planted["tandem_units"]),
        cpg_depletion(statistics),
        isochores(analysis),
        language(statistics, pretrained, baselines),
        pretraining(selection),
    ]
    found += [motif_at_tss(corpus, cycles, genome, planted["promoter"], motif) for motif in ("tata", "inr")]
    return found + [planted_task(name, (finetuned or {}).get(name)) for name in ("promoter", "ctcf")]


def is_synthetic(genome: Artifact | None) -> bool:
    return genome is not None and genome.file("truth/truth.json").is_file()


def repeat_words_by_mask(statistics: TokenStatistics, repeat_share: np.ndarray) -> Truth:
    """Soft mask as the store holds it, against the planted intervals: the mask has come through all stages at its place."""
    used = statistics.is_word & (statistics.count > 0)
    called, true = statistics.masked_share[used] >= REPEAT_SHARE, repeat_share[used] >= REPEAT_SHARE
    question, needed = "Are the words of the planted repeats known by their soft mask?", "precision and recall above 0.9"
    if not true.any():
        sentence = f"None of {int(used.sum())} words lies to {_percent(REPEAT_SHARE)} in planted repeats: the words are too short."
        return Truth("repeat words by mask", question, None, None, None, needed, sentence)
    hits = int((called & true).sum())
    precision, recall = hits / max(int(called.sum()), 1), hits / max(int(true.sum()), 1)
    return Truth(
        "repeat words by mask",
        question,
        min(precision, recall) > 0.9,
        min(precision, recall),
        float(true.mean()),
        needed,
        f"{int(called.sum())} words lie to {_percent(REPEAT_SHARE)} or more in soft-masked bases; against the planted intervals "
        f"precision is {precision:.2f} and recall {recall:.2f} ({int(true.sum())} true repeat words of {int(used.sum())}).",
    )


def repeat_words_by_model(statistics: TokenStatistics, repeat_share: np.ndarray, analysis: Artifact | None) -> Truth:
    """The model's masked-token accuracy alone must tell repeat words from the others (area under the ROC curve)."""
    name, question = "repeat words by model", "Does the model, which never saw the mask, predict the words of repeats better than others?"
    needed = "AUC above 0.7, and above 99 % of shuffled labels"
    if analysis is None:
        return Truth(name, question, None, None, None, needed, "The run has no analysis of embeddings.")
    table = read_table(analysis, "tokens.arrow").to_pydict()
    tested = [(i, a) for i, n, a in zip(table["id"], table["masked_tests"], table["masked_accuracy"], strict=True) if n >= MIN_TESTS]
    ids = np.array([i for i, _ in tested], dtype=np.int64)
    accuracy = np.array([a for _, a in tested])
    true = repeat_share[ids] >= REPEAT_SHARE
    if true.all() or not true.any():
        sentence = f"Of {len(ids)} words with {MIN_TESTS} masked occurrences, {int(true.sum())} are repeat words: nothing to compare."
        return Truth(name, question, None, None, None, needed, sentence)
    value = _auc(accuracy, true)
    random = np.random.default_rng(0)
    null = float(np.quantile([_auc(accuracy, random.permutation(true)) for _ in range(500)], 0.99))
    return Truth(
        name,
        question,
        value > max(0.7, null),
        value,
        null,
        needed,
        f"Masked accuracy is {_percent(accuracy[true].mean())} for {int(true.sum())} repeat words and {_percent(accuracy[~true].mean())} "
        f"for {int((~true).sum())} others: AUC {value:.2f} (99 % of shuffled labels stay below {null:.2f}).",
    )


def tandem_units(statistics: TokenStatistics, units: Sequence[str]) -> Truth:
    """A unit is found if a word reads along its array for two units or eight bases; the null are random units of the same lengths."""
    words = {word for word, used in zip(statistics.strings, statistics.is_word & (statistics.count > 0), strict=True) if used}
    found = [unit for unit in units if _has_array_word(unit, words)]
    random = np.random.default_rng(0)
    nulls = []
    for _ in range(200):
        drawn = ["".join(random.choice(list("ACGT"), len(unit))) for unit in units if len(unit) > 2]
        nulls.append(sum(_has_array_word(unit, words) for unit in drawn))
    tested = [unit for unit in units if len(unit) > 2]  # one or two random letters are often a planted unit
    null = float(np.quantile(nulls, 0.95)) if tested else 0.0
    longer = sum(unit in found for unit in tested)
    return Truth(
        "tandem repeats",
        "Did tandem repeat units become words?",
        len(found) >= len(units) / 2 and longer > null,
        float(len(found)),
        null,
        f"at least half of {len(units)} units, and of those above 2 bp more than random units",
        f"{len(found)} of {len(units)} planted units have a word of their own ({', '.join(found) or 'none'}); of the {len(tested)} longer "
        f"units {longer}, where 95 % of random sets of units have {null:.0f} or fewer.",
    )


def cpg_depletion(statistics: TokenStatistics) -> Truth:
    """GC has the composition of CG and is not depleted, so it is the null."""
    merged = [word for word, used in zip(statistics.strings, statistics.is_word & (statistics.count > 0), strict=True) if used]
    cg, gc = sum("CG" in word for word in merged), sum("GC" in word for word in merged)
    return Truth(
        "CpG depletion",
        "Is CG rare among the words, as it is in the genome?",
        cg < gc / 4 if gc >= MIN_GC_WORDS else None,
        float(cg),
        float(gc),
        "fewer than a quarter of the words with GC",
        f"{cg} words hold CG, {gc} hold GC, which has the same composition and is not depleted.",
    )


def isochores(analysis: Artifact | None) -> Truth:
    """Static vectors hold no composition before training, so their GC axis is learned."""
    name, question, needed = (
        "isochores",
        "Does a principal component of the token embeddings follow GC?",
        "|rho| above the untrained twin's",
    )
    if analysis is None:
        return Truth(name, question, None, None, None, needed, "The run has no analysis of embeddings.")
    lines = {line["kind"]: line for line in read_summary(analysis)["strongest"] if line["property"] == "gc"}
    if "static" not in lines:
        return Truth(name, question, None, None, None, needed, "GC content does not vary among the tokens.")
    words = [
        f"{kind} vectors: PC{line['component']}, rho {line['rho']:.2f} (twin {line['twin_rho']:.2f}, {line['n']} tokens)"
        for kind, line in lines.items()
    ]
    static = lines["static"]
    return Truth(name, question, static["beyond_twin"], abs(static["rho"]), abs(static["twin_rho"]), needed, _sentence("; ".join(words)))


def language(statistics: TokenStatistics, pretrained: Artifact | None, baselines: Artifact | None) -> Truth:
    """Bits per base of masked tokens, against token frequencies and the best Markov chain of the next-k-mer task."""
    name, question = "language", "Does the model need fewer bits per base than chains of counts?"
    needed = "below the best of both baselines"
    if pretrained is None or "bits_per_base" not in pretrained.counts:
        return Truth(name, question, None, None, None, needed, "The run has no pretrained model.")
    used = statistics.count > 0
    share = statistics.count[used] / statistics.count.sum()
    unigram = float(-(share * np.log2(share)).sum() / (share * statistics.length_bp[used]).sum())
    nulls, text = [unigram], f"token frequencies {unigram:.3f}"
    if baselines is not None:
        table = read_table(baselines, "baselines.arrow")
        k = table["k"].to_numpy()
        nats = -table["markov_log_prob"].to_numpy()[k == k.max()].mean(dtype=np.float64)
        markov = float(nats / int(k.max()) / np.log(2))
        nulls.append(markov)
        text += f", the best Markov chain {markov:.3f} (one-sided context)"
    value = float(pretrained.counts["bits_per_base"])
    sentence = f"The model needs {value:.3f} bits per base on masked tokens (two-sided context); {text}."
    return Truth(name, question, value < min(nulls), value, min(nulls), needed, sentence)


def pretraining(selection: Artifact | None) -> Truth:
    name, question = "pretraining", "Does pretraining help next-k-mer prediction?"
    needed = "better than the untrained twin beyond the interval"
    if selection is None:
        return Truth(name, question, None, None, None, needed, "The run has no selection.")
    decision = json.loads(selection.file("decision.json").read_text())
    found = decision["pretraining"][str(decision["chosen"])]
    return Truth(name, question, found["verdict"] == "better", found["difference"], 0.0, needed, decision["pretraining_sentence"])


def motif_at_tss(corpus: Corpus, cycles: int, genome: Artifact, planted: Mapping[str, Any], motif: str) -> Truth:
    """Words over the motif's place in promoters, against the same place in windows where nothing was planted (Fisher, FDR).

    The null is the same test 100 bases upstream of the motif's place: what it calls there is chance.
    """
    word, shift = planted[f"{motif}_word"], planted[f"{motif}_from_tss_bp"]
    low, high = shift if isinstance(shift, list) else (shift, shift)
    instances = iupac_instances(word)
    places = (planted["tss_offset_bp"] + low, planted["tss_offset_bp"] + high + len(word))
    significant, tested = _enriched_words(corpus, cycles, genome, places)
    elsewhere, _ = _enriched_words(corpus, cycles, genome, (places[0] - 100, places[1] - 100))
    pieces = [text for text, _ in significant if _shares_piece(text, instances)]
    named = ", ".join(f"{text} ({ratio:.1f} x)" for text, ratio in significant[:4] if text in pieces)
    label = {"tata": "TATA box", "inr": "initiator"}[motif]
    return Truth(
        f"{label} words",
        f"Are words of the {label} enriched at its place in promoters?",
        len(pieces) > len(elsewhere),
        float(len(pieces)),
        float(len(elsewhere)),
        f"more words at q < {SIGNIFICANT} than 100 bp upstream",
        f"{len(pieces)} of {tested} words over the place are enriched and hold a piece of {word}"
        + (f": {named}" if named else "")
        + f"; 100 bp upstream {len(elsewhere)} are enriched.",
    )


def planted_task(task: str, finetuned: Artifact | None) -> Truth:
    """The fine-tuned classifier's interval must lie above what composition alone gives; word counts are told beside it."""
    question = {
        "promoter": "Are planted promoters told from windows of the same composition?",
        "ctcf": "Are bound CTCF motifs told from unbound ones, by the word beside them?",
    }[task]
    needed = "interval of the MCC above what composition gives"
    if finetuned is None:
        return Truth(f"{task} task", question, None, None, None, needed, f"The run has no fine-tune task named '{task}'.")
    metrics = read_metrics(finetuned)
    rows = {row["key"]: row for row in method_rows(metrics)}
    null = max([0.0, *(rows[key]["value"] for key in COMPOSITION if key in rows)])
    ours = rows[OURS]
    sentence = f"{metrics['sentence'].rstrip('.')}; composition alone {null:.3f}"
    return Truth(f"{task} task", question, bool(ours["low"] > null), ours["value"], null, needed, _sentence(sentence))


def planted_share(corpus: Corpus, cycles: int, genome: Artifact, vocabulary_size: int) -> np.ndarray:
    """Share of each token's bases that lie in planted transposons or tandem repeats, float64 [vocabulary]; 0 where it never occurs."""
    planted = np.zeros(corpus.store.n_rows, bool)
    for kind in ("transposons", "tandem_repeats"):
        for record, start_bp, end_bp, *_ in read_truth(genome, kind):
            for row_start, row_stop in corpus.store.contigs.rows_of(record, start_bp, end_bp):
                planted[row_start:row_stop] = True
    inside, total = np.zeros(vocabulary_size), np.zeros(vocabulary_size)
    lengths = corpus.vocabulary.lengths(cycles)
    for row_start, row_stop in token_chunks(corpus, cycles):
        ids = corpus.ids_of_rows(row_start, row_stop, cycles)
        starts = corpus.starts_of_rows(row_start, row_stop, cycles) - row_start
        covered = np.add.reduceat(planted[row_start:row_stop], starts, dtype=np.int64)
        inside += np.bincount(ids, weights=covered, minlength=vocabulary_size)
        total += np.bincount(ids, weights=lengths[ids], minlength=vocabulary_size)
    return inside / np.maximum(total, 1)


def read_truth(genome: Artifact, kind: str) -> list[tuple[str, int, int, str, int, str]]:
    """Lines of truth/<kind>.bed: record, start, end (0-based half-open), name, score, strand."""
    rows = []
    for line in genome.file(f"truth/{kind}.bed").read_text().splitlines():
        record, start, end, name, score, strand = line.split("\t")
        rows.append((record, int(start), int(end), name, int(score), strand))
    return rows


def _auc(values: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve: the chance that a positive lies above a negative, ties half."""
    ranks = stats.rankdata(values)
    n = int(positive.sum())
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * (len(values) - n)))


def _has_array_word(unit: str, words: set[str]) -> bool:
    needed = max(4, min(2 * len(unit), 8))
    arrays = [text * (64 // len(unit) + 2) for text in (unit, _reverse_complement(unit))]
    return any(len(word) >= needed and any(word in array for array in arrays) for word in words)


def _enriched_words(corpus: Corpus, cycles: int, genome: Artifact, places: tuple[int, int]) -> tuple[list[tuple[str, float]], int]:
    """Words over `places` (offsets along the strand of the window) that promoters hold more often than the control windows.

    Returns ([(word read along the strand, ratio of shares)], best first) and the number of words tested.
    """
    counts: list[dict[str, int]] = []
    sizes = []
    strings = corpus.vocabulary.strings(cycles)
    for kind in ("promoters", "non_promoters"):
        seen: dict[str, int] = {}
        windows = read_truth(genome, kind)
        for record, start_bp, end_bp, _, _, strand in windows:
            low, high = (start_bp + places[0], start_bp + places[1]) if strand == "+" else (end_bp - places[1], end_bp - places[0])
            texts = {strings[i] for i in corpus.tokens(record, low, high, cycles).ids}
            for text in texts:
                text = text if strand == "+" else _reverse_complement(text)
                seen[text] = seen.get(text, 0) + 1
        counts.append(seen)
        sizes.append(len(windows))
    words = sorted(counts[0])
    if not words or not min(sizes):
        return [], 0
    p = np.array(
        [stats.fisher_exact([[a, sizes[0] - a], [b, sizes[1] - b]], alternative="greater").pvalue for a, b in
         ((counts[0][word], counts[1].get(word, 0)) for word in words)]
    )  # fmt: skip
    q = false_discovery_rate(p)
    ratios = {word: (counts[0][word] / sizes[0]) / ((counts[1].get(word, 0) + 0.5) / sizes[1]) for word in words}
    return [(words[i], ratios[words[i]]) for i in np.argsort(p, kind="stable") if q[i] < SIGNIFICANT], len(words)


def _shares_piece(word: str, instances: Sequence[str]) -> bool:
    """True where `word` and an instance of the motif share `MIN_MOTIF_BP` bases in a row (or all of a word of three)."""
    if len(word) < MIN_MOTIF_BP - 1:
        return False
    size = min(MIN_MOTIF_BP, len(word))
    return any(word[i : i + size] in instance for i in range(len(word) - size + 1) for instance in instances)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}".removesuffix(".0") + " %"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


def _reverse_complement(text: str) -> str:
    return text.translate(_COMPLEMENT)[::-1]
