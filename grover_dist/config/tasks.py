"""The choice of the vocabulary, and labelled tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from grover_dist.config.section import Section
from grover_dist.config.training import OptimizerSettings


class HeadSettings(Section):
    """Fine-tuning of a pretrained trunk with a class head."""

    epochs: float = Field(1.0, gt=0)
    batch_sequences: int = Field(64, ge=1)
    optimizer: OptimizerSettings = OptimizerSettings(learning_rate=3e-4, warmup_fraction=0.1, decay_fraction=0.9)
    freeze_trunk: bool = False
    # What the head sees: [CLS] (the paper), mean or max over all tokens, or the last token before [SEP].
    pooling: Literal["cls", "mean", "max", "last"] = "cls"
    seeds: int = Field(1, ge=1)


class TaskHeadSettings(HeadSettings):
    """Fine-tuning on a labelled task; the model of each seed is that of the best epoch by the validation part's MCC."""

    epochs: float = Field(5.0, gt=0)
    seeds: int = Field(3, ge=1)  # one number without a spread says little
    class_weights: Literal["none", "balanced"] = "none"  # balanced: every class weighs the same in the loss
    patience: int | None = Field(None, ge=1)  # stop after so many epochs without a better validation MCC; None: all epochs


class LadderSettings(Section):
    kind: Literal["full", "halving"] = "full"
    first_fraction: Annotated[float, Field(gt=0.0, le=1.0)] = 0.03  # of the whole budget, at the first rung of `halving`
    growth: float = Field(6.0, gt=1.0)
    controls: tuple[int, ...] = (600,)  # kept to the end when they are candidates; both ends of the grid always are
    keep_at_most: Annotated[float, Field(gt=0.0, le=1.0)] = 0.34  # of a rung's candidates, however close their scores; controls come on top
    probe: HeadSettings | None = None  # a cheaper head on the rungs before the last, such as {freeze_trunk: true} (None: selection.head)


class SelectionSettings(Section):
    """Next-k-mer prediction: the class is the next k bases after `input_bp` bases tokenized in isolation."""

    input_bp: int = Field(50, ge=4)
    ks: tuple[int, ...] = (2, 3, 4, 5, 6)
    train_positions: int = Field(20_000, ge=1)
    evaluate_positions: int = Field(10_000, ge=1)
    head: HeadSettings = HeadSettings()
    bootstrap_samples: int = Field(2_000, ge=100)
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95
    criterion: Literal["mean_accuracy", "mean_rank", "bits_per_base", "unigram_normalized_loss"] = "mean_accuracy"
    tie: Literal["smallest", "best"] = (
        "smallest"  # of the candidates that cannot be told from the best: the smallest vocabulary, or the best score
    )
    forest_positions: int = Field(20_000, ge=1)  # training positions of the TF-IDF forest, at the most
    forest_trees: int = Field(100, ge=1)
    ladder: LadderSettings = LadderSettings()

    @model_validator(mode="after")
    def _ks(self) -> SelectionSettings:
        if not self.ks or any(k < 1 or k > 8 for k in self.ks) or len(set(self.ks)) != len(self.ks):
            raise ValueError(f"ks must be distinct numbers from 1 to 8, got {list(self.ks)}")
        return self


class TaskSettings(Section):
    """One labelled task. Tables hold `sequence,label` or `chrom,start,end,label[,split]`; CSV, TSV, Parquet or FASTA, gzipped or not."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]+$")
    train: Path | None = None  # a file, or a folder with a file for each class
    validation: Path | None = None
    test: Path | None = None
    classes: dict[str, Path] = Field(default_factory=dict)  # instead of train: a file for each class
    negatives: str | None = None  # of a table of `grover-dist build promid`: the column that is the negative class
    planted: Literal["promoter", "ctcf"] | None = None  # a task made from the synthetic genome's own truth
    test_records: tuple[str, ...] = ()  # rows on these records (chromosomes) are the test part; needs coordinates
    validation_records: tuple[str, ...] = ()
    crop_bp: int | None = Field(None, ge=4)  # the middle of every sequence; shorter ones are left out. Removes what length gives away
    near_duplicates: Literal["drop", "keep"] = "drop"  # training sequences that share most 31-mers with the test or validation part
    near_duplicate_share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5  # of a sequence's 31-mers: this many make it a near-duplicate
    head: TaskHeadSettings = TaskHeadSettings()

    @model_validator(mode="after")
    def _source(self) -> TaskSettings:
        if (self.planted is not None) + (self.train is not None) + bool(self.classes) != 1:
            raise ValueError(f"task '{self.name}': give one of train (and test) files, classes and planted")
        if self.classes and (self.validation or self.test):
            raise ValueError(f"task '{self.name}': validation and test files go with train, not with classes; use test_records")
        if len(self.classes) == 1:
            raise ValueError(f"task '{self.name}': classes needs a file for each of two classes at least")
        both = {name.removeprefix("chr") for name in self.test_records} & {name.removeprefix("chr") for name in self.validation_records}
        if both:
            raise ValueError(f"task '{self.name}': {', '.join(sorted(both))} cannot be test and validation at once")
        return self


class FinetuneSettings(Section):
    tasks: tuple[TaskSettings, ...] = ()
