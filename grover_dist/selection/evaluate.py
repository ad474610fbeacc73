"""Stage "kmer": one candidate at next-k-mer prediction, its pretrained weights against a random-initialised twin.

Both arms have the same architecture, positions, order and budget; for every k and head seed both are trained anew and predict all
held-out positions. Every finished arm is kept at once, and an evaluation that was killed goes on with the next arm.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from safetensors.torch import load_file
from transformers.models.bert.modeling_bert import BertForSequenceClassification

from grover_dist.bpe.vocabulary import Vocabulary
from grover_dist.config import Config, HeadSettings
from grover_dist.model.bert import bert_config, classifier
from grover_dist.run_dir import Artifact, RunDir, Work, write_atomically
from grover_dist.selection.classifier import POOLED, Classification, FrozenHead, fit, trunk_features
from grover_dist.selection.examples import FeatureExamples, tokens_of_codes
from grover_dist.selection.task import KmerTask
from grover_dist.training.gang_stage import once_in_gang
from grover_dist.training.ranks import Ranks

ARMS = ("pretrained", "twin")


def evaluate_candidate(
    config: Config,
    run: RunDir,
    corpus: Artifact,
    task: Artifact,
    pretrained: Artifact,
    *,
    cycles: int,
    ranks: Ranks,
    head: HeadSettings | None = None,
    say: Callable[[str], None] = print,
) -> Artifact:
    """Stage "kmer", name `c<cycles>`: `predictions.arrow`, one row for each head seed, k and held-out position, with `correct` and the log
    probability of the truth (nats) of both arms. Collective. head: other settings than `selection.head`, for an early rung.
    """
    head = head or config.selection.head
    settings = {"seed": config.seed, "cycles": cycles, "model": config.model, "precision": config.engine.precision, "head": head}

    def write(work: Work) -> None:
        evaluation = _Evaluation(config, run, work, ranks, head, cycles, say)
        evaluation.load(Vocabulary.read(corpus.path), KmerTask.open(task), pretrained.file("model"))
        evaluation.run_arms()
        if ranks.is_main:
            evaluation.publish()

    inputs = {"corpus": corpus, "task": task, "pretrained": pretrained}
    return once_in_gang(run, ranks, "kmer", f"c{cycles}", write, settings=settings, inputs=inputs, resumable=True, say=say)


class _Evaluation:
    def __init__(
        self, config: Config, run: RunDir, work: Work, ranks: Ranks, head: HeadSettings, cycles: int, say: Callable[[str], None]
    ) -> None:
        self.config, self.work, self.ranks, self.head, self.cycles, self.say = config, work, ranks, head, cycles, say
        self.progress = run.logs / f"kmer-c{cycles}.jsonl"

    def load(self, vocabulary: Vocabulary, task: KmerTask, trunk: Path) -> None:
        self.task, self.trunk_weights = task, trunk_weights(trunk)
        self.train_tokens = tokens_of_codes(task.train.inputs, vocabulary, self.cycles)
        self.held_out_tokens = tokens_of_codes(task.held_out.inputs, vocabulary, self.cycles)
        self.twin_config = bert_config(self.config.model, self.cycles + 9)
        self.features: dict[tuple[str, int], tuple[np.ndarray, np.ndarray]] = {}

    def arms(self) -> Iterator[tuple[int, int, str]]:
        for seed in range(self.head.seeds):
            for k in self.task.ks:
                for arm in ARMS:
                    yield seed, k, arm

    def path(self, seed: int, k: int, arm: str) -> Path:
        return self.work.path / "arms" / f"s{seed}-k{k}-{arm}.arrow"

    def run_arms(self) -> None:
        arms = list(self.arms())
        done = self.ranks.on_main(lambda: [self.path(*arm).exists() for arm in arms])
        for index, (seed, k, arm) in enumerate(arms):
            if not done[index]:
                self.run_arm(seed, k, arm, index + 1, len(arms))

    def run_arm(self, seed: int, k: int, arm: str, number: int, of: int) -> None:
        started = time.perf_counter()
        head_seed = _derived_seed(self.config.seed, seed)
        model = classifier(self.twin_config, 4**k, seed=head_seed)
        if arm == "pretrained":  # the twin's head, on another trunk
            set_trunk(model, self.trunk_weights)
        labels = [self.task.train.labels(k), self.task.held_out.labels(k)]
        if self.head.freeze_trunk:
            examples = self.frozen_examples(model, arm, head_seed, labels)
            model = FrozenHead(model)
        else:
            tokens = (self.train_tokens, self.held_out_tokens)
            examples = [part.with_labels(truth) for part, truth in zip(tokens, labels, strict=True)]
            model = POOLED[self.head.pooling](model)
        name = f"c{self.cycles} k={k} {arm}"
        objective = Classification(name, model, *examples, seed=head_seed, batch_sequences=self.head.batch_sequences)
        result = fit(objective, self.ranks, self.head, self.config, setting="selection.head", say=self.say)
        if self.ranks.is_main:
            found = objective.predictions
            correct = found.predicted == labels[1]
            tail = result.losses[-max(1, len(result.losses) // 10) :]
            facts = {"seconds": round(time.perf_counter() - started, 3), "train_nats": float(np.mean(tail)), "steps": result.steps}
            _write_arm(self.path(seed, k, arm), correct, found.truth_log_prob, facts)
            line = {"cycles": self.cycles, "k": k, "seed": seed, "arm": arm, "accuracy": float(correct.mean()), "done": number, "of": of}
            with open(self.progress, "a") as handle:
                handle.write(json.dumps({**line, **facts}) + "\n")

    def frozen_examples(self, model, arm: str, head_seed: int, labels: list[np.ndarray]) -> list[FeatureExamples]:
        """Features do not depend on k, and those of the pretrained trunk not on the seed."""
        key = (arm, head_seed if arm == "twin" else 0)
        if key not in self.features:
            parts = (self.train_tokens, self.held_out_tokens)
            self.features[key] = tuple(trunk_features(model, tokens, self.ranks, self.head.pooling) for tokens in parts)
        return [
            FeatureExamples(features, truth, self.task.train.input_bp) for features, truth in zip(self.features[key], labels, strict=True)
        ]

    def publish(self) -> None:
        """Join the arms into `predictions.arrow`, count, and drop the arms' own files."""
        columns: dict[str, list[np.ndarray]] = {}
        accuracy: dict[str, dict[str, list[float]]] = {arm: {str(k): [] for k in self.task.ks} for arm in ARMS}
        seconds, steps = dict.fromkeys(ARMS, 0.0), 0
        held_out = self.task.held_out
        for seed in range(self.head.seeds):
            for k in self.task.ks:
                row = {
                    "seed": np.full(len(held_out), seed, np.uint8),
                    "k": np.full(len(held_out), k, np.uint8),
                    "position": np.arange(len(held_out), dtype=np.int32),
                    "block": held_out.block,
                }
                for arm in ARMS:
                    correct, log_prob, facts = _read_arm(self.path(seed, k, arm))
                    row[f"correct_{arm}"], row[f"log_prob_{arm}"] = correct, log_prob
                    accuracy[arm][str(k)].append(float(correct.mean()))
                    seconds[arm] += facts["seconds"]
                    steps = facts["steps"]
                for name, values in row.items():
                    columns.setdefault(name, []).append(values)
        table = pa.table({name: np.concatenate(parts) for name, parts in columns.items()})
        with pa.OSFile(str(self.work.file("predictions.arrow")), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        for arm in self.arms():
            self.path(*arm).unlink()
        (self.work.path / "arms").rmdir()
        mean = {arm: {k: float(np.mean(values)) for k, values in by_k.items()} for arm, by_k in accuracy.items()}
        self.work.counts |= {
            "cycles": self.cycles,
            "accuracy": mean,
            "accuracy_by_seed": accuracy,
            "mean_accuracy": {arm: float(np.mean(list(by_k.values()))) for arm, by_k in mean.items()},
            "seeds": self.head.seeds,
            "steps": steps,
            "seconds": {arm: round(value, 3) for arm, value in seconds.items()},
            "tokens_per_input": self.held_out_tokens.tokens_per_example,
        }
        shown = ", ".join(f"k={k} {mean['pretrained'][str(k)]:.2%} (twin {mean['twin'][str(k)]:.2%})" for k in self.task.ks)
        self.say(f"kmer c{self.cycles}: {shown}")


def trunk_weights(folder: Path) -> dict[str, torch.Tensor]:
    """The weights of a pretrained model's trunk under the names that `BertModel` gives them."""
    return {
        name.removeprefix("bert."): value for name, value in load_file(folder / "model.safetensors").items() if name.startswith("bert.")
    }


def set_trunk(model: BertForSequenceClassification, weights: dict[str, torch.Tensor]) -> None:
    """Put pretrained weights into the trunk. Reading them from a folder each time would cost half a second an arm. The pooler stays new."""
    outcome = model.bert.load_state_dict(weights, strict=False)
    assert not outcome.unexpected_keys and all(name.startswith("pooler.") for name in outcome.missing_keys), outcome


def _derived_seed(seed: int, index: int) -> int:
    return int.from_bytes(hashlib.blake2b(f"head/{seed}/{index}".encode(), digest_size=4).digest())


def _write_arm(path: Path, correct: np.ndarray, log_prob: np.ndarray, facts: dict[str, float]) -> None:
    table = pa.table({"correct": correct, "log_prob": log_prob}).replace_schema_metadata({"facts": json.dumps(facts)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, sink.getvalue().to_pybytes())


def _read_arm(path: Path) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
    with pa.OSFile(str(path), "rb") as source:
        table = pa.ipc.open_file(source).read_all()
    facts = json.loads(table.schema.metadata[b"facts"])
    return table["correct"].to_numpy(), table["log_prob"].to_numpy(), facts
