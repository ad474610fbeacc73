"""Do embeddings of whole windows tell classes of regions apart? Probes with block cross-validation, and the three nulls that a relation
must beat: shuffled labels, composition alone, and the same model with random weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers.models.bert.modeling_bert import BertForMaskedLM

from grover_dist.analysis.tracks import SignalTrack, Track
from grover_dist.config import Config
from grover_dist.corpus.corpus import Corpus
from grover_dist.corpus.windows import WindowTable, make_windows
from grover_dist.genome.split import split_blocks
from grover_dist.model.device import for_prediction

CLS_ID, SEP_ID = 2, 3
SOFT_MASK = "soft mask"
READOUTS = ("cls", "mean", "max")
NULLS = ("shuffled labels", "composition", "untrained twin")
MIN_MEMBERS = 20  # windows of a class; smaller classes are left out, and said so
FOLDS = 5
NEIGHBOURS = 15
BOOTSTRAP_SAMPLES = 500
_BATCH_WINDOWS = 32


@dataclass(frozen=True)
class Probe:
    """Balanced accuracy of the best readout and probe on one set of labels, with each null's and the interval of the difference (blocks
    resampled). found: above every null beyond its interval.
    """

    label: str
    classes: tuple[str, ...]
    windows: int
    readout: str
    probe: str
    accuracy: float
    nulls: Mapping[str, float]
    difference_low: Mapping[str, float]
    left_out: Mapping[str, int]

    @property
    def found(self) -> bool:
        return min(self.difference_low.values()) > 0

    def sentence(self) -> str:
        beaten = [name for name in NULLS if self.difference_low[name] > 0]
        others = [name for name in NULLS if name not in beaten]
        text = f"{self.label}: balanced accuracy {100 * self.accuracy:.1f} % ({self.readout}, {self.probe}); "
        text += ", ".join(f"{name} {100 * self.nulls[name]:.1f} %" for name in NULLS)
        if self.found:
            return text + "; a relation beyond all three nulls"
        return text + f"; not a relation, since it is not separable from {' and '.join(others)}"


@torch.inference_mode()
def region_embeddings(model: BertForMaskedLM, corpus: Corpus, windows: WindowTable, cycles: int) -> dict[str, np.ndarray]:
    """Last-layer vectors of whole windows, float32 [windows, hidden]: of [CLS], and the mean and maximum over the window's tokens."""
    device = for_prediction(model)
    found = {readout: np.empty((len(windows), model.config.hidden_size), np.float32) for readout in READOUTS}
    order = np.argsort(windows.n_tokens, kind="stable")
    for at in range(0, len(order), _BATCH_WINDOWS):
        chosen = order[at : at + _BATCH_WINDOWS]
        part = windows.take(chosen)
        lengths = part.n_tokens.astype(np.int64)
        ids = np.zeros((len(chosen), int(lengths.max()) + 2), np.int64)
        corpus.ids_of_windows(part.row_start, part.row_stop, cycles, ids, column=1)
        ids[:, 0] = CLS_ID
        ids[np.arange(len(chosen)), lengths + 1] = SEP_ID
        place = np.arange(ids.shape[1])
        mask = torch.from_numpy((place < lengths[:, None] + 2).astype(np.int64)).to(device)
        hidden = model.bert(torch.from_numpy(ids).to(device), attention_mask=mask).last_hidden_state.float().cpu()
        inside = torch.from_numpy((place > 0) & (place <= lengths[:, None]))[..., None]
        found["cls"][chosen] = hidden[:, 0].numpy()
        found["mean"][chosen] = ((hidden * inside).sum(dim=1) / torch.from_numpy(lengths)[:, None]).numpy()
        found["max"][chosen] = hidden.masked_fill(~inside, -torch.inf).amax(dim=1).numpy()
    return found


def composition(corpus: Corpus, windows: WindowTable, *, soft_mask: bool = True) -> np.ndarray:
    """What needs no model: shares of the 16 dinucleotides, G+C, and (where it is not what is asked) the soft-masked share of each window:
    float64 [windows, 18].
    """
    rows = np.zeros((len(windows), 18))
    for line, (start, stop) in enumerate(zip(windows.row_start.tolist(), windows.row_stop.tolist(), strict=True)):
        codes = corpus.store.base(start, stop).astype(np.int64)
        pairs = np.bincount(codes[:-1] * 4 + codes[1:], minlength=16)
        rows[line, :16] = pairs / max(pairs.sum(), 1)
        rows[line, 16] = np.isin(codes, (1, 2)).mean()
        if soft_mask:
            rows[line, 17] = corpus.store.masked(start, stop).mean()
    return rows


def probe_regions(
    label: str,
    classes: np.ndarray,
    blocks: np.ndarray,
    trained: Mapping[str, np.ndarray],
    twin: Mapping[str, np.ndarray],
    content: np.ndarray,
    *,
    seed: int = 0,
) -> Probe | str:
    """classes: text [windows], "" where a window has none. blocks: genome block of each window; a block is never on both sides of a fold.

    Each null may choose its best readout and probe too, as the model does. Returns a sentence where there is too little to test.
    """
    names, counts = np.unique(classes[classes != ""], return_counts=True)
    kept = names[counts >= MIN_MEMBERS]
    left_out = {str(name): int(count) for name, count in zip(names, counts, strict=True) if count < MIN_MEMBERS}
    used = np.isin(classes, kept)
    if len(kept) < 2 or len(np.unique(blocks[used])) < FOLDS:
        found = ", ".join(f"{name} {count}" for name, count in zip(names, counts, strict=True)) or "none"
        return f"{label}: not tested; it needs two classes of {MIN_MEMBERS} windows in {FOLDS} blocks (found: {found})"
    truth, groups = np.searchsorted(kept, classes[used]), blocks[used]
    random = np.random.default_rng([seed, 0x726567])
    own = _best({name: values[used] for name, values in trained.items()}, truth, groups, seed)
    twins = {name: values[used] for name, values in twin.items()}
    rivals = {  # the truth that each was asked for, and what it got right
        "shuffled labels": _shuffled(trained[own[0]][used], truth, groups, own[1], random, seed),
        "composition": (truth, _best({"composition": content[used]}, truth, groups, seed)[2]),
        "untrained twin": (truth, _best(twins, truth, groups, seed)[2]),
    }
    nulls = {name: _balanced(*rival) for name, rival in rivals.items()}
    lows = {name: _difference_low((truth, own[2]), rival, groups, random) for name, rival in rivals.items()}
    return Probe(label, tuple(map(str, kept)), int(used.sum()), own[0], own[1], _balanced(truth, own[2]), nulls, lows, left_out)


def region_probes(
    config: Config, corpus: Corpus, cycles: int, models: Mapping[str, BertForMaskedLM], tracks: Sequence[Track] = ()
) -> tuple[list[Probe], list[str]]:
    """Probes of held-out windows by their soft mask (repeat: half of the bases or more) and by every annotation track: the class over
    half of the window, or the outer thirds of a signal. models: trained and twin.

    Returns the probes, and a sentence for each set of labels, tested or not.
    """
    split = split_blocks(corpus.store.contigs, config.split, config.seed)
    held_out = make_windows(corpus.store, split, config.windows, cycles, config.seed).held_out
    count = min(config.analysis.windows, len(held_out))
    windows = held_out.take(((np.arange(count) + 0.5) * len(held_out) / count).astype(np.int64))
    shares = [corpus.store.masked(int(a), int(b)).mean() for a, b in zip(windows.row_start, windows.row_stop, strict=True)]
    labels = {SOFT_MASK: np.where(np.array(shares) >= 0.5, "repeat", "unique").astype("<U6")}
    for track in tracks:
        if isinstance(track, SignalTrack):
            labels[track.name] = track.labels(corpus.store.contigs, windows.row_start, windows.row_stop)
        else:
            labels[track.name] = track.labels(windows.row_start, windows.row_stop)
    embedded = {name: region_embeddings(model, corpus, windows, cycles) for name, model in models.items()}
    content = {masked: composition(corpus, windows, soft_mask=masked) for masked in (True, False)}
    blocks = split.block_of(windows.row_start)
    found = [
        probe_regions(label, classes, blocks, embedded["trained"], embedded["twin"], content[label != SOFT_MASK], seed=config.seed)
        for label, classes in labels.items()
    ]
    return [item for item in found if isinstance(item, Probe)], [item if isinstance(item, str) else item.sentence() for item in found]


def probe_rows(probes: Sequence[Probe]) -> list[dict[str, Any]]:
    """One plain row a probe, for a table."""
    return [
        {
            "label": probe.label,
            "classes": ", ".join(probe.classes),
            "windows": probe.windows,
            "readout": probe.readout,
            "probe": probe.probe,
            "accuracy": probe.accuracy,
            **{name.replace(" ", "_"): value for name, value in probe.nulls.items()},
            "found": probe.found,
        }
        for probe in probes
    ]


def _probes() -> dict[str, Any]:
    return {
        "linear probe": make_pipeline(StandardScaler(), LogisticRegression(max_iter=500, C=0.1, class_weight="balanced")),
        "nearest neighbours": make_pipeline(StandardScaler(), KNeighborsClassifier(NEIGHBOURS, metric="cosine")),
    }


def _best(features: Mapping[str, np.ndarray], truth: np.ndarray, groups: np.ndarray, seed: int) -> tuple[str, str, np.ndarray]:
    """(readout, probe, correct bool [windows]) with the highest balanced accuracy."""
    results = [(readout, name, _correct(values, truth, groups, name, seed)) for readout, values in features.items() for name in _probes()]
    return max(results, key=lambda result: _balanced(truth, result[2]))


def _correct(values: np.ndarray, truth: np.ndarray, groups: np.ndarray, probe: str, seed: int) -> np.ndarray:
    """Right or wrong for every window, each predicted by a probe that saw no window of its block."""
    predicted = np.empty_like(truth)
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    for train, test in folds.split(values, truth, groups):
        if len(np.unique(truth[train])) < 2:
            predicted[test] = truth[train][0]
            continue
        predicted[test] = _probes()[probe].fit(values[train], truth[train]).predict(values[test])
    return predicted == truth


def _shuffled(
    values: np.ndarray, truth: np.ndarray, groups: np.ndarray, probe: str, random: np.random.Generator, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Labels moved along the genome by half of it or so: their runs stay, their relation to the windows goes."""
    shift = int(random.integers(len(truth) // 4, max(len(truth) // 4 + 1, 3 * len(truth) // 4)))
    moved = np.roll(truth, shift)
    return moved, _correct(values, moved, groups, probe, seed)


def _balanced(truth: np.ndarray, right: np.ndarray) -> float:
    """Mean over the classes of the share that is right."""
    return float(np.mean([right[truth == label].mean() for label in np.unique(truth)]))


def _difference_low(
    own: tuple[np.ndarray, np.ndarray], rival: tuple[np.ndarray, np.ndarray], groups: np.ndarray, random: np.random.Generator
) -> float:
    """2.5 % point of the difference in balanced accuracy when blocks are drawn anew. own, rival: truth and whether it was met."""
    names, owner = np.unique(groups, return_inverse=True)
    weights = random.multinomial(len(names), np.full(len(names), 1 / len(names)), size=BOOTSTRAP_SAMPLES)[:, owner]
    return float(np.quantile(_weighted(*own, weights) - _weighted(*rival, weights), 0.025))


def _weighted(truth: np.ndarray, right: np.ndarray, weights: np.ndarray) -> np.ndarray:
    shares = []
    for label in np.unique(truth):
        mine = truth == label
        total = weights[:, mine].sum(axis=1)
        shares.append((weights[:, mine] @ right[mine]) / np.maximum(total, 1))
    return np.mean(shares, axis=0)
