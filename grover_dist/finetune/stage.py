"""Stage "finetune": one labelled task with the chosen model, its random-initialised twin and the baselines, on the same split."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from safetensors.torch import load_file

from grover_dist.bpe.encode import encode_codes
from grover_dist.config import Config, TaskSettings, settings_hash
from grover_dist.corpus.corpus import Corpus
from grover_dist.errors import UserError
from grover_dist.finetune.best_epoch import BEST, BestEpoch, balanced_weights
from grover_dist.finetune.card import model_card
from grover_dist.finetune.checks import class_lines, describe, without_shared
from grover_dist.finetune.exported import check_same_logits, load_finetuned, save_finetuned
from grover_dist.finetune.metrics import METRICS, paired, score_methods
from grover_dist.finetune.planted import planted_task
from grover_dist.finetune.tables import SPLITS, TaskTable, read_task
from grover_dist.model.bert import bert_config, classifier
from grover_dist.run_dir import Artifact, RunDir, Work, write_atomically
from grover_dist.selection.classifier import POOLED, fit, predict, steps_of
from grover_dist.selection.examples import TokenExamples, TokenRows, tokens_of_sequences
from grover_dist.training.gang_stage import once_in_gang
from grover_dist.training.ranks import Ranks

ARMS = ("pretrained", "twin")
BOOTSTRAP_SAMPLES = 1_000
_COMPARED = 50  # test sequences on which the published files are compared with the trained model


def finetune_in_gang(
    config: Config, run: RunDir, *, ranks: Ranks, say: Callable[[str], None] = print, **arguments: Any
) -> dict[str, Artifact]:
    """`finetune_task` in the form that a gang calls: artefacts by name."""
    return {"finetune": finetune_task(config, run, **arguments, ranks=ranks, say=say)}


def finetune_task(
    config: Config,
    run: RunDir,
    corpus: Artifact,
    pretrained: Artifact,
    task_settings: TaskSettings,
    *,
    cycles: int,
    ranks: Ranks,
    genome: Artifact | None = None,
    say: Callable[[str], None] = print,
) -> Artifact:
    """Stage "finetune", named after the task: `model/` (BertForSequenceClassification and tokenizer), `metrics.json`, `predictions.arrow`
    (test rows of every method and seed). Collective; a finished arm is kept when the stage is killed. With `head.pooling: mean`, `model/`
    holds a BertModel and the linear layer in `head.safetensors`: the head reads the mean of the last states through the pooler.

    The model of each arm is the one of the epoch with the best validation MCC; the published one is that of the best seed.
    genome: where `planted` tasks find their truth; None: the run's genome.
    """
    genome = genome or run.latest("genome")
    settings = {
        "seed": config.seed,
        "cycles": cycles,
        "model": config.model,
        "precision": config.engine.precision,
        "split": config.split,
        "confidence": config.selection.confidence,
        "task": task_settings.model_dump(mode="json", exclude={"train", "validation", "test", "classes"}),
        "files": {split: file_digest(getattr(task_settings, split)) for split in SPLITS}
        | {f"class {label}": file_digest(path) for label, path in task_settings.classes.items()},
    }
    inputs = {"learn": corpus, "pretrained": pretrained}
    if task_settings.planted:
        if genome is None:
            raise UserError(
                "a planted task needs the run's genome", where=f"task '{task_settings.name}'", hint="run the genome stage first"
            )
        inputs["genome"] = genome

    def write(work: Work) -> None:
        task = _Task(config, work, ranks, task_settings, cycles, say)
        task.load(Corpus.open(corpus), pretrained, genome)
        task.train_arms(settings_hash(settings))
        ranks.on_main(task.publish)

    return once_in_gang(run, ranks, "finetune", task_settings.name, write, settings=settings, inputs=inputs, resumable=True, say=say)


class _Task:
    def __init__(self, config: Config, work: Work, ranks: Ranks, settings: TaskSettings, cycles: int, say: Callable[[str], None]) -> None:
        self.config, self.work, self.ranks, self.settings, self.cycles, self.say = config, work, ranks, settings, cycles, say
        # Best weights are read out of the module; at stage 3 no rank holds them. Fine-tuning a trunk of this size needs no more than 2.
        if config.engine.zero_stage == 3:
            self.config = config.model_copy(update={"engine": config.engine.model_copy(update={"zero_stage": 2})})

    def load(self, corpus: Corpus, pretrained: Artifact, genome: Artifact | None) -> None:
        self.vocabulary, self.trunk = corpus.vocabulary, pretrained.file("model")
        settings = self.settings
        if settings.planted:
            table = planted_task(self.config, settings.planted, genome, corpus.store)
        else:
            table = read_task(self.config, settings, corpus.store)
        drop = settings.near_duplicates == "drop"
        table, shared = without_shared(table, settings.name, drop_near_duplicates=drop, share=settings.near_duplicate_share)
        described, warnings = describe(table)
        self.table: TaskTable = table
        self.data = {**described, **shared, "notes": list(table.notes), "warnings": warnings}
        self.ids = {
            split: [encode_codes(sequence, self.vocabulary, self.cycles) for sequence in part.sequences]
            for split, part in table.parts.items()
        }
        self.examples = {split: self._examples(split) for split in SPLITS}
        if self.ranks.is_main:
            self._tell()

    def _examples(self, split: str) -> TokenExamples:
        part = self.table.parts[split]
        rows = tokens_of_sequences(self.ids[split], self.config.model.positions - 2)
        n_bases = np.array([len(sequence) for sequence in part.sequences], np.int64)
        return TokenRows(rows.ids, rows.lengths, rows.first_row, n_bases).with_labels(part.labels)

    def _tell(self) -> None:
        name, parts = self.settings.name, self.table.parts
        self.say(f"finetune {name}: " + ", ".join(f"{len(parts[split]):,} {split}" for split in SPLITS) + " sequences")
        dropped = {pair: count for pair, count in self.data["duplicates"].items() if count}
        near = {pair: count for pair, count in self.data["near_duplicates"].items() if count}
        if dropped:
            self.say(
                f"finetune {name}: dropped sequences shared between parts: "
                + ", ".join(f"{pair} {count}" for pair, count in dropped.items())
            )
        if near:
            verb = "dropped" if self.data["near_duplicates_dropped"] else "kept"
            self.say(f"finetune {name}: near-duplicates {verb}: " + ", ".join(f"{pair} {count}" for pair, count in near.items()))
        for text in class_lines(self.data["parts"]):
            self.say(f"finetune {name}: {text}")
        for text in (*self.data["notes"], *(f"warning: {warning}" for warning in self.data["warnings"])):
            self.say(f"finetune {name}: {text}")

    def folder(self, arm: str, seed: int) -> Path:
        return self.work.path / "arms" / f"{arm}-s{seed}"

    def train_arms(self, run_hash: str) -> None:
        arms = [(arm, seed) for seed in range(self.settings.head.seeds) for arm in ARMS]
        done = self.ranks.on_main(lambda: [(self.folder(*arm) / "test.json").exists() for arm in arms])
        for (arm, seed), finished in zip(arms, done, strict=True):
            if not finished:
                self._train(arm, seed, run_hash)

    def _train(self, arm: str, seed: int, run_hash: str) -> None:
        head, folder, n_classes = self.settings.head, self.folder(arm, seed), len(self.table.classes)
        arm_seed = int.from_bytes(hashlib.blake2b(f"finetune/{self.config.seed}/{seed}".encode(), digest_size=4).digest())
        trunk = self.trunk if arm == "pretrained" else bert_config(self.config.model, self.cycles + 9)
        model = classifier(trunk, n_classes, seed=arm_seed)
        if head.freeze_trunk:
            for parameter in model.bert.encoder.parameters():
                parameter.requires_grad_(False)
            for parameter in model.bert.embeddings.parameters():
                parameter.requires_grad_(False)
        setting = f"finetune.tasks.{self.settings.name}.head"
        total_steps = steps_of(head, len(self.examples["train"]))
        evaluations = min(max(1, round(head.epochs)), total_steps)
        balanced = head.class_weights == "balanced"
        objective = BestEpoch(
            f"finetune {self.settings.name} {arm}",
            POOLED[head.pooling](model),
            self.examples["train"],
            self.examples["validation"],
            folder,
            total_steps=total_steps,
            evaluations=evaluations,
            patience=head.patience,
            seed=arm_seed,
            batch_sequences=head.batch_sequences,
            class_weights=balanced_weights(self.examples["train"].labels, n_classes) if balanced else None,
        )
        fit(
            objective,
            self.ranks,
            head,
            self.config,
            evaluations=evaluations,
            checkpoints=folder / "checkpoints",
            remote=self.work.remote / f"arms/{folder.name}/checkpoints" if self.work.remote else None,
            hash=f"{run_hash}/{arm}/{seed}",
            setting=setting,
            say=self.say,
        )
        model.load_state_dict(self.ranks.on_main(lambda: load_file(folder / BEST)))
        found = predict(objective.model.eval().to(self.ranks.device), self.examples["test"], self.ranks)
        self.ranks.on_main(lambda: self._keep(folder, found.log_prob, objective.best_mcc))

    def _keep(self, folder: Path, log_prob: np.ndarray, validation_mcc: float) -> None:
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        text = json.dumps({"validation_mcc": validation_mcc, "log_prob": log_prob.astype(float).tolist()})
        write_atomically(folder / "test.json", text.encode())

    def publish(self) -> None:
        from grover_dist.finetune.baselines import run_baselines  # scikit-learn: two seconds that only this rank needs

        seeds = range(self.settings.head.seeds)
        kept = {(arm, seed): json.loads((self.folder(arm, seed) / "test.json").read_text()) for arm in ARMS for seed in seeds}
        parts, n_classes = self.table.parts, len(self.table.classes)
        predictions = {arm: np.array([kept[arm, seed]["log_prob"] for seed in seeds]) for arm in ARMS}
        baseline_seeds = [self.config.seed + seed for seed in seeds]
        baselines = run_baselines(parts, n_classes, self.ids, self.cycles + 9, baseline_seeds)
        predictions |= baselines
        confidence, test = self.config.selection.confidence, parts["test"]
        scan = test.scan if n_classes == 2 else None
        scores = score_methods(
            predictions, test.labels, test.group, samples=BOOTSTRAP_SAMPLES, confidence=confidence, seed=self.config.seed, scan=scan
        )
        best = max(baselines, key=lambda name: scores["methods"][name]["mcc"]["value"])
        metrics = {
            "task": self.settings.name,
            "classes": list(self.table.classes),
            "rows": {split: len(parts[split]) for split in SPLITS},
            "confidence": confidence,
            "resampled": "genome blocks" if scores["groups"] < len(test) else "sequences",
            "methods": scores["methods"],
            "windows_per_scan": None if scan is None else float(len(test) / len(np.unique(scan))),
            "best_baseline": best,
            "against_best_baseline": paired(scores, "pretrained", best, confidence=confidence),
            "against_twin": paired(scores, "pretrained", "twin", confidence=confidence),
            "validation_mcc": {arm: [kept[arm, seed]["validation_mcc"] for seed in seeds] for arm in ARMS},
            "data": self.data,
        }
        metrics["sentence"] = _sentence(metrics)
        self.work.write_json("metrics.json", metrics)
        write_predictions(self.work.file("predictions.arrow"), predictions, test.labels)
        best_seed = max(seeds, key=lambda seed: kept["pretrained", seed]["validation_mcc"])
        self._export(best_seed, metrics, predictions["pretrained"][best_seed])
        shutil.rmtree(self.work.path / "arms")
        own = metrics["methods"]["pretrained"]
        self.work.counts |= {metric: own[metric]["value"] for metric in METRICS}
        self.work.counts |= {"rows": metrics["rows"], "best_baseline": best, "cycles": self.cycles, "sentence": metrics["sentence"]}
        self.say(f"finetune {self.settings.name}: {metrics['sentence']}")

    def _export(self, seed: int, metrics: Mapping[str, Any], log_prob: np.ndarray) -> None:
        """Write `model/` from the best epoch of a seed, and check that the files give the published predictions."""
        model = classifier(bert_config(self.config.model, self.cycles + 9), len(self.table.classes), seed=0)
        model.load_state_dict(load_file(self.folder("pretrained", seed) / BEST))
        folder, pooling, positions = self.work.path / "model", self.settings.head.pooling, self.config.model.positions
        lengths = [len(sequence) for sequence in self.table.parts["train"].sequences]
        task = {
            "task": self.settings.name,
            "seed": seed,
            "crop_bp": self.settings.crop_bp,
            "length_bp": [int(f(lengths)) for f in (np.min, np.median, np.max)],
            "test_mcc": metrics["methods"]["pretrained"]["mcc"],
        }
        save_finetuned(
            model, folder, self.vocabulary, self.cycles, pooling=pooling, classes=self.table.classes, positions=positions, task=task
        )
        card = model_card(metrics, pooling=pooling, positions=positions, run_name=self.config.run.name)
        (folder / "README.md").write_text(card, encoding="utf-8")
        chosen = np.unique(np.linspace(0, len(log_prob) - 1, _COMPARED).astype(int))
        sequences = [self.table.parts["test"].sequences[index] for index in chosen]
        self.work.counts["exported_compared"] = check_same_logits(load_finetuned(folder), sequences, log_prob[chosen], where=folder)


def file_digest(path: Path | None) -> str | None:
    """SHA-256 of an input file (of a folder: of its files), so that a changed table is a new artefact. UserError where it is not there."""
    if path is None:
        return None
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return settings_hash({str(file.relative_to(path)): file_digest(file) for file in files})
    try:
        with open(path, "rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError as error:
        raise UserError("the table cannot be read", where=path, got=error.strerror, hint="check the path") from None


def _sentence(metrics: Mapping[str, Any]) -> str:
    own, baseline = metrics["methods"]["pretrained"]["mcc"], metrics["methods"][metrics["best_baseline"]]["mcc"]

    def against(found: Mapping[str, float]) -> str:
        verdict = "better" if found["low"] > 0 else "worse" if found["high"] < 0 else "not separable"
        return f"{verdict}: {found['difference']:+.3f}, {found['low']:+.3f} to {found['high']:+.3f}"

    return (
        f"MCC {own['value']:.3f} ({own['low']:.3f} to {own['high']:.3f}); best baseline {metrics['best_baseline']} {baseline['value']:.3f} "
        f"({against(metrics['against_best_baseline']['mcc'])}); random-initialised twin "
        f"{metrics['methods']['twin']['mcc']['value']:.3f} ({against(metrics['against_twin']['mcc'])})"
    )


def write_predictions(path: Path, predictions: Mapping[str, np.ndarray], labels: np.ndarray) -> None:
    """One row for each method, seed and test row: predicted class, and the log probability of every class."""
    tables = []
    for method, by_seed in predictions.items():
        for seed, log_prob in enumerate(by_seed):
            n = len(log_prob)
            columns = {
                "method": pa.array([method] * n).dictionary_encode(),
                "seed": np.full(n, seed, np.uint8),
                "row": np.arange(n, dtype=np.int32),
                "label": labels.astype(np.int16),
                "predicted": log_prob.argmax(axis=1).astype(np.int16),
            }
            columns |= {f"log_prob_{label}": log_prob[:, label].astype(np.float32) for label in range(log_prob.shape[1])}
            tables.append(pa.table(columns))
    table = pa.concat_tables(tables).unify_dictionaries()
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
