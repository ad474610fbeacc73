"""The book as a folder of files for a browser: one page, its style and script, and data in pieces that load when a word is opened.

The data are scripts and not JSON, since a page opened from a disk may not fetch files.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from grover_dist.grammar.book import SIGNIFICANT, Book
from grover_dist.grammar.neighbours import Ranked

_HERE = Path(__file__).parent
SHARD_WORDS = 100
MOST_RULES = 1_000  # of a kind on the page; all are in the tables
_MOST_PHRASES, _MOST_CLASSES, _MOST_RECORDS = 8, 16, 40


def write_pages(book: Book, summary: Mapping[str, Any], folder: Path) -> None:
    """index.html, book.css, book.js and data/ in `folder`."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    environment = Environment(loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    html = environment.get_template("book.html").render(name=book.name, cycles=f"{book.cycles:,}", words=f"{len(book.ids):,}")
    (folder / "index.html").write_text(html, encoding="utf-8")
    for name in ("book.css", "book.js"):
        (folder / name).write_text((_HERE / name).read_text(encoding="utf-8"), encoding="utf-8")
    _script(folder / "data" / "index.js", "GROVER_BOOK", _index(book, summary))
    _script(folder / "data" / "rules.js", "GROVER_RULES", _rules(book))
    details = _details(book)
    for shard in range(0, len(details), SHARD_WORDS):
        number = shard // SHARD_WORDS
        text = f"groverWords({number},{_json(details[shard : shard + SHARD_WORDS])});\n"
        (folder / "data" / f"words-{number:03d}.js").write_text(text, encoding="utf-8")


def _index(book: Book, summary: Mapping[str, Any]) -> dict[str, Any]:
    """words: one list a word, by rising id, in the order of `columns`; complement: place of the reverse complement in that list or -1."""
    ids, statistics = book.ids, book.statistics
    columns = {
        "word": [book.strings[i] for i in ids],
        "count": book.counts.count[ids].tolist(),
        "length": statistics.length_bp[ids].tolist(),
        "gc": _plain(statistics.gc[ids], 3),
        "accuracy": _plain(book.words["masked_accuracy"][ids], 3),
        "tests": _plain(book.words["masked_tests"][ids], 0),
        "top5": _plain(book.words["masked_top5"][ids], 3),
        "perplexity": _plain(book.words["masked_perplexity"][ids], 1),
        "ambiguity": _plain(1 - book.words["self_similarity"][ids], 3),
        "repeats": _plain(book.words["masked_share"][ids], 4),
    }
    first, complements = int(ids[0]), book.reverse_complements()
    return {
        "name": book.name,
        "cycles": book.cycles,
        "bases": int(book.corpus.store.n_rows),
        "tokens": int(book.counts.count.sum()),
        "shard": SHARD_WORDS,
        "columns": list(columns),
        "words": [list(row) for row in zip(*columns.values(), strict=True)],
        "complement": [complements[i] - first if complements[i] >= 0 else -1 for i in ids],
        "records": _records(book),
        "softMasked": bool(statistics.masked_bases.any()),
        "findings": summary["findings"],
    }


def _records(book: Book) -> list[dict[str, Any]]:
    """The longest records, in file order: where their bins are. A draft assembly has more than a page can show."""
    lengths = np.array(book.corpus.store.contigs.record_lengths_bp)
    shown = np.sort(np.argsort(-lengths, kind="stable")[:_MOST_RECORDS])
    return [
        {
            "name": book.corpus.store.contigs.record_names[record],
            "length": int(lengths[record]),
            "bin": int(book.bins.bin_bp[record]),
            "first": int(book.bins.record_first[record]),
            "bins": int(book.bins.record_first[record + 1] - book.bins.record_first[record]),
        }
        for record in shown.tolist()
    ]


def _details(book: Book) -> list[dict[str, Any]]:
    """One record a word, in the order of the index: b(ins), l(eft), r(ight), n(ear), s(ubstitutes), e(nrichment), p(hrases)."""
    ids, size, first = book.ids, len(book.strings), int(book.ids[0])
    lists = {"l": book.neighbours["left"], "r": book.neighbours["right"], "n": book.near, "s": book.substitutes}
    ranges = {key: ranked.by_word(size) for key, ranked in lists.items()}
    enriched = _enriched(book)
    phrases = _phrases_of_words(book)
    found = []
    for i in ids.tolist():
        entry: dict[str, Any] = {"b": book.counts.bins[i].tolist()}
        for key, ranked in lists.items():
            entry[key] = _lines(ranked, ranges[key][i], first)
        entry["e"] = enriched.get(i, [])
        entry["p"] = phrases.get(i, [])
        found.append(entry)
    return found


def _lines(ranked: Ranked, chosen: slice, first: int) -> list[list[float]]:
    columns = (ranked.other[chosen] - first, np.round(ranked.value[chosen], 4), ranked.count[chosen])
    return [list(line) for line in zip(*(column.tolist() for column in columns), strict=True) if line[0] >= 0]


def _enriched(book: Book) -> dict[int, list[list[Any]]]:
    """Track and class, share of the word's bases in it, fold and q, by word."""
    found: dict[int, list[list[Any]]] = {}
    if book.enrichment is None:
        return found
    table = book.enrichment
    order = np.lexsort((-np.nan_to_num(table["fold"]), np.nan_to_num(table["q"], nan=2.0), table["token"]))
    for line in order.tolist():
        if not math.isfinite(table["q"][line]):
            continue
        mine = found.setdefault(int(table["token"][line]), [])
        if len(mine) < _MOST_CLASSES:
            label = [str(table[name][line]) for name in ("track", "class") if name in table] or ["soft mask", ""]
            mine.append([*label, round(float(table["share"][line]), 4), _significant(table["fold"][line]), _significant(table["q"][line])])
    return found


def _phrases_of_words(book: Book) -> dict[int, list[list[Any]]]:
    """The phrases that a word belongs to and that beat both nulls: ids, count, fold."""
    found: dict[int, list[list[Any]]] = {}
    first = int(book.ids[0])
    for phrases in reversed(book.phrases):
        for line in np.flatnonzero(phrases.q < SIGNIFICANT)[np.argsort(-phrases.bits[phrases.q < SIGNIFICANT], kind="stable")].tolist():
            words = phrases.ids[line].tolist()
            for word in set(words):
                mine = found.setdefault(word, [])
                if len(mine) < _MOST_PHRASES:
                    mine.append([[w - first for w in words], int(phrases.count[line]), _significant(phrases.fold[line])])
    return found


def _rules(book: Book) -> dict[str, Any]:
    first = int(book.ids[0])
    rules: dict[str, Any] = {"phrases": [], "totals": {}}
    for phrases in book.phrases:
        n = phrases.ids.shape[1]
        beyond = np.flatnonzero(phrases.q < SIGNIFICANT)
        shown = beyond[np.argsort(-phrases.bits[beyond], kind="stable")[:MOST_RULES]]
        rules["totals"][str(n)] = [len(beyond), len(phrases)]
        columns = (phrases.count, phrases.expected, phrases.shuffled, phrases.fold, phrases.bits, phrases.q)
        rules["phrases"] += [
            [(phrases.ids[i] - first).tolist(), int(columns[0][i]), *(_significant(column[i]) for column in columns[1:])]
            for i in shown.tolist()
        ]
    if book.influence:
        pairs = book.influence["trained"].pairs()
        beyond = np.flatnonzero(pairs["q"] < SIGNIFICANT)
        shown = beyond[np.argsort(-pairs["nats"][beyond], kind="stable")[:MOST_RULES]]
        rules["totals"]["influence"] = [len(beyond), len(pairs["q"])]
        rules["influence"] = [
            [int(pairs["context"][i]) - first, int(pairs["distance"][i]), int(pairs["target"][i]) - first, int(pairs["n"][i]),
             _significant(pairs["nats"][i]), _significant(pairs["q"][i])]
            for i in shown.tolist()
        ]  # fmt: skip
        rules["profiles"] = [
            {"model": name, "distance": found.distances.tolist()}
            | {key: [_significant(x) for x in values] for key, values in zip(("nats", "error", "attention"), found.profile(), strict=True)}
            for name, found in book.influence.items()
            if len(found.target)
        ]
        rules["agreement"] = [_significant(x) for x in book.influence["trained"].agreement()]
    rules["positions"] = []
    for found in book.positions:
        beyond = np.flatnonzero(found.q < SIGNIFICANT)
        shown = beyond[np.argsort(found.p[beyond], kind="stable")[:MOST_RULES]]
        rules["positions"].append(
            {
                "name": found.name,
                "anchors": found.anchors,
                "tested": len(found.word),
                "rules": [
                    [int(found.word[i]) - first, *(int(column[i]) for column in (found.place_bp, found.count, found.controls)),
                     _significant(found.fold[i]), _significant(found.q[i])]
                    for i in shown.tolist()
                ],
            }
        )  # fmt: skip
    rules["untested"] = list(book.untested)
    return rules


def _plain(values: np.ndarray, places: int) -> list[float | None]:
    return [None if not math.isfinite(value) else (round(value, places) if places else int(value)) for value in values.tolist()]


def _significant(value: float) -> float | None:
    return float(f"{float(value):.4g}") if math.isfinite(value) else None


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def _script(path: Path, name: str, value: Mapping[str, Any] | Sequence[Any]) -> None:
    path.write_text(f"window.{name} = {_json(value)};\n", encoding="utf-8")
