"""The report as a whole: one file, nothing from outside, the run's own numbers, absent sections said to be absent."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

from grover_dist.analysis.truths import check_truths
from grover_dist.report.stage import write_report

SECTIONS = (
    "truths",
    "genome",
    "vocabulary",
    "pretraining",
    "selection",
    "embeddings",
    "masked",
    "context",
    "repeats",
    "regions",
    "tasks",
    "provenance",
)
_VOID = {"meta", "input", "br", "link", "use", "path", "img"}


class _Outline(HTMLParser):
    """Ids, references and whether every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.references: list[str] = []
        self.open: list[str] = []
        self.sources: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes) -> None:
        if tag not in _VOID:
            self.open.append(tag)
        self._look(attributes)

    def handle_startendtag(self, tag, attributes) -> None:
        self._look(attributes)

    def _look(self, attributes) -> None:
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            elif name in ("href", "xlink:href"):
                if not value.startswith("data:"):  # a colour bar's pixels
                    (self.references if value.startswith("#") else self.sources).append(value)
            elif name in ("src", "data", "action"):
                self.sources.append(value)
            for target in re.findall(r"url\(([^)]*)\)", value or ""):
                (self.references if target.startswith("#") else self.sources).append(target)

    def handle_endtag(self, tag) -> None:
        if tag not in _VOID:
            assert self.open.pop() == tag


def test_one_file_without_network(html: str) -> None:
    outline = _Outline(html)
    assert outline.open == [] and outline.sources == []
    assert len(outline.ids) == len(set(outline.ids))
    assert {reference[1:] for reference in outline.references} <= set(outline.ids)
    assert "@import" not in html and "@font-face" not in html and "<link" not in html


def test_every_section_is_there_in_order(html: str) -> None:
    assert tuple(re.findall(r'<section id="(\w+)">', html)) == SECTIONS
    # lengths, curves, accuracy, components, map, correlations, masked, layers, repeats, tasks, and one for each of two tasks
    assert html.count("<svg") == 12


def test_the_numbers_are_the_runs_own(html: str, small_run) -> None:
    decision = json.loads(small_run.selection.file("decision.json").read_text())
    assert decision["sentence"][1:] in html
    assert f"{small_run.genome.counts['bases']:,} bases" in html
    for artifact in (small_run.genome, small_run.learn, small_run.selection, small_run.analysis):
        assert artifact.path.name in html and artifact.digest[:12] in html


def test_names_are_escaped(html: str) -> None:
    assert "<h1>Run small &lt;run&gt;</h1>" in html and "small <run>" not in html


def test_the_dictionary_is_whole(html: str, small_run) -> None:
    data = json.loads(re.search(r'id="dictionary-data">(.*?)</script>', html, re.DOTALL)[1])
    assert len(data["rows"]) == small_run.chosen + 4
    assert all(len(row) == len(data["kinds"]) == 8 for row in data["rows"])
    counts = [row[2] for row in data["rows"]]
    assert counts == sorted(counts, reverse=True) and sum(row[1] * row[2] for row in data["rows"]) == small_run.genome.counts["bases"]


def test_planted_truths_are_asked_and_written(report, small_run, html: str) -> None:
    truths = json.loads(report.file("truths.json").read_text())
    assert [truth["name"] for truth in truths] == [
        truth.name for truth in check_truths(small_run.genome, small_run.learn, cycles=small_run.chosen)
    ]
    assert report.counts["truths_tested"] == sum(truth["found"] is not None for truth in truths)
    assert html.count('class="found"') + html.count('class="missed"') == report.counts["truths_tested"]


def test_the_same_run_gives_the_same_report(small_run, report, html: str) -> None:
    said: list[str] = []
    again = write_report(small_run.config, small_run.run, dict(reversed(small_run.artifacts.items())), say=said.append)
    assert again.path == report.path and "skipped" in said[0]


def test_what_is_absent_is_said(small_run) -> None:
    only = write_report(small_run.config, small_run.run, {"genome": small_run.genome}, say=lambda _: None)
    html = only.file("report.html").read_text()
    assert "the run is not complete" in html
    for sentence in ("No vocabulary has been learned", "No candidate has been pretrained", "No vocabulary has been selected", "No analysis",
                     "No task was fine-tuned"):  # fmt: skip
        assert sentence in html
    assert not only.file("truths.json").exists()
