"""The whole settings tree. One YAML file, `extends:` another, dotted overrides; every default stands here and nowhere else.

Two sections never change a result and stay out of every hash: `resources` (where and how wide) and `tracking` (who watches).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from grover_dist.errors import UserError, nearest

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
S3Url = Annotated[str, Field(pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/[^/?#]+(/[^/?#]+)*/?$")]
DEFAULT_CACHE = Path("~/.cache/grover_dist")
MAX_CYCLES = 65_000  # boundary levels are uint16 and 65,535 means "never merged"


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RunSettings(Section):
    """Where a run is: a folder that every node sees, or `s3://bucket/prefix`, with a copy of what each machine needs below `cache`.

    `cache` is the same path on every machine; a leading ~ is each machine's own home folder.
    """

    name: str = "run"
    dir: Annotated[S3Url | Path, Field(union_mode="left_to_right")] = Path("runs/run")
    cache: Path = DEFAULT_CACHE

    @field_validator("dir", mode="after")
    @classmethod
    def _known_place(cls, place: str | Path) -> str | Path:
        if isinstance(place, Path) and re.match(r"[a-z0-9+.-]+:/", str(place)):
            raise ValueError(f"a run is in a folder or in s3://bucket/prefix, and '{place}' is neither")
        return place


class TransposonSettings(Section):
    """Families of diverged copies planted in the synthetic genome."""

    families: int = Field(2, ge=0)
    length_bp: int = Field(300, ge=20)
    share: Fraction = 0.45  # of the genome's bases, about the human one
    divergence: Fraction = 0.04  # substitutions per base of a copy, in the mean over its ages; young, so that minutes of training show them


class SyntheticSettings(Section):
    """The synthetic genome (`grover-dist synth`): known words in a known background."""

    length_bp: int = Field(2_000_000, ge=10_000)
    contigs: int = Field(4, ge=1)
    gc_low: Fraction = 0.37
    gc_high: Fraction = 0.53
    isochore_bp: int = Field(40_000, ge=100)
    cpg_depletion: Fraction = 0.8  # share of CpG that decays to TpG or CpA
    transposons: TransposonSettings = TransposonSettings()
    tandem_repeats: int = Field(60, ge=0)
    promoters: int = Field(400, ge=0)
    ctcf_sites: int = Field(300, ge=0)  # motif sites; half of them bound


class GenomeSettings(Section):
    fasta: tuple[Path, ...] = ()
    synthetic: SyntheticSettings | None = None
    include: tuple[str, ...] = ("*",)  # shell patterns over record names
    exclude: tuple[str, ...] = ()
    assemblies: tuple[str, ...] = ()  # the genome that each file of `fasta` belongs to; by default each its own, named like the file

    @model_validator(mode="before")
    @classmethod
    def _one_path_is_a_list(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("fasta"), (str, Path)):
            data = {**data, "fasta": [data["fasta"]]}
        return data

    @model_validator(mode="after")
    def _one_source(self) -> GenomeSettings:
        if bool(self.fasta) == (self.synthetic is not None):
            raise ValueError("give either genome.fasta or genome.synthetic, and not both")
        if self.assemblies and len(self.assemblies) != len(self.fasta):
            raise ValueError(f"assemblies names {len(self.assemblies)} genomes for {len(self.fasta)} files; name one for each")
        return self


class BpeSettings(Section):
    cycles: int = Field(1_000, ge=1, le=MAX_CYCLES)
    strand: Literal["forward", "symmetric"] = "forward"


class SplitSettings(Section):
    """Blocks of the genome are dealt to training or held out by a keyed hash; named records are held out whole."""

    block_bp: int = Field(1_000_000, ge=1_000)
    held_out_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2
    held_out_records: tuple[str, ...] = ()  # when given, these records and no others are held out


class WindowSettings(Section):
    max_tokens: int = Field(510, ge=2)
    min_tokens: int = Field(20, ge=1)
    full_probability: Fraction = 0.5

    @model_validator(mode="after")
    def _ordered(self) -> WindowSettings:
        if self.min_tokens > self.max_tokens:
            raise ValueError(f"min_tokens {self.min_tokens} is above max_tokens {self.max_tokens}")
        return self


class ModelSettings(Section):
    """BERT. The paper's sizes: 12 layers, 12 heads, hidden 768, feed-forward 3072, 512 positions."""

    layers: int = Field(12, ge=1)
    heads: int = Field(12, ge=1)
    hidden: int = Field(768, ge=1)
    feed_forward: int = Field(3_072, ge=1)
    positions: int = Field(512, ge=4)
    dropout: Fraction = 0.1
    layer_norm_eps: float = Field(1e-12, gt=0)

    @model_validator(mode="after")
    def _heads_divide(self) -> ModelSettings:
        if self.hidden % self.heads:
            raise ValueError(f"hidden {self.hidden} is not a multiple of heads {self.heads}")
        return self


class MaskSettings(Section):
    fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.15  # the paper: 0.022
    span: int = Field(1, ge=1)


class OptimizerSettings(Section):
    """AdamW. `stable`: warm-up, a constant rate and a linear decay at the end; a longer run can go on from before the decay. `linear`:
    warm-up, then linear decay over all the rest, whatever decay_fraction says.
    """

    learning_rate: float = Field(4e-4, gt=0)
    schedule: Literal["stable", "linear"] = "stable"
    warmup_fraction: Fraction = 0.05
    decay_fraction: Fraction = 0.2
    weight_decay: float = Field(0.01, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = Field(1e-6, gt=0)
    clip_norm: float = Field(1.0, ge=0)  # 0 = off
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0  # rate of each layer, as a factor of that of the layer above; 1 = all alike


class EngineSettings(Section):
    """What DeepSpeed's JSON is derived from. Only `precision` changes results beyond rounding."""

    zero_stage: Literal["auto", 0, 1, 2, 3] = "auto"  # auto: 0 on one rank, else 1
    precision: Literal["fp32", "bf16"] = "fp32"  # bf16: of matrix products; weights, moments and reductions stay fp32
    offload: bool = False  # AdamW and its moments in the host's memory; needs a ZeRO stage above 0
    fused_adamw: bool = True  # one kernel of torch a step instead of one for each operation
    activation_checkpointing: bool = False  # each layer is computed again in the backward pass: less memory, a third more arithmetic
    compile: bool = False  # torch.compile: needs a C++ compiler, and a minute at the start; not at ZeRO stage 3


class PretrainSettings(Section):
    candidates: tuple[int, ...] = (100, 300, 600, 1_000)  # cycles
    # A candidate that is trained first; the larger ones start from its weights, a new token from the mean of its parts (None: from random).
    warm_start: int | None = None
    budget_bases: int = Field(50_000_000, ge=1)  # bases shown to each candidate
    batch_windows: int = Field(64, ge=1)  # windows per optimizer step, over all ranks
    # At the most; windows per rank and forward pass. auto: as many as fit into memory. The batch and the result stay the same.
    micro_batch_windows: Annotated[int, Field(ge=1)] | Literal["auto"] = 16
    packing: bool = True  # whole windows end to end in one row, so that nothing is padded; changes rounding only
    evaluate_windows: int = Field(512, ge=1)
    evaluations: int = Field(8, ge=1)  # points of the held-out learning curve
    checkpoint_every_steps: int = Field(100, ge=1)
    keep_checkpoints: int = Field(2, ge=1)
    reverse_complement: bool = False  # each sample is read from either strand, by a keyed coin
    soft_mask_weight: Fraction = 1.0  # of soft-masked bases in the training loss
    # By assembly: how often its windows are drawn in an epoch; 1 for those not named. The vocabulary is learned on all bases alike.
    genome_weights: dict[str, Annotated[float, Field(gt=0.0, le=1_000.0)]] = {}
    mask: MaskSettings = MaskSettings()
    evaluate_mask: MaskSettings | None = None  # of held-out windows; null: as in training
    optimizer: OptimizerSettings = OptimizerSettings()

    @property
    def held_out_mask(self) -> MaskSettings:
        return self.evaluate_mask or self.mask

    @property
    def micro_batch_at_most(self) -> int:
        """A number also where training finds its own: for plans, and for passes without gradients."""
        return min(16, self.batch_windows) if self.micro_batch_windows == "auto" else self.micro_batch_windows

    @model_validator(mode="after")
    def _candidates(self) -> PretrainSettings:
        if not self.candidates or len(set(self.candidates)) != len(self.candidates):
            raise ValueError(f"candidates must be distinct cycle numbers, got {list(self.candidates)}")
        if self.warm_start is not None and self.warm_start not in self.candidates:
            raise ValueError(f"warm_start {self.warm_start} is not one of the candidates {list(self.candidates)}")
        return self


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
    classes: dict[str, Path] = {}  # instead of train: a file for each class
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


AnnotationFormat = Literal["bed", "narrowpeak", "bedgraph", "bigwig", "gtf", "refgene", "sgd", "rmsk", "repeatmasker"]


class TrackSettings(Section):
    """An annotation to which words and regions are related: classes of intervals, or a signal along the genome."""

    name: str = Field(pattern=r"^[A-Za-z0-9_. -]+$")
    path: Path
    format: AnnotationFormat = "bed"
    classes: Literal["name", "strand", "one"] = "name"  # by the intervals' names, by their strand, or all one class
    select: tuple[str, ...] = ("*",)  # shell patterns over the classes
    feature: str = "gene"  # lines of a GTF


class AnchorSettings(Section):
    """Points around which words may have fixed places, along the strand: transcription starts, peak summits."""

    name: str = Field(pattern=r"^[A-Za-z0-9_. -]+$")
    path: Path
    format: AnnotationFormat = "bed"
    feature: str = "gene"
    select: tuple[str, ...] = ("*",)
    at: Literal["start", "end", "middle", "summit"] = "start"


class AnalysisSettings(Section):
    windows: int = Field(1_000, ge=1)  # held-out windows for average token embeddings
    components: int = Field(6, ge=1)
    shuffled_fraction: Fraction = 0.0  # of the pretraining budget, for a model of a shuffled genome as a null; 0: none
    word2vec_tokens: int = Field(1_000_000, ge=0)  # training tokens of the Word2Vec comparison; 0: none
    map: Literal["tsne", "umap", "none"] = "tsne"  # of the words' vectors in the plane; umap needs the extra `analysis`
    clusters: int = Field(8, ge=2)  # of the words, by hierarchical clustering
    tracks: tuple[TrackSettings, ...] = ()  # repeat classes, chromatin states, genes, replication timing ...


class GrammarSettings(Section):
    """The grammar book of the chosen vocabulary and model."""

    bins: int = Field(480, ge=1)  # of the genome, for the track of each word
    min_count: int = Field(10, ge=2)  # of a pair or phrase, to be tested
    neighbours: int = Field(12, ge=1)  # on a word's page
    phrase_tokens: int = Field(4, ge=2, le=5)  # of the longest phrases
    shuffled_bp: int = Field(20_000_000, ge=10_000)  # of the shuffled genome that phrases must beat, at the most
    influence_targets: int = Field(1_000, ge=0)  # masked words for the influence of distant ones
    influence_distance: int = Field(8, ge=1)  # words on either side
    anchors: tuple[AnchorSettings, ...] = ()
    anchor_flank_bp: int = Field(200, ge=10)
    anchor_bin_bp: int = Field(10, ge=1)


class ResourceSettings(Section):
    """Where and how wide. Never changes a result, so it is left out of every hash."""

    ray_address: str | None = None  # None: the cluster that RAY_ADDRESS names, else a local one
    bpe_actors: int | Literal["auto"] = "auto"
    bpe_memory: Literal["auto", "fast", "lean"] = "auto"
    ranks_per_candidate: int = Field(1, ge=1)
    min_ranks_per_candidate: int | None = Field(None, ge=1)  # on Ray, after a node is lost, go on with as few; None: wait for all
    resize_check_seconds: float = Field(60.0, ge=1)  # how often a gang that lost ranks looks for room to grow again
    cpus_per_rank: float = Field(1.0, gt=0)
    gpus_per_rank: float = Field(0.0, ge=0)
    # auto: as many ranks for each candidate as make the whole sweep end earliest, in the place of ranks_per_candidate. Ranks without GPUs
    # are packed in the same way. A number of GPUs must be a multiple of gpus_per_rank.
    gpus_per_candidate: int | Literal["auto"] | None = None
    scaling_efficiency: Annotated[float, Field(gt=0.5, le=1.0)] = 0.95  # of each doubling of a candidate's ranks; what `auto` reckons with
    candidates_at_once: int | Literal["auto"] = "auto"
    max_failures: int = Field(2, ge=0)
    rank_timeout_seconds: int = Field(1_800, ge=10)  # a step, an evaluation or a checkpoint that takes longer is a hang
    start_timeout_seconds: int = Field(300, ge=10)  # how long the first ranks of a launch wait for the last one
    wait_for_room_minutes: float = Field(0.0, ge=0)  # for nodes that are still to join, before a gang larger than the cluster is refused
    prices: Path | None = None  # a price table of your own for `plan`, with the keys of grover_dist/cluster/prices.yaml

    @model_validator(mode="after")
    def _gpus(self) -> ResourceSettings:
        wanted = self.gpus_per_candidate
        if isinstance(wanted, int):
            ranks = wanted / self.gpus_per_rank if self.gpus_per_rank else 0.0
            if ranks < 1 or ranks != int(ranks):
                raise ValueError(f"gpus_per_candidate {wanted} is not a multiple of gpus_per_rank {self.gpus_per_rank:g}")
            if self.ranks_per_candidate not in (1, int(ranks)):
                raise ValueError(
                    f"gpus_per_candidate {wanted} makes {int(ranks)} ranks, and ranks_per_candidate is {self.ranks_per_candidate}"
                )
            object.__setattr__(self, "ranks_per_candidate", int(ranks))
        return self

    @model_validator(mode="after")
    def _minimum(self) -> ResourceSettings:
        if self.min_ranks_per_candidate is not None and self.min_ranks_per_candidate > self.ranks_per_candidate:
            raise ValueError(
                f"min_ranks_per_candidate {self.min_ranks_per_candidate} is above ranks_per_candidate {self.ranks_per_candidate}"
            )
        return self

    def with_ranks(self, ranks: int) -> ResourceSettings:
        """The same for a candidate of `ranks` ranks."""
        fewest = None if self.min_ranks_per_candidate is None else min(self.min_ranks_per_candidate, ranks)
        return self.model_copy(update={"ranks_per_candidate": ranks, "min_ranks_per_candidate": fewest, "gpus_per_candidate": None})

    def ranks_in(self, cpus: float, gpus: float) -> int:
        """How many ranks find room at once."""
        by_cpus = math.floor(cpus / self.cpus_per_rank + 1e-9)
        return min(by_cpus, math.floor(gpus / self.gpus_per_rank + 1e-9)) if self.gpus_per_rank else by_cpus


class TrackingSettings(Section):
    tensorboard: bool = True
    mlflow: str | None = None  # tracking URI, like sqlite:////shared/mlflow.db or https://host; needs the extra `tracking`
    wandb: Literal["offline", "online"] | None = None  # Weights & Biases; needs the extra `tracking`
    # Operations a second of one rank, over which MFU is told. auto: the maker's bf16 figure of a known GPU, else measured at the start.
    peak_flops: Annotated[float, Field(gt=0)] | Literal["auto"] = "auto"
    log_every_steps: int = Field(10, ge=1)


class Config(Section):
    seed: int = Field(1, ge=0)
    run: RunSettings = RunSettings()
    genome: GenomeSettings
    bpe: BpeSettings = BpeSettings()
    split: SplitSettings = SplitSettings()
    windows: WindowSettings = WindowSettings()
    model: ModelSettings = ModelSettings()
    engine: EngineSettings = EngineSettings()
    pretrain: PretrainSettings = PretrainSettings()
    selection: SelectionSettings = SelectionSettings()
    finetune: FinetuneSettings = FinetuneSettings()
    analysis: AnalysisSettings = AnalysisSettings()
    grammar: GrammarSettings = GrammarSettings()
    resources: ResourceSettings = ResourceSettings()
    tracking: TrackingSettings = TrackingSettings()

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        too_large = [cycles for cycles in self.pretrain.candidates if cycles > self.bpe.cycles]
        if too_large:
            raise ValueError(f"pretrain.candidates {too_large} are above bpe.cycles {self.bpe.cycles}; raise bpe.cycles or drop them")
        if self.windows.max_tokens + 2 > self.model.positions:
            raise ValueError(
                f"windows.max_tokens {self.windows.max_tokens} plus [CLS] and [SEP] exceeds model.positions {self.model.positions}"
            )
        if self.selection.input_bp + 2 > self.model.positions:
            raise ValueError(f"selection.input_bp {self.selection.input_bp} may exceed model.positions {self.model.positions}")
        if any(task.planted for task in self.finetune.tasks) and self.genome.synthetic is None:
            raise ValueError("finetune.tasks with 'planted' need genome.synthetic")
        return self

    def with_absolute_paths(self) -> Config:
        """Relative paths mean the working folder of the command; workers and jobs have another."""
        return _absolute(self)

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _absolute(value: Any) -> Any:
    if isinstance(value, Path):
        return value if value.parts[:1] == ("~",) else value.absolute()
    if isinstance(value, tuple):
        return tuple(_absolute(item) for item in value)
    if isinstance(value, dict):
        return {key: _absolute(item) for key, item in value.items()}
    if isinstance(value, BaseModel):
        return value.model_copy(update={name: _absolute(getattr(value, name)) for name in type(value).model_fields})
    return value


def settings_hash(settings: Any) -> str:
    """SHA-256 of settings as canonical JSON. Takes a section, or any JSON-able structure that holds sections."""
    text = json.dumps(to_plain(settings), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def to_plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file with its `extends:` chain, apply `key.sub=value` overrides, validate. Every fault is reported at once.

    Paths inside the file are relative to the working folder, as everywhere on a command line, and are made absolute here.
    """
    data = _read_chain(Path(path), ())
    for override in overrides:
        _apply_override(data, override)
    return config_from(data, source=path).with_absolute_paths()


def config_from(data: Mapping[str, Any], *, source: object = "settings") -> Config:
    try:
        return Config.model_validate(dict(data))
    except ValidationError as error:
        lines = [_describe(fault) for fault in error.errors()]
        raise UserError(
            f"{len(lines)} fault{'s' if len(lines) > 1 else ''} in the settings: " + "; ".join(lines),
            where=source,
            hint="mend these keys; `configs/` holds complete examples",
        ) from None


def _read_chain(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in seen:
        raise UserError("settings files extend each other in a circle", where=path, got=" -> ".join(map(str, seen)))
    try:
        data = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        known = [str(item) for item in sorted(path.parent.glob("*.yaml"))] if path.parent.is_dir() else []
        raise UserError("there is no such settings file", where=path, hint=f"nearest: {nearest(str(path), known)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the settings file cannot be read: {error}", where=path) from None
    except yaml.YAMLError as error:
        raise UserError("the settings file is not valid YAML", where=path, got=" ".join(str(error).split())) from None
    if not isinstance(data, dict):
        raise UserError("a settings file holds a mapping of sections", where=path, got=type(data).__name__)
    base = data.pop("extends", None)
    if base is None:
        return data
    merged = _read_chain(path.parent / base, (*seen, path.resolve()))
    _merge(merged, data)
    return merged


def _merge(into: dict[str, Any], new: Mapping[str, Any]) -> None:
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _apply_override(data: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise UserError("an override is written key.sub=value", got=override, hint="for example pretrain.budget_bases=1000000")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = text
    if isinstance(value, str):  # YAML 1.1 reads 4e-4 as text; a number was meant
        with contextlib.suppress(ValueError):
            value = float(value)
    *parents, leaf = key.split(".")
    for parent in parents:
        child = data.get(parent)
        if not isinstance(child, dict):
            child = data[parent] = {}
        data = child
    data[leaf] = value


def _describe(fault: Mapping[str, Any]) -> str:
    dotted = ".".join(str(part) for part in fault["loc"]) or "settings"
    if fault["type"] == "extra_forbidden":
        return f"unknown key '{dotted}' (nearest: {nearest(str(fault['loc'][-1]), _siblings(fault['loc'][:-1]))})"
    message = fault["msg"].removeprefix("Value error, ")
    value = fault.get("input")
    shown = f" (got {value!r})" if isinstance(value, (str, int, float, bool)) else ""
    return f"'{dotted}': {message}{shown}"


def _siblings(parents: Sequence[Any]) -> list[str]:
    """Names of the fields beside an unknown one, found by walking the annotations of the tree."""
    section: Any = Config
    for part in parents:
        if isinstance(part, int):
            continue
        annotation = section.model_fields[part].annotation
        section = next(
            (item for item in (annotation, *_arguments(annotation)) if isinstance(item, type) and issubclass(item, Section)),
            None,
        )
        if section is None:
            return []
    return list(section.model_fields)


def _arguments(annotation: Any) -> list[Any]:
    found: list[Any] = []
    for item in getattr(annotation, "__args__", ()):
        found += [item, *_arguments(item)]
    return found
