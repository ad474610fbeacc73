"""What a labelled task gives away without a language model: majority, length, GC, k-mers, TF-IDF + random forest, a small CNN.

Every function returns log probabilities float64[test rows, classes]. scikit-learn throughout, but for the CNN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import sparse
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, StandardScaler

from grover_dist.finetune.checks import composition
from grover_dist.finetune.cnn import cnn
from grover_dist.finetune.tables import UNKNOWN, Part

WORD_BP = 5
TREES = 200
_SMALLEST = 1e-6  # probabilities are kept away from 0, so that their logarithm is finite


def run_baselines(
    parts: Mapping[str, Part], n_classes: int, token_ids: Mapping[str, Sequence[np.ndarray]], vocab_size: int, seeds: Sequence[int]
) -> dict[str, np.ndarray]:
    """All baselines on the same split, by name: log probabilities float64[seeds, test rows, classes], one seed but for the CNN.

    parts: train, validation (which only the CNN uses) and test. token_ids: ids of their sequences in the candidate's vocabulary.
    """
    train, test = parts["train"], parts["test"]
    words = [kmer_counts(part, WORD_BP) for part in (train, test)]
    tokens = [token_counts(token_ids[split], vocab_size) for split in ("train", "test")]
    shape = [np.column_stack(composition(part)) for part in (train, test)]

    def logistic(features: list[np.ndarray]) -> np.ndarray:
        return _fitted(make_pipeline(StandardScaler(), LogisticRegression(max_iter=1_000)), features, train, n_classes)

    found = {
        "majority": majority(train, test, n_classes),
        "length only": logistic([features[:, :1] for features in shape]),
        "GC only": logistic([features[:, 1:] for features in shape]),
        "GC and length": logistic(shape),
        f"{WORD_BP}-mer logistic regression": _fitted(
            make_pipeline(TfidfTransformer(), MaxAbsScaler(), LogisticRegression(max_iter=300)), words, train, n_classes
        ),
        f"TF-IDF forest on {WORD_BP}-mers": _fitted(_forest(seeds[0]), words, train, n_classes),
        "TF-IDF forest on tokens": _fitted(_forest(seeds[0]), tokens, train, n_classes),
    }
    found = {name: log_prob[None] for name, log_prob in found.items()}
    found["small CNN"] = np.array([cnn(train, parts["validation"], test, n_classes, seed) for seed in seeds])
    return found


def majority(train: Part, test: Part, n_classes: int) -> np.ndarray:
    """The training part's class frequencies, for every row."""
    share = np.bincount(train.labels, minlength=n_classes) / len(train)
    return np.tile(np.log(np.maximum(share, _SMALLEST)), (len(test), 1))


def kmer_counts(part: Part, word_bp: int) -> sparse.csr_matrix:
    """Overlapping words of each sequence, [rows, 4 ** word_bp]; words with an ambiguity letter are left out."""
    return _counted([_words(sequence, word_bp) for sequence in part.sequences], 4**word_bp)


def token_counts(ids: Sequence[np.ndarray], vocab_size: int) -> sparse.csr_matrix:
    return _counted([found.astype(np.int64) for found in ids], vocab_size)


def _words(codes: np.ndarray, word_bp: int) -> np.ndarray:
    n = max(0, len(codes) - word_bp + 1)
    words, known = np.zeros(n, np.int64), np.ones(n, bool)
    for offset in range(word_bp):
        words = words * 4 + (codes[offset : offset + n] & 3)
        known &= codes[offset : offset + n] != UNKNOWN
    return words[known]


def _counted(words: list[np.ndarray], width: int) -> sparse.csr_matrix:
    edges = np.concatenate(([0], np.cumsum([len(found) for found in words])))
    flat = np.concatenate(words) if words else np.empty(0, np.int64)
    counts = sparse.csr_matrix((np.ones(len(flat), np.float32), flat, edges), shape=(len(words), width))
    counts.sum_duplicates()
    return counts


def _forest(seed: int):
    return make_pipeline(TfidfTransformer(), RandomForestClassifier(n_estimators=TREES, min_samples_leaf=2, random_state=seed))


def _fitted(model, features: list, train: Part, n_classes: int) -> np.ndarray:
    model.fit(features[0], train.labels)
    probability = np.full((features[1].shape[0], n_classes), _SMALLEST)
    probability[:, model.classes_] = np.maximum(model.predict_proba(features[1]), _SMALLEST)
    return np.log(probability / probability.sum(axis=1, keepdims=True))
