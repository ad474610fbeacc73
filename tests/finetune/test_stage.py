"""The fine-tuning stage on planted words: it learns them, keeps the best epoch, resumes, and publishes a plain model."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch

from grover_dist.config import TaskSettings, config_from
from grover_dist.corpus.build import build_corpus
from grover_dist.finetune import stage
from grover_dist.finetune.stage import finetune_task
from grover_dist.genome.stage import build_genome
from grover_dist.model.bert import bert_config, masked_lm, save_masked_lm
from grover_dist.run_dir import RunDir
from grover_dist.training.ranks import Ranks

CYCLES = 24
MOTIF = "TATAAAGGCC"


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory):
    """A run with a vocabulary, an untrained model, and a table whose positive sequences hold one word."""
    folder = tmp_path_factory.mktemp("finetune")
    generator = np.random.default_rng(0)
    rows = []
    for index in range(360):
        letters = "".join(generator.choice(list("ACGT"), 48))
        if index % 2:
            at = int(generator.integers(0, 38))
            letters = letters[:at] + MOTIF + letters[at + len(MOTIF) :]
        rows.append(f"{letters},{index % 2}")
    (folder / "train.csv").write_text("\n".join(["sequence,label", *rows[:260]]) + "\n")
    (folder / "test.csv").write_text("\n".join(["sequence,label", *rows[260:]]) + "\n")
    config = config_from(
        {
            "run": {"dir": str(folder / "run")},
            "genome": {"fasta": str(folder / "genome.fa")},
            "bpe": {"cycles": CYCLES},
            "windows": {"max_tokens": 28, "min_tokens": 4},
            "model": {"layers": 2, "heads": 2, "hidden": 32, "feed_forward": 64, "positions": 32, "dropout": 0.0},
            "pretrain": {"candidates": [CYCLES]},
            "selection": {"input_bp": 20},
        }
    )
    head = {
        "epochs": 6,
        "seeds": 1,
        "batch_sequences": 16,
        "optimizer": {"learning_rate": 3e-3, "warmup_fraction": 0.1, "decay_fraction": 0.5},
    }
    task = TaskSettings(name="word", train=folder / "train.csv", test=folder / "test.csv", head=head)
    run = RunDir.open(config)
    (folder / "genome.fa").write_text(">one\n" + "".join(generator.choice(list("ACGT"), 20_000)) + "\n")
    corpus = build_corpus(config, run, build_genome(config, run, say=lambda text: None), say=lambda text: None)
    settings = bert_config(config.model, CYCLES + 9)
    trunk = masked_lm(settings, seed=3).state_dict()
    pretrained = run.once("pretrain", "c24", lambda work: save_masked_lm(settings, trunk, work.path / "model"), settings={})
    return SimpleNamespace(config=config, run=run, corpus=corpus, pretrained=pretrained, task=task)


@pytest.fixture(scope="module")
def ranks():
    return Ranks.join()


def finetune(laboratory, ranks, *, run=None, say=lambda text: None, **task):
    settings = laboratory.task.model_copy(update=task)
    return finetune_task(
        laboratory.config, run or laboratory.run, laboratory.corpus, laboratory.pretrained, settings, cycles=CYCLES, ranks=ranks, say=say
    )


@pytest.fixture(scope="module")
def result(laboratory, ranks):
    said = []
    artifact = finetune(laboratory, ranks, say=said.append)
    return SimpleNamespace(artifact=artifact, metrics=json.loads(artifact.file("metrics.json").read_text()), said=said)


def test_a_planted_word_is_learned(result):
    methods = result.metrics["methods"]
    assert methods["pretrained"]["mcc"]["value"] > 0.5
    assert methods["majority"]["mcc"]["value"] == 0 and abs(methods["GC and length"]["mcc"]["value"]) < 0.4
    for found in methods.values():
        assert all(value["low"] <= value["value"] + 1e-9 and value["value"] - 1e-9 <= value["high"] for value in found.values())
    assert result.metrics["rows"] == {"train": 234, "validation": 26, "test": 100}
    assert result.artifact.counts["mcc"] == methods["pretrained"]["mcc"]["value"]
    assert any("no validation part was given" in text for text in result.said) and "MCC" in result.said[-1]


def test_the_published_model_gives_the_published_predictions(result, laboratory):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(result.artifact.file("model"))
    tokenizer = AutoTokenizer.from_pretrained(result.artifact.file("model"))
    assert model.config.id2label == {0: "0", 1: "1"}
    lines = Path(laboratory.task.test).read_text().splitlines()[1:]
    with pa.memory_map(str(result.artifact.file("predictions.arrow"))) as source:
        table = pa.ipc.open_file(source).read_all()
    own = table.filter(pa.compute.equal(table["method"].cast(pa.string()), "pretrained"))
    compared = 0
    for index, line in enumerate(lines):
        inputs = tokenizer(line.split(",")[0], return_tensors="pt")
        if inputs["input_ids"].shape[1] <= laboratory.config.model.positions:
            with torch.no_grad():
                found = torch.log_softmax(model(**inputs).logits, dim=1)[0]
            assert own["log_prob_1"][index].as_py() == pytest.approx(float(found[1]), abs=1e-4)
            compared += 1
    assert compared > 50
    assert set(table["method"].to_pylist()) == set(result.metrics["methods"])


def test_nothing_is_left_over_and_a_rerun_skips(result, laboratory, ranks):
    assert {path.name for path in result.artifact.path.iterdir()} == {"manifest.json", "metrics.json", "model", "predictions.arrow"}
    said = []
    assert finetune(laboratory, ranks, say=said.append).digest == result.artifact.digest
    assert "skipped" in said[0]


def test_a_killed_stage_keeps_its_finished_arm(result, laboratory, ranks, monkeypatch):
    trained, original = [], stage.fit

    def one_arm(objective, *arguments, **more):
        if trained:
            raise KeyboardInterrupt
        trained.append(objective.name)
        return original(objective, *arguments, **more)

    other = RunDir(laboratory.run.path.parent / "killed")
    monkeypatch.setattr(stage, "fit", one_arm)
    with pytest.raises(KeyboardInterrupt):
        finetune(laboratory, ranks, run=other)
    monkeypatch.setattr(stage, "fit", lambda objective, *rest, **more: trained.append(objective.name) or original(objective, *rest, **more))
    resumed = finetune(laboratory, ranks, run=other)
    assert trained == ["finetune word pretrained", "finetune word twin"]
    assert resumed.file("metrics.json").read_bytes() == result.artifact.file("metrics.json").read_bytes()


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_other_pooling_publishes_trunk_and_head_apart(laboratory, ranks, pooling):
    """AutoModelForSequenceClassification would read [CLS]; what is published gives the right logits, as its card says how."""
    from safetensors.torch import load_file
    from transformers import AutoModel, AutoTokenizer

    head = laboratory.task.head.model_copy(update={"pooling": pooling, "epochs": 1})
    artifact = finetune(laboratory, ranks, name=pooling, head=head)
    trunk, tokenizer = AutoModel.from_pretrained(artifact.file("model")), AutoTokenizer.from_pretrained(artifact.file("model"))
    assert trunk.config.pooling == pooling and trunk.config.architectures == ["BertModel"]
    weights = load_file(artifact.file("model/head.safetensors"))
    with pa.memory_map(str(artifact.file("predictions.arrow"))) as source:
        own = pa.ipc.open_file(source).read_all().slice(0, 100)
    compared = 0
    for index, line in enumerate(Path(laboratory.task.test).read_text().splitlines()[1:]):
        inputs = tokenizer(line.split(",")[0], return_tensors="pt")
        if inputs["input_ids"].shape[1] <= laboratory.config.model.positions:
            with torch.no_grad():
                states = trunk(**inputs).last_hidden_state
                pooled = states.mean(dim=1, keepdim=True) if pooling == "mean" else states.amax(dim=1, keepdim=True)
                logits = torch.nn.functional.linear(trunk.pooler(pooled), weights["classifier.weight"], weights["classifier.bias"])
            assert own["log_prob_1"][index].as_py() == pytest.approx(float(torch.log_softmax(logits, dim=1)[0, 1]), abs=1e-4)
            compared += 1
    assert compared > 50
