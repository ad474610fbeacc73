"""The choice of the vocabulary from artefacts with known scores."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from grover_dist.config import config_from
from grover_dist.run_dir import RunDir
from grover_dist.selection import ladder
from grover_dist.selection.decide import decide, pareto_front

KS, N, BLOCKS = (2, 3), 2_000, 40
BLOCK = np.sort(np.random.default_rng(0).integers(0, BLOCKS, N)).astype(np.int32)


def write_table(path, columns):
    table = pa.table(columns)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def correct_at(rate, *, own, seeds=1):
    """Correct predictions that candidates share where their rates overlap, and a little noise of their own."""
    shared = np.random.default_rng(1).random((1, len(KS), N))
    noise = np.random.default_rng(own).normal(0, 0.02, (seeds, len(KS), N))
    return (shared + noise < rate).reshape(-1)


class Laboratory:
    """Writes evaluations of made-up candidates into a run."""

    def __init__(self, folder, **selection):
        settings = {"ks": list(KS), "bootstrap_samples": 500, **selection}
        self.config = config_from({"run": {"dir": str(folder)}, "genome": {"fasta": "genome.fa"}, "selection": settings})
        self.run = RunDir.open(self.config)
        self.evaluations, self.pretrained = {}, {}
        with self.run.begin("kmer-baselines", "baselines", settings={}) as work:
            names = {"majority": 0.05, "markov": 0.1, "forest": 0.11}
            rows = {"k": np.repeat(KS, N).astype(np.uint8), "position": np.tile(np.arange(N, dtype=np.int32), len(KS))}
            write_table(work.file("baselines.arrow"), rows | {name: correct_at(rate, own=99) for name, rate in names.items()})
            work.counts["markov_order"] = {str(k): 4 for k in KS}
        self.baselines = self.run.find("kmer-baselines", "baselines", settings={})

    def add(self, cycles, rate, *, twin=0.1, seeds=1, bits=1.9, **counts):
        with self.run.begin("kmer", f"c{cycles}", settings={}) as work:
            n = seeds * len(KS) * N
            columns = {
                "seed": np.repeat(np.arange(seeds, dtype=np.uint8), len(KS) * N),
                "k": np.tile(np.repeat(KS, N), seeds).astype(np.uint8),
                "position": np.tile(np.arange(N, dtype=np.int32), seeds * len(KS)),
                "block": np.tile(BLOCK, seeds * len(KS)),
                "correct_pretrained": correct_at(rate, own=cycles, seeds=seeds),
                "correct_twin": correct_at(twin, own=cycles + 1, seeds=seeds),
                "log_prob_pretrained": np.full(n, -1.0, np.float32),
            }
            write_table(work.file("predictions.arrow"), columns)
            work.counts["tokens_per_input"] = 50 / np.log(cycles)
        with self.run.begin("pretrain", f"c{cycles}", settings={}) as work:
            work.counts |= {"bits_per_base": bits, **counts}
        self.evaluations[cycles] = self.run.find("kmer", f"c{cycles}", settings={})
        self.pretrained[cycles] = self.run.find("pretrain", f"c{cycles}", settings={})

    def decide(self, **more):
        artifact = decide(self.config, self.run, self.evaluations, self.pretrained, self.baselines, say=lambda text: None, **more)
        with pa.memory_map(str(artifact.file("table.arrow"))) as source:
            return json.loads(artifact.file("decision.json").read_text()), pa.ipc.open_file(source).read_all()


def test_a_clear_winner_is_chosen(tmp_path):
    laboratory = Laboratory(tmp_path)
    for cycles, rate in ((100, 0.2), (300, 0.2), (600, 0.3), (1000, 0.2)):
        laboratory.add(cycles, rate)
    decision, table = laboratory.decide()
    assert decision["chosen"] == decision["best"] == 600 and decision["tied"] == [600]
    assert "beats every other candidate" in decision["sentence"]
    assert decision["pretraining"]["600"]["verdict"] == "better" and "helps" in decision["pretraining_sentence"]
    assert {found["verdict"] for found in decision["baselines"].values()} == {"better"}
    assert decision["runner_up"]["high"] < 0
    assert table.num_rows == 8 and set(table["k"].to_pylist()) == set(KS)
    for row in table.to_pylist():
        assert row["low"] <= row["accuracy"] <= row["high"] and row["majority"] < row["markov"] < row["accuracy"]
    mean = table.group_by("cycles").aggregate([("accuracy", "mean")]).to_pylist()
    for row in decision["candidates"]:
        assert row["score"] == pytest.approx(next(item["accuracy_mean"] for item in mean if item["cycles"] == row["cycles"]))


def test_of_candidates_that_cannot_be_told_apart_the_smallest_wins(tmp_path):
    laboratory = Laboratory(tmp_path)
    for cycles, rate in ((100, 0.15), (300, 0.2), (600, 0.2), (1000, 0.201)):
        laboratory.add(cycles, rate, twin=0.2)
    decision, _ = laboratory.decide()
    assert decision["chosen"] == 300 and 300 in decision["tied"] and 100 not in decision["tied"]
    assert "smallest vocabulary of the tie" in decision["sentence"]
    assert decision["pretraining"]["300"]["verdict"] == "not separable"
    assert "cannot be shown to help" in decision["pretraining_sentence"]
    assert any("runner-up" in sentence for sentence in decision["would_change"])


def test_criterion_bits_per_base_takes_the_fewest_bits(tmp_path):
    laboratory = Laboratory(tmp_path, criterion="bits_per_base")
    for cycles, bits in ((100, 1.9), (300, 1.85), (600, 1.88)):
        laboratory.add(cycles, 0.2, bits=bits)
    decision, _ = laboratory.decide()
    assert decision["chosen"] == 300 and decision["candidates"][1]["low"] is None
    assert "1.8500 bits per base" in decision["sentence"]
    assert decision["other_criteria"]["mean_accuracy"]["chosen"] == 100


def test_criterion_mean_rank(tmp_path):
    laboratory = Laboratory(tmp_path, criterion="mean_rank")
    for cycles, rate in ((100, 0.15), (300, 0.3), (600, 0.2)):
        laboratory.add(cycles, rate, seeds=2)
    decision, _ = laboratory.decide()
    assert decision["best"] == 300 and "mean rank of 1.00" in decision["sentence"]


def test_criterion_unigram_normalized_loss_takes_what_context_helps_most(tmp_path):
    laboratory = Laboratory(tmp_path, criterion="unigram_normalized_loss")
    for cycles, loss in ((100, -0.02), (300, -0.05), (600, 0.01)):
        laboratory.add(cycles, 0.2, unigram_normalized_loss=loss)
    decision, table = laboratory.decide()
    assert decision["chosen"] == 300 and "0.0500 nats per token below token frequencies" in decision["sentence"]
    assert decision["criterion"] == "unigram_normalized_loss"
    assert decision["other_criteria"].keys() == {"mean_accuracy", "mean_rank", "bits_per_base", "unigram_normalized_loss"}
    assert table["unigram_normalized_loss"].to_pylist() == [-0.02, -0.02, -0.05, -0.05, 0.01, 0.01]


def test_the_rule_for_ties_is_a_setting_and_is_recorded(tmp_path):
    chosen = {}
    for tie in ("smallest", "best"):
        laboratory = Laboratory(tmp_path / tie, tie=tie)
        for cycles, rate in ((100, 0.2), (300, 0.204)):
            laboratory.add(cycles, rate)
        decision, _ = laboratory.decide()
        chosen[tie] = decision["chosen"]
        assert decision["tied"] == [100, 300] and decision["tie"] == tie
        assert ("smallest vocabulary" in decision["rule"]) == (tie == "smallest")
        assert ("all the same" in decision["sentence"]) == (tie == "best")
    assert chosen == {"smallest": 100, "best": 300}


def test_pareto_front_of_accuracy_compute_and_length():
    points = {
        "a": (0.5, -10.0, -30.0),
        "b": (0.4, -10.0, -30.0),
        "c": (0.4, -5.0, -30.0),
        "d": (0.3, -9.0, -20.0),
        "e": (0.5, -10.0, -30.0),
    }
    assert pareto_front(points) == {"a", "c", "d", "e"}
    assert pareto_front({}) == set()


def test_the_record_says_who_is_on_the_pareto_front(tmp_path):
    laboratory = Laboratory(tmp_path)
    for cycles, rate, flops in ((100, 0.3, 9.0), (300, 0.2, 5.0), (600, 0.19, 6.0)):
        laboratory.add(cycles, rate, tokens=10, flops_per_token=flops)
    decision, _ = laboratory.decide()
    rows = {row["cycles"]: row for row in decision["candidates"]}
    assert [rows[cycles]["training_flops"] for cycles in rows] == [90.0, 50.0, 60.0]
    assert rows[100]["on_pareto_front"] and rows[300]["on_pareto_front"]
    assert rows[600]["on_pareto_front"]  # the shortest sequences of all


def test_one_candidate_is_a_decision_too(tmp_path):
    laboratory = Laboratory(tmp_path)
    laboratory.add(600, 0.2)
    decision, table = laboratory.decide()
    assert decision["chosen"] == 600 and decision["runner_up"] is None and table.num_rows == 2
    assert "only candidate" in decision["sentence"]


def test_a_candidate_dropped_by_the_ladder_is_shown_and_cannot_win(tmp_path):
    laboratory = Laboratory(tmp_path, ladder={"kind": "halving"})
    for cycles, rate in ((100, 0.2), (300, 0.3), (1000, 0.21)):
        laboratory.add(cycles, rate)
    verdict = ladder.Verdict(0, (100, 1000), (300,), {100: "control", 300: "worse", 1000: "control"})
    decision, table = laboratory.decide(reached={100: 2, 300: 0, 1000: 2}, verdicts=[verdict])
    assert decision["chosen"] in (100, 1000) and 300 not in decision["tied"]
    assert [row["finalist"] for row in decision["candidates"]] == [True, False, True]
    assert decision["ladder"]["verdicts"][0]["reasons"]["300"] == "worse"
    decays = 0.2 * (0.03 + 0.18)  # made again by each of the two that went on
    assert decision["cost"]["share"] == pytest.approx((1 + decays + 0.03 + 1 + decays) / 3)
    assert table.num_rows == 6


def test_the_decision_is_a_function_of_its_inputs(tmp_path):
    texts = []
    for name in ("one", "two"):
        laboratory = Laboratory(tmp_path / name)
        for cycles in (100, 300):
            laboratory.add(cycles, 0.2, seeds=3)
        laboratory.decide()
        texts.append(laboratory.run.latest("selection").file("decision.json").read_bytes())
    assert texts[0] == texts[1]
