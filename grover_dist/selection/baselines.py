"""Stage "kmer-baselines": what next-k-mer accuracy costs no language model. The same positions as every candidate's.

- majority: the commonest k-mer of the training blocks.
- Markov chains of order 1 to 8. They learn from *all* bases of the training blocks and not only from the training positions: it
  is what the pretrained models have seen, and the stronger opponent. The order is chosen for each k on validation blocks, by the
  probability given to the truth, and the chain is then counted with these blocks too.
- TF-IDF + random forest (scikit-learn) on the words of the input. One forest splits on all of the following bases at once; the
  class is the vote of the whole k-mers of the training inputs that share leaves with the input. A forest per k with 4^k
  classes would hold 4,096 numbers in every node.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pyarrow as pa

from grover_dist.config import Config
from grover_dist.genome.split import split_blocks
from grover_dist.genome.stage import Genome, open_genome
from grover_dist.run_dir import Artifact, RunDir, Work
from grover_dist.selection.task import KmerTask

LONGEST_ORDER = 8
WORD_BP = 4  # words of the forest's TF-IDF
_PRIOR_COUNT = 4.0  # how many observations the next shorter context is worth
_CHUNK_BASES = 1 << 22
_CHUNK_SCORES = 1 << 24


def build_baselines(config: Config, run: RunDir, genome: Artifact, task: Artifact, say: Callable[[str], None] = print) -> Artifact:
    """Stage "kmer-baselines": `baselines.arrow`, one row for each k and held-out position: k, position, block, correct
    predictions of `majority`, `markov` and `forest`, and the Markov chain's log probability of the truth in nats.
    """
    selection = config.selection
    settings = {
        "seed": config.seed,
        "split": config.split,
        "forest_positions": selection.forest_positions,
        "forest_trees": selection.forest_trees,
    }

    def write(work: Work) -> None:
        positions = KmerTask.open(task)
        started = time.perf_counter()
        counts, validation_counts = _training_counts(open_genome(genome), config, positions)
        majority, orders, markov, log_probability = _chains(positions, counts, validation_counts)
        middle = time.perf_counter()
        forest = forest_predictions(positions, trees=selection.forest_trees, at_most=selection.forest_positions, seed=config.seed)
        held_out = positions.held_out
        columns: dict[str, list[np.ndarray]] = {
            name: [] for name in ("k", "position", "block", "majority", "markov", "markov_log_prob", "forest")
        }
        accuracy: dict[str, dict[str, float]] = {"majority": {}, "markov": {}, "forest": {}}
        for k in positions.ks:
            labels = held_out.labels(k)
            correct = {"majority": labels == majority[k], "markov": labels == markov[k], "forest": labels == forest[k]}
            for name, right in correct.items():
                columns[name].append(right)
                accuracy[name][str(k)] = float(right.mean())
            columns["k"].append(np.full(len(labels), k, np.uint8))
            columns["position"].append(np.arange(len(labels), dtype=np.int32))
            columns["block"].append(held_out.block)
            columns["markov_log_prob"].append(log_probability[k].astype(np.float32))
        table = pa.table({name: np.concatenate(parts) for name, parts in columns.items()})
        with pa.OSFile(str(work.file("baselines.arrow")), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        work.counts |= {
            "accuracy": accuracy,
            "markov_order": {str(k): orders[k] for k in positions.ks},
            "markov_bases": int(counts.sum()),
            "markov_seconds": round(middle - started, 3),
            "forest_seconds": round(time.perf_counter() - middle, 3),
            "forest_positions": min(selection.forest_positions, len(positions.train)),
        }
        best = {k: max(accuracy, key=lambda name: accuracy[name][str(k)]) for k in positions.ks}
        say("kmer-baselines: " + ", ".join(f"k={k} {best[k]} {accuracy[best[k]][str(k)]:.2%}" for k in positions.ks))

    return run.once("kmer-baselines", "baselines", write, settings=settings, inputs={"genome": genome, "task": task}, say=say)


def word_counts(codes: np.ndarray, word_bp: int) -> np.ndarray:
    """Counts of all words of `word_bp` bases in one run of base codes, int64[4 ** word_bp]."""
    counts = np.zeros(4**word_bp, np.int64)
    for start in range(0, len(codes) - word_bp + 1, _CHUNK_BASES):
        piece = codes[start : start + _CHUNK_BASES + word_bp - 1]
        counts += np.bincount(_words(piece, word_bp), minlength=len(counts))
    return counts


def _words(codes: np.ndarray, word_bp: int) -> np.ndarray:
    """The words at every offset of the last axis, int32[..., n - word_bp + 1]."""
    n = codes.shape[-1] - word_bp + 1
    words = np.zeros((*codes.shape[:-1], n), np.int32)
    for offset in range(word_bp):
        words *= 4
        words += codes[..., offset : offset + n]
    return words


def _training_counts(genome: Genome, config: Config, positions: KmerTask) -> tuple[np.ndarray, np.ndarray]:
    """Words of LONGEST_ORDER + 1 bases in all training blocks, and in the validation blocks among them."""
    split = split_blocks(genome.contigs, config.split, config.seed)
    everywhere = np.zeros(4 ** (LONGEST_ORDER + 1), np.int64)
    validation = np.zeros_like(everywhere)
    in_validation = np.isin(split.piece_block, positions.validation_blocks)
    for piece in np.flatnonzero(~split.piece_held_out):
        found = word_counts(genome.bases(int(split.row_edges[piece]), int(split.row_edges[piece + 1])), LONGEST_ORDER + 1)
        everywhere += found
        if in_validation[piece]:
            validation += found
    return everywhere, validation


def conditional(counts: np.ndarray, order: int) -> np.ndarray:
    """Natural log of P(next base | last `order` bases) from word counts, float64[4 ** order, 4].

    A context seen n times mixes what was seen with the next shorter context's distribution, which weighs as four observations.
    """
    longest = round(np.log(len(counts)) / np.log(4)) - 1
    probability = np.full((1, 4), 0.25)
    for length in range(order + 1):
        seen = counts.reshape(4 ** (longest - length), 4**length, 4).sum(axis=0)
        shorter = np.tile(probability, (4, 1)) if length else probability
        probability = (seen + _PRIOR_COUNT * shorter) / (seen.sum(axis=1, keepdims=True) + _PRIOR_COUNT)
    return np.log(probability)


def chain_predictions(log_conditional: np.ndarray, contexts: np.ndarray, longest_k: int) -> dict[int, np.ndarray]:
    """The likeliest next k-mer (over the joint probability, not base by base) after each context, for k = 1..longest_k.

    contexts int64[n]: the last `order` bases as numbers. Equal contexts are computed once.
    """
    n_contexts = len(log_conditional)
    distinct, inverse = np.unique(contexts, return_inverse=True)
    best = {k: np.empty(len(distinct), np.int64) for k in range(1, longest_k + 1)}
    rows = max(1, _CHUNK_SCORES // 4**longest_k)
    for start in range(0, len(distinct), rows):
        state = distinct[start : start + rows, None]
        score = np.zeros((len(state), 1))
        for k in range(1, longest_k + 1):
            score = (score[:, :, None] + log_conditional[state]).reshape(len(state), -1)
            state = ((state[:, :, None] * 4 + np.arange(4)) % n_contexts).reshape(len(state), -1)
            best[k][start : start + rows] = score.argmax(axis=1)
    return {k: values[inverse] for k, values in best.items()}


def chain_log_probability(log_conditional: np.ndarray, contexts: np.ndarray, following: np.ndarray) -> np.ndarray:
    """Cumulative log probability of the bases that follow, float64[n, width of following]."""
    state, steps = contexts, []
    for column in range(following.shape[1]):
        steps.append(log_conditional[state, following[:, column]])
        state = (state * 4 + following[:, column]) % len(log_conditional)
    return np.cumsum(np.stack(steps, axis=1), axis=1)


def _last_bases(inputs: np.ndarray, order: int) -> np.ndarray:
    return _words(inputs[:, inputs.shape[1] - order :], order)[:, 0].astype(np.int64)


def _chains(positions: KmerTask, counts: np.ndarray, validation_counts: np.ndarray):
    """Majority class, chosen order, predictions and log probabilities of the truth, each by k."""
    longest_k, held_out, validation = max(positions.ks), positions.held_out, positions.validation
    orders = range(1, min(LONGEST_ORDER, held_out.input_bp) + 1)
    scores = []
    for order in orders:
        table = conditional(counts - validation_counts, order)
        following = validation.codes[:, validation.input_bp :].astype(np.int64)
        scores.append(chain_log_probability(table, _last_bases(validation.inputs, order), following).mean(axis=0))
    majority, chosen, predicted, log_probability = {}, {}, {}, {}
    for k in positions.ks:
        majority[k] = int(counts.reshape(-1, 4**k).sum(axis=0).argmax())
        chosen[k] = orders[int(np.argmax([score[k - 1] for score in scores]))]
    for order in sorted(set(chosen.values())):
        table, contexts = conditional(counts, order), _last_bases(held_out.inputs, order)
        best = chain_predictions(table, contexts, longest_k)
        truth = chain_log_probability(table, contexts, held_out.codes[:, held_out.input_bp :].astype(np.int64))
        for k in (k for k in positions.ks if chosen[k] == order):
            predicted[k], log_probability[k] = best[k], truth[:, k - 1]
    return majority, chosen, predicted, log_probability


def forest_predictions(positions: KmerTask, *, trees: int, at_most: int, seed: int) -> dict[int, np.ndarray]:
    """The TF-IDF forest's next k-mer for every held-out position, by k. Trains on `at_most` training positions."""
    from scipy import sparse
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.feature_extraction.text import TfidfTransformer

    train, held_out = positions.train, positions.held_out
    chosen = np.arange(len(train))
    if len(train) > at_most:
        chosen = np.sort(np.random.Generator(np.random.Philox(key=[seed, 0xF0E5])).choice(len(train), at_most, replace=False))
    weighting = TfidfTransformer().fit(_bag_of_words(train.inputs[chosen]))
    features = [
        weighting.transform(_bag_of_words(inputs)).toarray().astype(np.float32) for inputs in (train.inputs[chosen], held_out.inputs)
    ]
    following = train.codes[chosen, train.input_bp :]
    forest = RandomForestClassifier(n_estimators=trees, min_samples_leaf=5, random_state=seed).fit(features[0], following)
    sizes = np.array([tree.tree_.node_count for tree in forest.estimators_])
    first_node = np.concatenate(([0], np.cumsum(sizes)[:-1]))
    train_leaves, test_leaves = (forest.apply(part) + first_node for part in features)
    shape = sizes.sum()
    leaf_size = np.bincount(train_leaves.ravel(), minlength=shape)
    one = np.ones(test_leaves.size, np.float32)
    membership = sparse.csr_matrix((one, test_leaves.ravel(), np.arange(0, test_leaves.size + 1, trees)), shape=(len(test_leaves), shape))
    predicted = {}
    for k in positions.ks:
        labels = np.repeat(train.labels(k)[chosen], trees)
        share = (1.0 / leaf_size[train_leaves.ravel()]).astype(np.float32)
        votes = sparse.csr_matrix((share, (train_leaves.ravel(), labels)), shape=(shape, 4**k))
        rows = max(1, _CHUNK_SCORES // 4**k)
        parts = [(membership[start : start + rows] @ votes).toarray().argmax(axis=1) for start in range(0, len(test_leaves), rows)]
        predicted[k] = np.concatenate(parts)
    return predicted


def _bag_of_words(inputs: np.ndarray):
    """Counts of words of WORD_BP bases in each input, sparse [n, 4 ** WORD_BP]."""
    from scipy import sparse

    words = _words(inputs, min(WORD_BP, inputs.shape[1]))
    ones = np.ones(words.size, np.float32)
    counts = sparse.csr_matrix((ones, words.ravel(), np.arange(0, words.size + 1, words.shape[1])), shape=(len(inputs), 4**WORD_BP))
    counts.sum_duplicates()
    return counts
