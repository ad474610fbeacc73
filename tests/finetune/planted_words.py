"""A small model trained from nothing on planted promoters or CTCF sites, and where their words lie in the test sequences."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from grover_dist.bpe.encode import encode_codes
from grover_dist.config import HeadSettings, ModelSettings, config_from
from grover_dist.corpus.build import build_corpus
from grover_dist.corpus.corpus import Corpus
from grover_dist.finetune.explain import attribute
from grover_dist.finetune.exported import load_finetuned, save_finetuned
from grover_dist.finetune.metrics import auroc, evaluate_metrics
from grover_dist.finetune.planted import planted_task
from grover_dist.genome.stage import build_genome
from grover_dist.genome.synthetic import (
    CTCF_CONTEXT,
    INR_FROM_TSS,
    INR_WORD,
    TATA_FROM_TSS,
    TATA_JITTER_BP,
    TATA_WORD,
    TSS_OFFSET,
    iupac_matches,
)
from grover_dist.model.bert import bert_config, classifier
from grover_dist.run_dir import RunDir
from grover_dist.selection.classifier import POOLED, Classification, fit, predict
from grover_dist.selection.examples import TokenRows, tokens_of_sequences
from grover_dist.training.ranks import Ranks

CYCLES = 40
MODEL = ModelSettings(layers=2, heads=4, hidden=48, feed_forward=96, positions=256, dropout=0.0)
HEADS = {
    "promoter": HeadSettings(epochs=6, batch_sequences=32, pooling="mean", optimizer={"learning_rate": 2e-3, "decay_fraction": 0.5}),
    "ctcf": HeadSettings(epochs=8, batch_sequences=32, pooling="mean", optimizer={"learning_rate": 2e-3, "decay_fraction": 0.5}),
}


def silent(_text: str) -> None:
    return None


def laboratory(folder: Path, kind: str) -> SimpleNamespace:
    """model (published and read back), its MCC on the test part, and the test part's positive sequences."""
    planted = {"promoter": {"promoters": 1_000}, "ctcf": {"ctcf_sites": 1_500}}[kind]
    synthetic = {"length_bp": 1_200_000, "contigs": 1, "transposons": {"families": 0}, "tandem_repeats": 0}
    synthetic |= {"promoters": 10, "ctcf_sites": 10}
    config = config_from(
        {
            "run": {"dir": str(folder / "run")},
            "genome": {"synthetic": {**synthetic, **planted}},
            "bpe": {"cycles": CYCLES},
            "pretrain": {"candidates": [CYCLES]},
            "split": {"block_bp": 20_000, "held_out_fraction": 0.15},
        }
    )
    run = RunDir.open(config)
    genome = build_genome(config, run, say=silent)
    corpus = Corpus.open(build_corpus(config, run, genome, say=silent))
    table = planted_task(config, kind, genome, corpus.store)
    model = classifier(bert_config(MODEL, CYCLES + 9), 2, seed=1)
    examples = {split: examples_of(part, corpus.vocabulary) for split, part in table.parts.items()}
    head, ranks = HEADS[kind], Ranks.join()
    objective = Classification(
        "t", POOLED[head.pooling](model), examples["train"], examples["validation"], seed=1, batch_sequences=head.batch_sequences
    )
    fit(objective, ranks, head, config, setting="head", say=silent)
    found = predict(objective.model.eval(), examples["test"], ranks)
    mcc = float(evaluate_metrics(found.log_prob, table.parts["test"].labels)["mcc"][0])
    save_finetuned(
        model, folder / "model", corpus.vocabulary, CYCLES, pooling=head.pooling, classes=table.classes, positions=MODEL.positions, task={}
    )
    test = table.parts["test"]
    right = np.flatnonzero((test.labels == 1) & (found.log_prob.argmax(axis=1) == 1))
    return SimpleNamespace(model=load_finetuned(folder / "model"), mcc=mcc, kind=kind, sequences=[test.sequences[i] for i in right])


def examples_of(part, vocabulary):
    rows = tokens_of_sequences([encode_codes(codes, vocabulary) for codes in part.sequences], MODEL.positions - 2)
    return TokenRows(rows.ids, rows.lengths, rows.first_row, np.full(len(part), 300, np.int64)).with_labels(part.labels)


def words_of(kind: str, codes: np.ndarray) -> dict[str, slice]:
    """Where the planted words lie in a positive sequence, read along its strand."""
    text = "".join("ACGTN"[code] for code in codes)
    if kind == "ctcf":
        at = text.find(CTCF_CONTEXT, 60, 120)  # the motif's middle is the window's middle, the context word is upstream
        return {"context": slice(at, at + len(CTCF_CONTEXT))} if at >= 0 else {}
    tata = [
        at
        for at in range(TSS_OFFSET + TATA_FROM_TSS - TATA_JITTER_BP, TSS_OFFSET + TATA_FROM_TSS + TATA_JITTER_BP + 1)
        if iupac_matches(text[at : at + len(TATA_WORD)], TATA_WORD)
    ]
    inr = TSS_OFFSET + INR_FROM_TSS
    return {"tata": slice(tata[0], tata[0] + len(TATA_WORD)), "inr": slice(inr, inr + len(INR_WORD))} if tata else {}


def importance_auroc(lab: SimpleNamespace, method: str, sequences: int = 30) -> dict[str, float]:
    """For each word the mean probability that one of its bases is more important than a base of no word; 0.5 by chance."""
    found: dict[str, list[float]] = {}
    torch.set_num_threads(1)
    for codes in lab.sequences[:sequences]:
        words = words_of(lab.kind, codes)
        planted = np.zeros(len(codes), bool)
        for word in words.values():
            planted[word] = True
        score = attribute(lab.model, codes, 1, method)
        for name, word in words.items():
            mine = np.zeros(len(codes), bool)
            mine[word] = True
            chosen = mine | ~planted
            found.setdefault(name, []).append(auroc(score[chosen], mine[chosen]))
    return {name: float(np.mean(values)) for name, values in found.items()}
