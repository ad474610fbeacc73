"""A run on a small synthetic genome: real genome, vocabulary, analysis and decision; made-up predictions and fine-tune scores."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa

from grover_dist.config import config_from
from grover_dist.run_dir import RunDir

CANDIDATES = (30, 60)
KS, POSITIONS, BLOCKS = (2, 3), 600, 20


def silent(_text: str) -> None:
    return None


def settings_for(folder: Path) -> dict:
    return {
        "run": {"name": "small <run>", "dir": str(folder / "run")},
        "genome": {"synthetic": {"length_bp": 120_000, "contigs": 2, "promoters": 40, "ctcf_sites": 30, "tandem_repeats": 20}},
        "bpe": {"cycles": max(CANDIDATES)},
        "split": {"block_bp": 5_000, "held_out_fraction": 0.3},
        "windows": {"max_tokens": 60, "min_tokens": 10},
        "model": {"layers": 1, "heads": 2, "hidden": 16, "feed_forward": 32, "positions": 64},
        "pretrain": {"candidates": list(CANDIDATES)},
        "selection": {"ks": list(KS), "bootstrap_samples": 200},
        "analysis": {"windows": 60, "components": 3},
    }


def build(folder: Path) -> SimpleNamespace:
    """config, run and the artefacts by name; `artifacts` is what write_report takes."""
    from grover_dist.analysis.embeddings import analyze
    from grover_dist.corpus.build import build_corpus
    from grover_dist.genome.stage import build_genome
    from grover_dist.selection.decide import decide

    config = config_from(settings_for(folder))
    run = RunDir.open(config)
    genome = build_genome(config, run, say=silent)
    learn = build_corpus(config, run, genome, say=silent)
    pretrained = {cycles: pretrain(run, config, cycles) for cycles in CANDIDATES}
    baselines, evaluations = predictions(run)
    selection = decide(config, run, evaluations, pretrained, baselines, say=silent)
    chosen = selection.counts["chosen"]
    analysis = analyze(config, run, learn, pretrained[chosen], cycles=chosen, say=silent)
    finetuned = [finetune(run, name) for name in ("promoter", "ctcf")]
    artifacts = {
        "genome": genome,
        "learn": learn,
        "pretrain": list(pretrained.values()),
        "baselines": baselines,
        "kmer": list(evaluations.values()),
        "selection": selection,
        "analysis": analysis,
        "finetune": finetuned,
    }
    return SimpleNamespace(
        config=config, run=run, chosen=chosen, artifacts=artifacts, **{k: v for k, v in artifacts.items() if k != "kmer"}
    )


def write_table(path: Path, columns: dict) -> None:
    table = pa.table(columns)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def pretrain(run: RunDir, config, cycles: int):
    """An untrained model with a learning curve that it never had."""
    from grover_dist.model.bert import bert_config, masked_lm, save_masked_lm

    with run.begin("pretrain", f"c{cycles}", settings={"made up": True}) as work:
        described = bert_config(config.model, cycles + 9)
        save_masked_lm(described, masked_lm(described, seed=1).state_dict(), work.path / "model")
        lines = [{"step": 10 * i, "bases": 1e5 * i, "held_out_bits_per_base": 2.0 - 0.02 * i, "loss": 5.0} for i in range(1, 5)]
        work.file("metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        last = {"bits_per_base": 1.92, "perplexity": 80.0, "top1": 0.05, "top60": 0.9}
        work.counts |= {"cycles": cycles, "steps": 40, "bases": 400_000, "parameters": 5_000, **last}
    return run.find("pretrain", f"c{cycles}", settings={"made up": True})


def predictions(run: RunDir):
    """Baselines and candidates with known accuracies on the same positions."""
    random = np.random.default_rng(0)
    k, position = np.repeat(KS, POSITIONS).astype(np.uint8), np.tile(np.arange(POSITIONS, dtype=np.int32), len(KS))
    block = np.tile(np.sort(random.integers(0, BLOCKS, POSITIONS)).astype(np.int32), len(KS))

    def correct(rate: float) -> np.ndarray:
        return random.random(len(k)) < rate / k

    log_prob = np.log(0.25) * k.astype(np.float32)
    with run.begin("kmer-baselines", "baselines", settings={}) as work:
        chains = {name: correct(rate) for name, rate in (("majority", 0.2), ("markov", 0.4), ("forest", 0.45))}
        write_table(work.file("baselines.arrow"), {"k": k, "position": position, "block": block, "markov_log_prob": log_prob, **chains})
        work.counts["markov_order"] = {str(n): 4 for n in KS}
    evaluations = {}
    for cycles, rate in zip(CANDIDATES, (0.7, 0.68), strict=True):
        with run.begin("kmer", f"c{cycles}", settings={}) as work:
            seed = np.zeros(len(k), np.uint8)
            right = {"correct_pretrained": correct(rate), "correct_twin": correct(0.4)}
            columns = {"seed": seed, "k": k, "position": position, "block": block, **right, "log_prob_pretrained": log_prob}
            write_table(work.file("predictions.arrow"), columns)
            work.counts |= {"cycles": cycles, "tokens_per_input": 15.0}
        evaluations[cycles] = run.find("kmer", f"c{cycles}", settings={})
    return run.find("kmer-baselines", "baselines", settings={}), evaluations


def finetune(run: RunDir, name: str):
    """Made-up predictions of a model that knows and of baselines that guess, scored by the product's own metrics."""
    from grover_dist.finetune.metrics import paired, score_methods
    from grover_dist.finetune.stage import write_predictions

    random = np.random.default_rng(len(name))
    labels, group = random.integers(0, 2, 120), np.arange(120)

    def guesses(knowledge: float) -> np.ndarray:
        chance = 1 / (1 + np.exp(-random.normal(size=120) - knowledge * (2 * labels - 1)))
        return np.log(np.stack([1 - chance, chance], axis=1))[None]

    predictions = {"pretrained": guesses(2.0), "twin": guesses(0.8), "GC and length": guesses(0.0), "TF-IDF forest on tokens": guesses(1.0)}
    scores = score_methods(predictions, labels, group, samples=100, confidence=0.95, seed=1)
    metrics = {
        "task": name,
        "classes": ["0", "1"],
        "rows": {"train": 500, "validation": 100, "test": 120},
        "methods": scores["methods"],
        "best_baseline": "TF-IDF forest on tokens",
        "against_twin": paired(scores, "pretrained", "twin", confidence=0.95),
        "data": {"notes": ["3 sequences dropped"], "warnings": []},
        "sentence": "MCC of a made-up model",
    }
    with run.begin("finetune", name, settings={}) as work:
        work.write_json("metrics.json", metrics)
        write_predictions(work.file("predictions.arrow"), predictions, labels)
    return run.find("finetune", name, settings={})
