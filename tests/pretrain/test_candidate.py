import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional
from transformers.models.bert.modeling_bert import BertForMaskedLM

from grover_dist.bpe.encode import encode_codes
from grover_dist.config import Config, config_from
from grover_dist.corpus.corpus import Corpus
from grover_dist.corpus.windows import make_windows
from grover_dist.errors import UserError
from grover_dist.genome.split import split_blocks
from grover_dist.model.bert import bert_config, masked_lm
from grover_dist.model.size import flops_per_token
from grover_dist.pretrain.candidate import (
    candidate_objective,
    candidate_plan,
    corpus_of,
    hashed_settings,
    masked_batches,
    pretrain_candidate,
)
from grover_dist.run_dir import RunDir
from tests.pretrain.small_run import CYCLES


def changed(config: Config, **sections) -> Config:
    data = config.model_dump(mode="json")
    for name, values in sections.items():
        data[name] = {**data[name], **values}
    return config_from(data)


@pytest.fixture(scope="module")
def opened(corpus):
    return Corpus.open(corpus)


@pytest.fixture(scope="module")
def windows(config, opened):
    return make_windows(opened.store, split_blocks(opened.store.contigs, config.split, config.seed), config.windows, CYCLES, config.seed)


def rows(artifact):
    return [json.loads(line) for line in artifact.file("metrics.jsonl").read_text().splitlines()]


def test_artefact_holds_a_plain_model_and_the_bases_it_was_shown(config, run, pretrained, opened, windows):
    counts = pretrained.counts
    batches = masked_batches(config, opened, windows, CYCLES, 1)
    shown = [batch for step in range(counts["steps"]) for batch in batches.step(step)]
    assert counts["bases"] == sum(batch.n_bases for batch in shown)
    assert counts["tokens"] == sum(batch.n_tokens for batch in shown)
    assert counts["bases"] == pytest.approx(config.pretrain.budget_bases, rel=0.1)
    assert sorted(path.name for path in pretrained.path.iterdir()) == ["manifest.json", "metrics.jsonl", "model"]
    model = BertForMaskedLM.from_pretrained(pretrained.file("model"))
    assert sum(p.numel() for p in model.parameters()) == counts["parameters"]
    assert (run.logs / f"pretrain-c{CYCLES}.jsonl").read_text() == pretrained.file("metrics.jsonl").read_text()


def test_training_lines_and_held_out_lines(config, pretrained):
    lines = rows(pretrained)
    training = [row for row in lines if "loss" in row]
    held_out = [row for row in lines if "held_out_bits_per_base" in row]
    assert [row["step"] for row in training] == list(range(1, pretrained.counts["steps"] + 1))
    assert len(held_out) == config.pretrain.evaluations
    assert held_out[-1]["held_out_bits_per_base"] < held_out[0]["held_out_bits_per_base"]
    assert held_out[-1]["held_out_nats_per_token"] == pretrained.counts["nats_per_token"]
    assert {f"held_out_{name}" for name in ("nats_per_token", "bits_per_base", "top1", "top60", "perplexity")} <= held_out[0].keys()
    for row in training:
        assert row["padding_share"] == 0.0 and 0 <= row["loader_wait_share"] <= 1 and row["gradient_norm"] > 0
        assert row["bases_per_second"] > row["tokens_per_second"] > 0 and row["memory_bytes"] > 50_000_000


def test_mfu_follows_its_formula(config, windows, pretrained):
    """Tokens a second times FLOPs a token over the peak; the peak of these lines was measured, and is the same in all of them."""
    flops = pretrained.counts["flops_per_token"]
    peaks = [row["tokens_per_second"] * flops / row["mfu"] for row in rows(pretrained) if "mfu" in row]
    assert len(peaks) == pretrained.counts["steps"] and max(peaks) == pytest.approx(min(peaks)) and peaks[0] > 1e8
    lengths = windows.train.n_tokens + 2.0
    attended = (lengths * lengths).sum() / lengths.sum()
    assert flops == flops_per_token(config.model, CYCLES + 9, length_tokens=attended, masked_fraction=config.pretrain.mask.fraction)


def test_held_out_figures_by_an_independent_sum(config, pretrained, opened, windows):
    """Over the whole logits of the published model, one window at a time."""
    model = BertForMaskedLM.from_pretrained(pretrained.file("model")).eval()
    lengths = [0] * 5 + [len(string) for string in opened.vocabulary.strings(CYCLES)[5:]]
    nats, bases, tokens, top1 = 0.0, 0, 0, 0
    one_a_row = replace(masked_batches(config, opened, windows, CYCLES, 1), packing=False)
    for batch in one_a_row.held_out(config.pretrain.evaluate_windows):
        width = batch.input_ids.shape[1]
        for index, label in zip(batch.masked_index.tolist(), batch.labels.tolist(), strict=True):
            line, column = divmod(index, width)
            length = int(batch.attention_mask[line].sum())
            with torch.no_grad():
                logits = model(torch.from_numpy(batch.input_ids[line : line + 1, :length])).logits[0, column]
            nats -= functional.log_softmax(logits, 0)[label].item()
            bases, tokens, top1 = bases + lengths[label], tokens + 1, top1 + int(logits.argmax().item() == label)
    counts = pretrained.counts
    assert counts["nats_per_token"] == pytest.approx(nats / tokens, rel=1e-5)
    assert counts["bits_per_base"] == pytest.approx(nats / math.log(2) / bases, rel=1e-5)
    assert counts["top1"] == pytest.approx(top1 / tokens)
    assert counts["perplexity"] == pytest.approx(math.exp(nats / tokens), rel=1e-4)
    assert counts["top60"] == 1.0  # of a vocabulary of 49


def test_the_loss_normalized_by_token_frequencies_by_an_independent_count(config, pretrained, opened, windows):
    """Training windows, all of them here, tokenized one by one."""
    counts = np.ones(CYCLES + 9)
    for start, stop in zip(windows.train.row_start, windows.train.row_stop, strict=True):
        ids = encode_codes(opened.store.base(int(start), int(stop)), opened.vocabulary, CYCLES)
        counts += np.bincount(ids, minlength=CYCLES + 9)
    labels = np.concatenate(
        [b.labels for b in masked_batches(config, opened, windows, CYCLES, 1).held_out(config.pretrain.evaluate_windows)]
    )
    unigram = -np.log(counts / counts.sum())[labels].mean()
    assert len(windows.train) <= 4_096
    assert pretrained.counts["unigram_normalized_loss"] == pytest.approx(pretrained.counts["nats_per_token"] - unigram, rel=1e-5)


def test_an_untrained_model_is_worse(config, pretrained, opened, windows):
    start = masked_lm(bert_config(config.model, CYCLES + 9), seed=config.seed).state_dict()
    trained = load_file(pretrained.file("model") / "model.safetensors")
    assert not torch.equal(
        start["bert.encoder.layer.0.attention.self.query.weight"], trained["bert.encoder.layer.0.attention.self.query.weight"]
    )
    assert pretrained.counts["nats_per_token"] < math.log(CYCLES + 4)


def test_a_second_call_skips(config, run, corpus, one_rank, pretrained):
    said = []
    again = pretrain_candidate(config, run, corpus, CYCLES, budget_bases=config.pretrain.budget_bases, ranks=one_rank, say=said.append)
    assert again.path == pretrained.path and "skipped" in said[0] and len(said) == 1


def test_a_run_cut_off_in_the_middle_ends_with_the_same_weights(config, corpus, one_rank, pretrained, tmp_path, monkeypatch):
    class Cut(Exception):
        pass

    run, budget_bases = RunDir(tmp_path), config.pretrain.budget_bases
    monkeypatch.setattr("grover_dist.pretrain.candidate.save_masked_lm", lambda *_: (_ for _ in ()).throw(Cut))
    with pytest.raises(Cut):
        pretrain_candidate(config, run, corpus, CYCLES, budget_bases=budget_bases, ranks=one_rank, say=lambda line: None)
    monkeypatch.undo()
    partial = next(tmp_path.glob("pretrain/.c*.partial"))
    assert sorted(path.name for path in (partial / "checkpoints").iterdir())
    said = []
    resumed = pretrain_candidate(config, run, corpus, CYCLES, budget_bases=budget_bases, ranks=one_rank, say=said.append)
    assert any("goes on from step" in line for line in said)
    assert resumed.manifest["files"]["model/model.safetensors"] == pretrained.manifest["files"]["model/model.safetensors"]
    assert resumed.digest == pretrained.digest
    assert {key: value for key, value in resumed.counts.items()} == dict(pretrained.counts)


def test_a_longer_rung_continues_from_the_shorter(config, run, corpus, one_rank):
    short = pretrain_candidate(config, run, corpus, CYCLES, budget_bases=20_000, ranks=one_rank, say=lambda line: None)
    assert short.file("stable/checkpoint.json").is_file()
    said = []
    longer = pretrain_candidate(
        config, run, corpus, CYCLES, budget_bases=config.pretrain.budget_bases, ranks=one_rank, continue_from=short, say=said.append
    )
    assert any("goes on from step" in line for line in said)
    assert longer.counts["bases"] == pytest.approx(config.pretrain.budget_bases, rel=0.1)
    assert longer.manifest["inputs"].keys() == {"learn", "continued"}
    assert not longer.file("stable").exists()


def test_hash_follows_results_and_not_machines(config):
    def settings(changed_config, budget_bases=1_000):
        from grover_dist.config import settings_hash

        return settings_hash(hashed_settings(changed_config, 40, budget_bases))

    same = settings(config)
    for sections in (
        {"resources": {"ranks_per_candidate": 4}},
        {"engine": {"zero_stage": 2}},
        {"pretrain": {"checkpoint_every_steps": 7, "keep_checkpoints": 5, "micro_batch_windows": 8, "evaluations": 1}},
        {"pretrain": {"packing": False}},
        {"bpe": {"cycles": 90}},
        {"selection": {"forest_trees": 7}},
    ):
        assert settings(changed(config, **sections)) == same
    for sections in (
        {"model": {"layers": 2}},
        {"engine": {"precision": "bf16"}},
        {"pretrain": {"batch_windows": 8}},
        {"pretrain": {"mask": {"fraction": 0.2}}},
        {"split": {"block_bp": 6_000}},
        {"windows": {"max_tokens": 50}},
    ):
        assert settings(changed(config, **sections)) != same
    assert settings(config, 2_000) != same


def test_ranks_that_cannot_share_a_batch(config, opened, windows):
    with pytest.raises(UserError, match="3 ranks"):
        masked_batches(config, opened, windows, CYCLES, 3)


def test_auto_finds_the_whole_share_and_keeps_the_global_batch(config, opened, windows, one_rank):
    auto = changed(config, pretrain={"micro_batch_windows": "auto"})
    objective, micro_batch = candidate_objective(auto, opened, windows, CYCLES, one_rank)
    assert micro_batch == config.pretrain.batch_windows  # a model as small as this
    (whole,) = objective.batches(2, 0, 1)
    fixed, four = candidate_objective(config, opened, windows, CYCLES, one_rank)
    parts = fixed.batches(2, 0, 1)
    assert four == 4 and len(parts) == 4
    assert sorted(whole.labels) == sorted(label for part in parts for label in part.labels)
    plan = candidate_plan(auto, windows, CYCLES, 60_000, micro_batch=micro_batch)
    assert (plan.batch, plan.micro_batch) == (16, 16)


def test_auto_on_a_machine_that_is_too_small(config, opened, windows, one_rank, monkeypatch):
    monkeypatch.setattr("grover_dist.training.fit.memory_available", lambda: 100_000)
    with pytest.raises(UserError, match="not even one window") as caught:
        candidate_objective(changed(config, pretrain={"micro_batch_windows": "auto"}), opened, windows, CYCLES, one_rank)
    assert "activation_checkpointing" in caught.value.hint


def test_a_small_budget_is_one_step(config, windows):
    assert candidate_plan(config, windows, CYCLES, 1).total_steps == 1


def test_a_run_without_vocabulary(tmp_path):
    with pytest.raises(UserError, match="grover-dist learn"):
        corpus_of(RunDir(tmp_path))
