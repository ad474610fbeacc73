"""What is asked of the chosen model."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from grover_dist.config.section import Fraction, Section

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
