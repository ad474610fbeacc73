"""Which words predict each other at a distance: how much the masked prediction of a word suffers where one more word is hidden.

Influence of the word d places away on a masked word, in nats: log-probability of the true word with the whole context, minus the same with
that one context word masked too. It is checked against attention, which says where the model looks but not what it gains.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from scipy import stats
from transformers.models.bert.modeling_bert import BertForMaskedLM

from grover_dist.analysis.correlation import false_discovery_rate
from grover_dist.corpus.corpus import Corpus
from grover_dist.corpus.windows import WindowTable
from grover_dist.model.device import for_prediction

CLS_ID, SEP_ID, MASK_ID = 2, 3, 4
MIN_EVENTS = 5  # of a context word, distance and target, to be tested
_TARGETS_AT_ONCE = 16


@dataclass(frozen=True)
class Influence:
    """distances int64[d]; target int64[n]; context int64[n, d]; nats float64[n, d]; attention float64[n, d], mean over heads and layers,
    from the target to each place.
    """

    distances: np.ndarray
    target: np.ndarray
    context: np.ndarray
    nats: np.ndarray
    attention: np.ndarray

    def profile(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mean influence by distance, its standard error, mean attention."""
        if len(self.nats) < 2:
            nothing = np.full(len(self.distances), np.nan)
            return nothing, nothing, nothing
        return self.nats.mean(axis=0), self.nats.std(axis=0, ddof=1) / np.sqrt(len(self.nats)), self.attention.mean(axis=0)

    def agreement(self) -> tuple[float, float]:
        """Spearman's rho of influence and attention over all events, and its mean inside each distance, where nearness explains nothing."""
        over_all = _rho(self.nats.ravel(), self.attention.ravel())
        inside = [_rho(self.nats[:, place], self.attention[:, place]) for place in range(len(self.distances))]
        return over_all, float(np.nanmean(inside)) if np.isfinite(inside).any() else float("nan")

    def pairs(self) -> dict[str, np.ndarray]:
        """Context word, distance and target with at least MIN_EVENTS events: n, mean nats, one-sided p of a mean above 0, q."""
        size = int(max(self.context.max(initial=0), self.target.max(initial=0))) + 1
        place = np.broadcast_to(np.arange(len(self.distances)), self.context.shape)
        keys = (self.context * len(self.distances) + place) * size + self.target[:, None]
        found, inverse, n = np.unique(keys.ravel(), return_inverse=True, return_counts=True)
        mean = np.bincount(inverse, weights=self.nats.ravel()) / n
        squares = np.bincount(inverse, weights=(self.nats.ravel() - mean[inverse]) ** 2)
        kept = n >= MIN_EVENTS
        found, n, mean, squares = found[kept], n[kept], mean[kept], squares[kept]
        error = np.sqrt(np.maximum(squares / np.maximum(n - 1, 1), 1e-18) / n)
        p = stats.t.sf(mean / error, n - 1)
        head = found // size
        return {
            "context": head // len(self.distances),
            "distance": self.distances[head % len(self.distances)],
            "target": found % size,
            "n": n,
            "nats": mean,
            "p": p,
            "q": false_discovery_rate(p),
        }


@torch.inference_mode()
def measure_influence(
    model: BertForMaskedLM, corpus: Corpus, windows: WindowTable, cycles: int, *, targets: int, distance: int, seed: int
) -> Influence:
    """One target a window, drawn `targets` times over the windows that are long enough for `distance` words on either side.

    Cost: targets x (2 distance + 1) windows through the model.
    """
    device = for_prediction(model)
    distances = np.array([d for d in range(-distance, distance + 1) if d])
    random = np.random.default_rng([seed, 0x696E66])
    long_enough = np.flatnonzero(windows.n_tokens > 2 * distance)
    if not len(long_enough):
        nothing = np.empty((0, len(distances)))
        return Influence(distances, np.empty(0, np.int64), nothing.astype(np.int64), nothing, nothing)
    chosen = np.sort(random.choice(long_enough, targets, replace=targets > len(long_enough)))
    model.set_attn_implementation("eager")  # the only one that gives attention
    try:
        parts = [
            _influence_of(model, device, corpus, windows.take(chosen[at : at + _TARGETS_AT_ONCE]), cycles, distances, random)
            for at in range(0, len(chosen), _TARGETS_AT_ONCE)
        ]
    finally:
        model.set_attn_implementation("sdpa")
    return Influence(distances, *(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _influence_of(model, device, corpus, windows, cycles, distances, random):
    lengths = windows.n_tokens.astype(np.int64)
    n, reach = len(windows), int(distances.max())
    ids = np.zeros((n, int(lengths.max()) + 2), np.int64)
    corpus.ids_of_windows(windows.row_start, windows.row_stop, cycles, ids, column=1)
    lines = np.arange(n)
    ids[:, 0] = CLS_ID
    ids[lines, lengths + 1] = SEP_ID
    at = 1 + reach + (random.random(n) * (lengths - 2 * reach)).astype(np.int64)
    target, context = ids[lines, at], ids[lines[:, None], at[:, None] + distances]
    masked = ids.copy()
    masked[lines, at] = MASK_ID
    copies = np.repeat(masked[:, None], 1 + len(distances), axis=1)
    copies[lines[:, None], np.arange(1, 1 + len(distances)), at[:, None] + distances] = MASK_ID
    mask = torch.from_numpy((np.arange(ids.shape[1]) < (lengths + 2)[:, None]).astype(np.int64)).to(device)
    looked = model.bert(torch.from_numpy(masked).to(device), attention_mask=mask, output_attentions=True).attentions
    attention = torch.stack([layer.float().mean(dim=1)[lines, at] for layer in looked]).mean(dim=0).cpu().numpy()
    flat = torch.from_numpy(copies.reshape(-1, ids.shape[1])).to(device)
    hidden = model.bert(flat, attention_mask=mask.repeat_interleave(1 + len(distances), dim=0)).last_hidden_state
    hidden = hidden.reshape(n, 1 + len(distances), ids.shape[1], -1)[lines, :, at]
    scores = torch.log_softmax(model.cls(hidden).float(), dim=-1).cpu().numpy()
    own = scores[lines[:, None], np.arange(1 + len(distances)), target[:, None]].astype(np.float64)
    return target, context, own[:, :1] - own[:, 1:], attention[lines[:, None], at[:, None] + distances].astype(np.float64)


def influence_table(found: Influence, strings: list[str]) -> pa.Table:
    pairs = found.pairs()
    columns = {"context": [strings[i] for i in pairs["context"]], "distance": pairs["distance"]}
    return pa.table(columns | {"target": [strings[i] for i in pairs["target"]]} | {key: pairs[key] for key in ("n", "nats", "p", "q")})


def _rho(a: np.ndarray, b: np.ndarray) -> float:
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(stats.spearmanr(a, b).statistic)
