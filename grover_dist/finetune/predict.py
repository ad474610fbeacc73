"""Predictions of a fine-tuned model along a genome or at given places, as TSV, BED and bigWig."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import TextIO

import numpy as np

from grover_dist.corpus.corpus import Corpus
from grover_dist.errors import UserError, nearest
from grover_dist.finetune.exported import FinetunedModel, load_finetuned
from grover_dist.finetune.tracks import check_bigwig, replacing, write_bigwig
from grover_dist.finetune.windows import Window, Windows, read_regions
from grover_dist.model.device import local_device
from grover_dist.run_dir import RunDir

SUFFIXES = (".tsv", ".bed", ".bw")
_BATCH = 256


def predict(
    model: Path,
    outputs: Sequence[Path],
    *,
    fasta: Path | None = None,
    bed: Path | None = None,
    step_bp: int | None = None,
    window_bp: int | None = None,
    class_name: str | None = None,
    say: Callable[[str], None] = print,
    advance: Callable[[int], None] = lambda bases: None,
) -> int:
    """Predict and write `outputs` (.tsv: all probabilities; .bed: predicted class, score 0-1000; .bw: probability of one class, the mean
    where windows overlap). Returns the number of windows. One record of the FASTA is held at a time.

    fasta alone: tiled in windows of `window_bp` (by default the median length of the training sequences) every `step_bp` (by default
    the window). bed: these regions of the FASTA, or of the genome of the run that the model lies in. class_name: of .bed scores and .bw; by
    default the last class. advance: told the bases of each window, for a progress bar. UserError on every fault; nothing half-written.
    """
    check_outputs(outputs)
    published = load_finetuned(model, local_device())
    chosen = class_index(published, class_name)
    source = Windows()
    windows = source_windows(source, model, published, fasta, bed, window_bp, step_bp)
    n, tracks = 0, defaultdict(list)
    with ExitStack() as stack:
        files: list[tuple[str, TextIO]] = []
        for path in outputs:
            if path.suffix != ".bw":
                files.append((path.suffix, stack.enter_context(open(stack.enter_context(replacing(path)), "w"))))
        for kind, file in files:
            if kind == ".tsv":
                file.write("\t".join(["chrom", "start", "end", "strand", "predicted", *(f"p_{name}" for name in published.classes)]) + "\n")
        for batch in iter(lambda: list(islice(windows, _BATCH)), []):
            probability = softmax(published.logits([window.codes for window in batch]))
            predicted = probability.argmax(axis=1)
            for window, row, said in zip(batch, probability, predicted, strict=True):
                place, name = (window.record, str(window.start_bp), str(window.end_bp)), published.classes[said]
                for kind, file in files:
                    fields = (
                        [*place, window.strand, name, *(f"{value:.6g}" for value in row)]
                        if kind == ".tsv"
                        else [*place, name, str(round(1_000 * float(row[chosen]))), window.strand]
                    )
                    file.write("\t".join(fields) + "\n")
            _collect(tracks, batch, probability[:, chosen])
            n += len(batch)
            advance(sum(window.end_bp - window.start_bp for window in batch))
        if not n:
            raise UserError("no window holds a known base", where=bed or fasta, hint="check that it is the right file")
        for path in outputs:
            if path.suffix == ".bw":
                write_bigwig(path, source.lengths_bp, tracks)
    skipped = f"; {source.skipped:,} windows without a known base were left out" if source.skipped else ""
    say(f"predict: {n:,} windows of {len(tracks):,} records, {', '.join(path.name for path in outputs)}{skipped}")
    return n


def source_windows(
    source: Windows,
    model: Path,
    published: FinetunedModel,
    fasta: Path | None,
    bed: Path | None,
    window_bp: int | None = None,
    step_bp: int | None = None,
) -> Iterator[Window]:
    if bed is not None:
        regions = read_regions(bed)
        if fasta is not None:
            return source.of_fasta(fasta, regions, bed)
        return source.of_store(run_of_model(model).store, regions, bed)
    if fasta is None:
        raise UserError("nothing to predict", hint="give --fasta, --bed or both")
    window_bp = window_bp or int(published.task["length_bp"][1])
    return source.tiled(fasta, window_bp, step_bp or window_bp)


def run_of_model(model: Path) -> Corpus:
    """The genome of the run in whose folder the model lies."""
    for folder in Path(model).resolve().parents:
        if (folder / "run.json").is_file():
            learned = RunDir(folder).latest("learn")
            if learned is not None:
                return Corpus.open(learned)
    raise UserError("the model does not lie in a run's folder, so there is no genome", where=model, hint="give --fasta beside --bed")


def check_outputs(outputs: Sequence[Path], suffixes: Sequence[str] = SUFFIXES) -> None:
    if not outputs:
        raise UserError("no output was named", hint="give --output FILE.tsv, FILE.bed or FILE.bw")
    for path in outputs:
        if path.suffix not in suffixes:
            raise UserError("the output's name does not say its format", where=path, expected=", ".join(suffixes))
        if path.suffix == ".bw":
            check_bigwig()


def class_index(published: FinetunedModel, name: str | None) -> int:
    if name is None:
        return len(published.classes) - 1
    if name not in published.classes:
        raise UserError(
            "the model has no such class", got=name, expected=", ".join(published.classes), hint=nearest(name, published.classes)
        )
    return published.classes.index(name)


def _collect(tracks: dict[str, list], batch: Sequence[Window], value: np.ndarray) -> None:
    """Arrays of a batch, by record: a genome's windows fit into memory as numbers."""
    records = np.array([window.record for window in batch], object)
    for record in dict.fromkeys(records.tolist()):
        mine = np.flatnonzero(records == record)
        start, end = (np.array([getattr(batch[i], name) for i in mine], np.int64) for name in ("start_bp", "end_bp"))
        tracks[record].append((start, end, value[mine].astype(np.float64)))


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)
