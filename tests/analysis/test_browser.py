"""Browser tracks against predictions by hand, read back by readers that are not ours."""

from __future__ import annotations

import numpy as np
import pyarrow.csv
import pytest
import torch

from grover_dist.analysis import sums
from grover_dist.analysis.browser import ROUNDS, _merged, track_region, write_tracks
from grover_dist.corpus.corpus import Corpus


@pytest.fixture(scope="module")
def opened(small_run):
    corpus = Corpus.open(small_run.learn)
    model = sums.load_model(next(a for a in small_run.pretrain if a.counts["cycles"] == small_run.chosen))
    return corpus, model


@pytest.fixture(scope="module")
def folder(small_run, opened, tmp_path_factory):
    path = tmp_path_factory.mktemp("tracks")
    corpus, model = opened
    first, second = corpus.store.contigs.record_names[:2]
    regions = [f"{second}:100-1,500", f"{first}:0-3,000"]
    write_tracks(model, corpus, small_run.chosen, path, regions=regions, max_tokens=60, genome="toy", say=lambda _: None)
    return path


def table(path, names: list[str]):
    """Read by Arrow's CSV reader."""
    options = pyarrow.csv.ReadOptions(column_names=names)
    return pyarrow.csv.read_csv(path, read_options=options, parse_options=pyarrow.csv.ParseOptions(delimiter="\t")).to_pydict()


def test_surprise_and_information_by_hand(small_run, opened) -> None:
    corpus, model = opened
    record = corpus.store.contigs.record_names[0]
    track = track_region(model, corpus, record, 0, 500, small_run.chosen, 40)
    ids = track.ids[:40]
    for place in (0, 7, 20):
        masked = np.array([2, *ids, 3])
        masked[1:-1][np.arange(40) % ROUNDS == place % ROUNDS] = 4
        with torch.no_grad():
            chance = torch.softmax(model(torch.tensor(masked[None])).logits[0, place + 1, 5:], -1).double().numpy()
        length = track.end_bp[place] - track.start_bp[place]
        assert track.surprise[place] == pytest.approx(-np.log2(chance[ids[place] - 5]) / length, rel=1e-4)
        entropy = -(chance * np.log2(chance)).sum()
        assert track.information[place] == pytest.approx((np.log2(len(chance)) - entropy) / length, rel=1e-3, abs=1e-6)


def test_files_are_sorted_and_hold_the_genome(small_run, opened, folder) -> None:
    corpus, _ = opened
    tokens = table(folder / "tokens.bed", ["record", "start", "end", "token", "score", "strand"])
    places = list(zip(tokens["record"], tokens["start"], strict=True))
    assert places == sorted(places) and len(places) == len(set(places))
    for record, start, end, token in list(zip(tokens["record"], tokens["start"], tokens["end"], tokens["token"], strict=True))[::50]:
        ((low, high),) = corpus.store.contigs.rows_of(record, start, end)
        assert "".join("ACGT"[code] for code in corpus.store.base(low, high)) == token
    assert all(0 <= score <= 1000 for score in tokens["score"])
    for name in ("information", "surprise"):
        values = table(folder / f"{name}.bedGraph", ["record", "start", "end", "value"])
        assert values["start"] == tokens["start"] and values["end"] == tokens["end"]
        assert min(values["value"]) >= 0
    regions = table(folder / "regions.bed", ["record", "start", "end", "name", "score", "strand", "thick_start", "thick_end", "colour"])
    assert all(0 <= int(part) <= 255 for colour in regions["colour"] for part in colour.split(","))
    assert len(set(zip(regions["name"], regions["colour"], strict=True))) == len(set(regions["name"])) > 1
    covered = sum(b - a for a, b in zip(regions["start"], regions["end"], strict=True))
    assert covered == sum(b - a for a, b in zip(tokens["start"], tokens["end"], strict=True))


def test_the_hub_is_read_back(folder) -> None:
    pybigtools = pytest.importorskip("pybigtools", reason="the extra `tracks` is not installed")
    hub = dict(line.split(" ", 1) for line in (folder / "hub/hub.txt").read_text().splitlines())
    genomes = dict(line.split(" ", 1) for line in (folder / "hub" / hub["genomesFile"]).read_text().splitlines())
    stanzas = (folder / "hub" / genomes["trackDb"]).read_text().strip().split("\n\n")
    urls = [dict(line.split(" ", 1) for line in stanza.splitlines())["bigDataUrl"] for stanza in stanzas]
    assert len(urls) == 4
    for name in ("information", "surprise"):
        plain = table(folder / f"{name}.bedGraph", ["record", "start", "end", "value"])
        read = pybigtools.open(str(folder / "hub/toy" / f"{name}.bw"))
        lines = [(record, *line) for record in sorted(set(plain["record"])) for line in read.records(record)]
        assert [line[:3] for line in lines] == list(zip(plain["record"], plain["start"], plain["end"], strict=True))
        assert [line[3] for line in lines] == pytest.approx(plain["value"], abs=1e-4)
    tokens = table(folder / "tokens.bed", ["record", "start", "end", "token", "score", "strand"])
    read = pybigtools.open(str(folder / "hub/toy/tokens.bb"))
    assert [line[2] for record in sorted(set(tokens["record"])) for line in read.records(record)] == tokens["token"]
    from grover_dist.analysis.tracks import read_big_wig

    again = read_big_wig(folder / "hub/toy/surprise.bw")
    assert again.score.tolist() == pytest.approx(
        table(folder / "surprise.bedGraph", ["record", "start", "end", "value"])["value"], abs=1e-4
    )


def test_regions_that_could_share_a_token_become_one() -> None:
    assert _merged([("b", 5, 9), ("a", 100, 200), ("a", 10, 50), ("a", 55, 60)], 8) == [("a", 10, 60), ("a", 100, 200), ("b", 5, 9)]
