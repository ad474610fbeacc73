"""Which bases a prediction rests on: occlusion of tokens, or integrated gradients, mapped from tokens to bases."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from grover_dist.bpe.encode import encode_codes
from grover_dist.bpe.vocabulary import SPECIAL_TOKENS, UNKNOWN_ID
from grover_dist.errors import UserError
from grover_dist.finetune.exported import FinetunedModel, load_finetuned
from grover_dist.finetune.picture import PANELS, ExplainedRegion, draw_regions
from grover_dist.finetune.predict import SUFFIXES, check_outputs, class_index, softmax, source_windows
from grover_dist.finetune.tracks import mean_track, replacing, write_bigwig
from grover_dist.finetune.windows import Windows
from grover_dist.model.device import local_device
from grover_dist.selection.examples import tokens_of_sequences

Method = Literal["occlusion", "gradients"]
METHODS = ("occlusion", "gradients")
MASK_ID = SPECIAL_TOKENS.index("[MASK]")
PICTURES = (".svg", ".png")
STEPS = 32  # of the path integral
_BATCH = 128


def attribute(published: FinetunedModel, codes: np.ndarray, class_number: int, method: Method = "occlusion") -> np.ndarray:
    """Importance of each base for one class, float64[bases]: every base of a token has the token's. Positive speaks for the class.

    occlusion: how far the class's log odds fall when the token is [MASK]. gradients: integrated gradients (Sundararajan et al. 2017)
    of the log odds from a sequence of [MASK] to the sequence, along straight lines between their embeddings; they add up to the difference.
    Sequences longer than the model's positions are read in windows, as in prediction.
    """
    score = token_scores(published, codes, class_number, method)
    lengths = published.vocabulary.lengths().astype(np.int64)[encode_codes(codes, published.vocabulary)]
    lengths[lengths == 0] = 1  # [UNK] stands for one letter
    return np.repeat(score, lengths)


def token_scores(published: FinetunedModel, codes: np.ndarray, class_number: int, method: Method) -> np.ndarray:
    """float64[tokens]"""
    ids = encode_codes(codes, published.vocabulary)
    rows = tokens_of_sequences([ids], published.positions - 2)
    parts = []
    for row in range(len(rows.lengths)):
        inputs = {name: torch.from_numpy(value).to(published.device) for name, value in rows.take_rows(np.array([row])).items()}
        scores = _occlusion(published, inputs, class_number) if method == "occlusion" else _gradients(published, inputs, class_number)
        parts.append(scores[1:-1] / len(rows.lengths))  # without [CLS] and [SEP]; windows' logits are averaged
    found = np.concatenate(parts)
    found[ids == UNKNOWN_ID] = 0.0
    return found


def log_odds(logits: torch.Tensor, class_number: int) -> torch.Tensor:
    """Of the class against all others, in nats."""
    others = torch.cat([logits[:, :class_number], logits[:, class_number + 1 :]], dim=1)
    return logits[:, class_number] - torch.logsumexp(others, dim=1)


def _occlusion(published: FinetunedModel, inputs: dict[str, torch.Tensor], class_number: int) -> np.ndarray:
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    n = ids.shape[1]
    changed = ids.repeat(n, 1)
    changed[torch.arange(n), torch.arange(n)] = MASK_ID
    with torch.no_grad():
        whole = log_odds(published.module(ids, mask), class_number)
        without = [log_odds(published.module(part, mask.expand(len(part), -1)), class_number) for part in changed.split(_BATCH)]
    return (whole - torch.cat(without)).double().cpu().numpy()


def _gradients(published: FinetunedModel, inputs: dict[str, torch.Tensor], class_number: int) -> np.ndarray:
    """The word embeddings move; positions and token types stay. The integral by the midpoint rule."""
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    words = published.module.model.bert.embeddings.word_embeddings
    start_ids = torch.where(torch.isin(ids, torch.tensor([2, 3], device=ids.device)), ids, MASK_ID)
    with torch.no_grad():
        start, end = words(start_ids), words(ids)
    path = ((torch.arange(STEPS, device=ids.device) + 0.5) / STEPS)[:, None, None]
    between = (start + path * (end - start)).requires_grad_(True)
    handle = words.register_forward_hook(lambda *_: between)
    try:
        logits = published.module(ids.expand(STEPS, -1), mask.expand(STEPS, -1))
        (gradient,) = torch.autograd.grad(log_odds(logits, class_number).sum(), between)
    finally:
        handle.remove()
    return ((end - start)[0] * gradient.mean(dim=0)).sum(dim=1).double().detach().cpu().numpy()


def explain(
    model: Path,
    outputs: Sequence[Path],
    *,
    bed: Path,
    fasta: Path | None = None,
    method: Method = "occlusion",
    class_name: str | None = None,
    say: Callable[[str], None] = print,
    advance: Callable[[int], None] = lambda bases: None,
) -> int:
    """Write the importance of every base of the regions (.tsv and .bed: one line a base run; .bw: a track, the mean where regions overlap;
    .svg and .png: a picture of the first regions with the words that count most). Regions on the minus strand are read along it and
    written in the record's coordinates. Returns the number of regions.
    """
    check_outputs(outputs, (*SUFFIXES, *PICTURES))
    if method not in METHODS:
        raise UserError("unknown method", got=method, expected=", ".join(METHODS))
    published = load_finetuned(model, local_device())
    chosen, source, tracks, n = class_index(published, class_name), Windows(), defaultdict(list), 0
    drawn: list[ExplainedRegion] = []
    for window in source_windows(source, model, published, fasta, bed):
        value = attribute(published, window.codes, chosen, method)
        if len(drawn) < PANELS and any(path.suffix in PICTURES for path in outputs):
            probability = softmax(published.logits([window.codes]))[0, chosen]
            drawn.append(ExplainedRegion(window.record, window.start_bp, window.strand, window.codes, value, float(probability)))
        value = value[::-1] if window.strand == "-" else value
        place = np.arange(window.start_bp, window.end_bp)
        tracks[window.record].append((place, place + 1, value))
        n += 1
        advance(window.end_bp - window.start_bp)
    if not n:
        raise UserError("no region holds a known base", where=bed)
    for path in outputs:
        if path.suffix == ".bw":
            write_bigwig(path, source.lengths_bp, tracks)
            continue
        if path.suffix in PICTURES:
            draw_regions(path, drawn, class_name=published.classes[chosen], unit="nats of log odds")
            continue
        with replacing(path) as temporary, open(temporary, "w") as file:
            if path.suffix == ".tsv":
                file.write("chrom\tstart\tend\timportance\n")
            for record, parts in tracks.items():
                for start, end, value in zip(*mean_track(*(np.concatenate(column) for column in zip(*parts, strict=True))), strict=True):
                    file.write(f"{record}\t{start}\t{end}\t{value:.6g}\n")
    say(f"explain: {n:,} regions by {method}, {', '.join(path.name for path in outputs)}")
    return n
