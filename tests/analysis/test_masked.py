"""Masked performance and confusion against every prediction by hand."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest
import torch

from grover_dist.analysis import sums
from grover_dist.analysis.masked import EXPECTED, confusion_table, masked_findings, masked_performance, masked_summary
from grover_dist.analysis.token_statistics import token_statistics
from grover_dist.corpus.corpus import Corpus


@pytest.fixture(scope="module")
def asked(small_run):
    corpus = Corpus.open(small_run.learn)
    model = sums.load_model(next(a for a in small_run.pretrain if a.counts["cycles"] == small_run.chosen))
    return corpus, model, sums.held_out_batches(small_run.config, corpus, small_run.chosen)


def test_every_prediction_by_hand(small_run, asked) -> None:
    corpus, model, batches = asked
    found = masked_performance(model, batches, small_run.chosen + 9)
    tests, five, firsts, mass = Counter(), Counter(), Counter(), defaultdict(float)
    for batch in batches:
        with torch.no_grad():
            logits = model(torch.tensor(batch.input_ids), attention_mask=torch.tensor(batch.attention_mask)).logits.flatten(0, 1)
        for place, label in zip(batch.masked_index.tolist(), batch.labels.tolist(), strict=True):
            if batch.input_ids.ravel()[place] != 4:
                continue  # left as it was, or replaced by another word
            order = torch.argsort(logits[place], descending=True).tolist()
            chances = torch.softmax(logits[place], -1)
            tests[label] += 1
            five[label] += label in order[:5]
            firsts[label, order[0]] += 1
            for other in order[:EXPECTED]:
                mass[label, other] += float(chances[other])
    assert {i: int(n) for i, n in enumerate(found.tests) if n} == tests
    assert {i: int(n) for i, n in enumerate(found.in_five) if n} == {i: n for i, n in five.items() if n}
    pairs = list(zip(found.token.tolist(), found.predicted.tolist(), strict=True))
    assert {pair: n for pair, n in zip(pairs, found.predicted_first.tolist(), strict=True) if n} == firsts
    assert dict(zip(pairs, found.mass.tolist(), strict=True)) == pytest.approx(mass, rel=1e-4)
    assert found.perplexity[found.tests > 0] == pytest.approx(np.exp(found.nats / np.maximum(found.tests, 1))[found.tests > 0])
    strings = corpus.vocabulary.strings(small_run.chosen)
    table = confusion_table(found, strings).to_pylist()
    assert sum(row["first"] for row in table) == sum(tests.values())
    first_rows = {}
    for row in table:
        first_rows.setdefault(row["token"], row["probability"])
        assert row["probability"] <= first_rows[row["token"]] + 1e-12


def test_the_summary_adds_up(small_run, asked) -> None:
    corpus, model, batches = asked
    found = masked_performance(model, batches, small_run.chosen + 9)
    summary = masked_summary(found, token_statistics(corpus, small_run.chosen))
    assert summary["tests"] == sum(row["tests"] for row in summary["by_length"]) == found.tests.sum()
    assert summary["top1"] <= summary["top5"] <= summary["top60"]
    assert f"{summary['tests']:,} cases" in masked_findings(summary)[0]
    assert all(line["token"] != line["predicted"] for line in summary["confused"])
