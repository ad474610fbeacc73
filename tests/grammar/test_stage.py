"""The book of a small run: tables and pages say the same, the pages need no network, and a browser shows them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import Counter
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from grover_dist.analysis.embeddings import read_table
from grover_dist.cli import app
from grover_dist.corpus.corpus import Corpus
from grover_dist.errors import UserError
from grover_dist.grammar.counting import SparseCounts
from grover_dist.grammar.neighbours import embedding_neighbours, side_neighbours
from grover_dist.grammar.stage import grammar_of_run, write_grammar


@pytest.fixture(scope="module")
def model(small_run):
    return next(a for a in small_run.pretrain if a.counts["cycles"] == small_run.chosen)


@pytest.fixture(scope="module")
def book(small_run, model):
    config = small_run.config.model_copy(
        update={"grammar": small_run.config.grammar.model_copy(update={"influence_targets": 24, "influence_distance": 3, "bins": 40})}
    )
    return write_grammar(
        config, small_run.run, small_run.learn, model, small_run.analysis, small_run.genome, cycles=small_run.chosen, say=lambda _: None
    )


def script(path, name: str):
    return json.loads(re.fullmatch(rf"window\.{name} = (.*);\n", path.read_text(), re.DOTALL)[1])


def shards(book) -> list[dict]:
    texts = [re.fullmatch(r"groverWords\(\d+,(.*)\);\n", path.read_text())[1] for path in sorted(book.path.glob("data/words-*.js"))]
    return [entry for text in texts for entry in json.loads(text)]


def test_words_are_those_of_the_genome(small_run, book) -> None:
    corpus = Corpus.open(small_run.learn)
    edges = corpus.store.contigs.row_start.tolist()
    ids = np.concatenate([corpus.ids_of_rows(a, b, small_run.chosen) for a, b in pairwise(edges)])
    strings = corpus.vocabulary.strings(small_run.chosen)
    expected = Counter(strings[i] for i in ids)
    words = read_table(book, "words.arrow").to_pydict()
    assert dict(zip(words["word"], words["count"], strict=True)) == {word: expected[word] for word in strings[5:]}
    for word, turned, count in zip(words["word"], words["reverse_complement"], words["reverse_complement_count"], strict=True):
        assert turned == word.translate(str.maketrans("ACGT", "TGCA"))[::-1]
        assert count == (expected[turned] if turned in strings else None)
    tracks = read_table(book, "tracks.arrow")["count"].combine_chunks()
    assert np.array_equal(np.array(tracks.flatten()).reshape(len(words["word"]), -1).sum(axis=1), words["count"])


def test_the_pages_say_what_the_tables_say(book) -> None:
    index, rules, entries = (
        script(book.file("data/index.js"), "GROVER_BOOK"),
        script(book.file("data/rules.js"), "GROVER_RULES"),
        shards(book),
    )
    words = read_table(book, "words.arrow").to_pydict()
    assert [row[0] for row in index["words"]] == words["word"] and [row[1] for row in index["words"]] == words["count"]
    assert len(entries) == len(words["word"]) and [sum(entry["b"]) for entry in entries] == words["count"]
    phrases = read_table(book, "phrases.arrow").to_pylist()
    beyond = {tuple(row["words"]): row for row in phrases if row["q"] < 0.05}
    shown = {tuple(words["word"][i] for i in row[0]): row for row in rules["phrases"]}
    assert set(shown) == set(beyond) and all(beyond[key]["count"] == row[1] for key, row in shown.items())
    sides = {(row["token"], row["neighbour"]): row for row in read_table(book, "neighbours.arrow").to_pylist() if row["side"] == "right"}
    assert sum(len(entry["r"]) for entry in entries) == len(sides)
    for place, entry in enumerate(entries):
        for other, bits, count in entry["r"]:
            assert sides[words["word"][place], words["word"][other]]["count"] == count
            assert sides[words["word"][place], words["word"][other]]["bits"] == pytest.approx(bits, abs=1e-3)
    assert {anchor["name"] for anchor in rules["positions"]} <= {"planted TSS", "planted CTCF site"}


def test_the_folder_needs_no_network(book) -> None:
    for path in [*book.path.glob("*.html"), *book.path.glob("*.css"), *book.path.glob("*.js")]:
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "http" not in text and "@import" not in text and "fetch(" not in text


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium on this machine")
def test_a_browser_shows_a_word_and_its_neighbours(book, tmp_path) -> None:
    words = read_table(book, "words.arrow").to_pydict()
    word = words["word"][int(np.argmax(words["count"]))]
    command = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}", "--virtual-time-budget=3000"]
    page = f"file://{book.file('index.html')}#/word/{word}"
    text = subprocess.run([*command, "--dump-dom", page], capture_output=True, text=True, timeout=120).stdout
    plain = re.sub(r"<[^>]*>", " ", text.split('id="card"')[1])
    assert re.sub(r"\s", "", plain).startswith(("aria-live", word)) or word in re.sub(r"\s", "", plain)
    assert f"{max(words['count']):,}" in plain and "Stands on its left" in plain and "Where it occurs" in plain


def test_the_command_takes_what_is_there(small_run, book, model) -> None:
    from typer.testing import CliRunner

    overrides = ["grammar.influence_targets=24", "grammar.influence_distance=3", "grammar.bins=40"]
    result = CliRunner().invoke(app, ["grammar", str(small_run.run.path), *overrides])
    assert result.exit_code == 0, result.output
    assert "complete already" in result.output and str(book.file("index.html")) in result.output


def test_a_model_of_another_run_is_refused(small_run, model) -> None:
    other = next(a for a in small_run.pretrain if a.counts["cycles"] != small_run.chosen)
    with pytest.raises(UserError, match="not of this model"):
        write_grammar(small_run.config, small_run.run, small_run.learn, other, small_run.analysis, cycles=small_run.chosen)


def test_a_run_without_analysis_is_told_what_to_do(small_run, tmp_path) -> None:
    from grover_dist.run_dir import RunDir

    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(UserError, match="no vocabulary") as error:
        grammar_of_run(small_run.config, RunDir.existing(tmp_path))
    assert "analyze" in str(error.value)


def test_mutual_information_by_hand() -> None:
    """Six pairs 1 1, two 1 2, two 2 2: P(1 left) = 0.8, P(2 right) = 0.4."""
    pairs = SparseCounts(np.array([11, 12, 22]), np.array([6, 2, 2]))
    right = side_neighbours(pairs, 10, side="right", min_count=2, most=5)
    assert right.of.tolist() == [1, 1, 2] and right.other.tolist() == [1, 2, 2]
    assert right.value.tolist() == pytest.approx([np.log2(0.6 / (0.8 * 0.6)), np.log2(0.2 / (0.8 * 0.4)), np.log2(0.2 / (0.2 * 0.4))])
    left = side_neighbours(pairs, 10, side="left", min_count=3, most=5)
    assert left.of.tolist() == [1] and left.other.tolist() == [1]


def test_near_words_are_near() -> None:
    vectors = np.array([[0, 0], [1, 0.1], [1, 0], [-1, 0], [-1, 0.1], [9, 9]], float)
    known = np.array([False, True, True, True, True, False])
    found = embedding_neighbours(vectors, known, 1)
    assert dict(zip(found.of.tolist(), found.other.tolist(), strict=True)) == {1: 2, 2: 1, 3: 4, 4: 3}
    assert isinstance(found.table([str(i) for i in range(6)], ("a", "b", "c")), pa.Table)


def test_the_report_leads_to_the_book(small_run, book) -> None:
    from grover_dist.report.stage import write_report

    report = write_report(small_run.config, small_run.run, small_run.artifacts | {"grammar": book}, say=lambda _: None)
    html = report.file("report.html").read_text()
    target = re.search(r'<section id="grammar">.*?<a href="([^"]+)">', html, re.DOTALL)[1]
    assert (report.path / target).resolve() == book.file("index.html").resolve()
