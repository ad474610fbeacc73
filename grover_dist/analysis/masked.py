"""How well each word is predicted where it is masked, and which words the model expects in its place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from transformers.models.bert.modeling_bert import BertForMaskedLM

from grover_dist.analysis.token_statistics import TokenStatistics
from grover_dist.corpus.batches import MicroBatch
from grover_dist.model.device import for_prediction

MASK_ID = 4
TOPS = (1, 5, 60)  # the paper gives the first and the 60th
TOP = TOPS[-1]
EXPECTED = 8  # predictions of each masked word that enter the confusion


@dataclass(frozen=True)
class MaskedPerformance:
    """Sums over masked occurrences, by label [vocabulary]: how many, how often the label came first, among the first 5 and 60, its loss.

    The confusion is sparse, one line a pair of true and expected word: token, predicted int64; first: how often that was the first guess;
    mass: sum of its probability where it was among the first EXPECTED.
    """

    tests: np.ndarray
    first: np.ndarray
    in_five: np.ndarray
    in_top: np.ndarray
    nats: np.ndarray
    token: np.ndarray
    predicted: np.ndarray
    predicted_first: np.ndarray
    mass: np.ndarray

    def __add__(self, other: MaskedPerformance) -> MaskedPerformance:
        size = len(self.tests)
        keys = np.concatenate([self.token * size + self.predicted, other.token * size + other.predicted])
        merged, inverse = np.unique(keys, return_inverse=True)
        first = np.bincount(inverse, np.concatenate([self.predicted_first, other.predicted_first]), len(merged)).astype(np.int64)
        mass = np.bincount(inverse, np.concatenate([self.mass, other.mass]), len(merged))
        sums = (getattr(self, name) + getattr(other, name) for name in ("tests", "first", "in_five", "in_top", "nats"))
        return MaskedPerformance(*sums, merged // size, merged % size, first, mass)

    @property
    def accuracy(self) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return np.where(self.tests > 0, self.first / np.maximum(self.tests, 1), np.nan)

    @property
    def perplexity(self) -> np.ndarray:
        """exp of the mean loss; NaN for a word that was never masked."""
        return np.where(self.tests > 0, np.exp(np.minimum(self.nats / np.maximum(self.tests, 1), 700.0)), np.nan)


@torch.inference_mode()
def masked_performance(model: BertForMaskedLM, batches: list[MicroBatch], vocabulary_size: int) -> MaskedPerformance:
    """Only what [MASK] hides: of the selected tokens a tenth stays as it is and a tenth is replaced, and the first kind can be copied. A
    tie counts as a miss, so that equal scores win nothing. Memory: vocabulary, and the pairs of words that were confused.
    """
    device = for_prediction(model)
    sums = np.zeros((1 + len(TOPS) + 1, vocabulary_size))
    width = min(EXPECTED, vocabulary_size)
    keys, firsts, mass = np.empty(0, np.int64), np.empty(0), np.empty(0)
    for batch in batches:
        ids, mask = torch.from_numpy(batch.input_ids).to(device), torch.from_numpy(batch.attention_mask).to(device)
        hidden = model.bert(ids, attention_mask=mask).last_hidden_state.flatten(0, 1)
        hid = batch.input_ids.ravel()[batch.masked_index] == MASK_ID
        true = batch.labels[hid]
        if not len(true):
            continue
        logits = model.cls(hidden[torch.from_numpy(batch.masked_index[hid]).to(device)]).float().cpu()
        labels = torch.from_numpy(true)
        own = logits.gather(1, labels[:, None])
        rank = (logits >= own).sum(dim=1) - 1  # 0: strictly above all others
        nats = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        lines = (torch.ones_like(nats), *((rank < top).float() for top in TOPS), nats)
        for line, weights in enumerate(lines):
            sums[line] += np.bincount(true, weights=weights.double().numpy(), minlength=vocabulary_size)
        chance, expected = torch.softmax(logits, dim=1).topk(width, dim=1)
        here = (true[:, None] * vocabulary_size + expected.numpy()).ravel()
        is_first = np.zeros((len(true), width))
        is_first[:, 0] = 1
        merged, inverse = np.unique(np.concatenate([keys, here]), return_inverse=True)
        firsts = np.bincount(inverse, np.concatenate([firsts, is_first.ravel()]), len(merged))
        mass = np.bincount(inverse, np.concatenate([mass, chance.double().numpy().ravel()]), len(merged))
        keys = merged
    counts = [line.astype(np.int64) for line in sums[:-1]]
    return MaskedPerformance(*counts, sums[-1], keys // vocabulary_size, keys % vocabulary_size, firsts.astype(np.int64), mass)


def confusion_table(performance: MaskedPerformance, strings: list[str]) -> pa.Table:
    """`confusion.arrow`: token, predicted, tests of the token, first, probability (mean over its tests), most expected first."""
    tests = performance.tests[performance.token]
    probability = performance.mass / np.maximum(tests, 1)
    order = np.lexsort((performance.predicted, -probability, performance.token))
    return pa.table(
        {
            "token": [strings[i] for i in performance.token[order]],
            "predicted": [strings[i] for i in performance.predicted[order]],
            "tests": tests[order],
            "first": performance.predicted_first[order],
            "probability": probability[order],
        }
    )


def masked_summary(performance: MaskedPerformance, statistics: TokenStatistics) -> dict[str, Any]:
    """Over all words, by length, and the pairs most often confused."""
    wrong = performance.token != performance.predicted
    order = np.flatnonzero(wrong)[np.argsort(-performance.predicted_first[wrong], kind="stable")][:12]
    by_length = []
    for length in np.unique(statistics.length_bp[performance.tests > 0]).tolist():
        chosen = (statistics.length_bp == length) & (performance.tests > 0)
        by_length.append({"length_bp": length, "words": int(chosen.sum()), **_shares(performance, chosen)})
    return {
        **_shares(performance, performance.tests > 0),
        "by_length": by_length,
        "confused": [
            {
                "token": statistics.strings[performance.token[i]],
                "predicted": statistics.strings[performance.predicted[i]],
                "first": int(performance.predicted_first[i]),
                "tests": int(performance.tests[performance.token[i]]),
            }
            for i in order
        ],
    }


def masked_findings(summary: dict[str, Any]) -> list[str]:
    first, five, top = (100 * summary[f"top{n}"] for n in TOPS)
    found = [
        f"A masked word comes first in {first:.1f} % of {summary['tests']:,} cases, among the first five in {five:.1f} %, among the first "
        f"{TOP} in {top:.1f} %; perplexity {summary['perplexity']:.0f}"
    ]
    if summary["confused"]:
        line = summary["confused"][0]
        found.append(f"The commonest confusion is {line['predicted']} for {line['token']} ({line['first']} of {line['tests']} cases)")
    return found


def _shares(performance: MaskedPerformance, chosen: np.ndarray) -> dict[str, Any]:
    tests = int(performance.tests[chosen].sum())
    sums = (performance.first, performance.in_five, performance.in_top)
    shares = {f"top{top}": float(values[chosen].sum() / max(tests, 1)) for top, values in zip(TOPS, sums, strict=True)}
    nats = float(performance.nats[chosen].sum() / max(tests, 1))
    return {"tests": tests, **shares, "nats_per_token": nats, "perplexity": float(np.exp(min(nats, 700.0)))}
