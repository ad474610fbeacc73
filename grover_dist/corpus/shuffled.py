"""Stage "shuffled": the same contigs with their bases shuffled, every dinucleotide kept, and tokenized by the same vocabulary.

A model trained on it sees the same words in orders that mean nothing: the null of what is learned from context beyond composition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np

from grover_dist.bpe.encode import encode_codes
from grover_dist.bpe.vocabulary import FIRST_BASE_ID, FIRST_MERGE_ID, Vocabulary
from grover_dist.config import Config
from grover_dist.corpus.corpus import Corpus, vocabulary_digest
from grover_dist.corpus.store import BATCH_ROWS, NEVER, Store, part_name, write_part
from grover_dist.genome.shuffle import shuffle_dinucleotides
from grover_dist.run_dir import Artifact, RunDir, Work

BLOCK_BP = 10_000  # composition on a larger scale stays


def shuffle_corpus(config: Config, run: RunDir, corpus: Artifact, cycles: int, say: Callable[[str], None] = print) -> Artifact:
    """A corpus like that of the learn stage (merges.txt, contigs.json, store/), good for every number of cycles up to `cycles`."""

    def write(work: Work) -> None:
        opened = Corpus.open(corpus)
        vocabulary = opened.vocabulary.at(cycles)
        metadata = {
            "learner": vocabulary_digest(vocabulary),
            "genome": corpus.digest,
            "cycles": cycles,
            "first_row": 0,
            "rows": opened.store.n_rows,
            "contigs": [],
        }
        write_part(work.file(f"store/{part_name(0)}"), _batches(opened.store, vocabulary, config.seed), metadata)
        vocabulary.write(work.path)
        work.write_json("contigs.json", opened.store.contigs.to_json())
        work.counts |= {"bases": opened.store.n_rows, "cycles": cycles}
        say(f"shuffled: {opened.store.n_rows:,} bases, every dinucleotide kept in blocks of {BLOCK_BP:,} bases")

    settings = {"cycles": cycles, "seed": config.seed, "block_bp": BLOCK_BP}
    return run.once("shuffled", f"c{cycles}", write, settings=settings, inputs={"corpus": corpus}, say=say)


def levels_of_tokens(vocabulary: Vocabulary) -> tuple[np.ndarray, np.ndarray]:
    """Boundary levels of the bases of every token, one token after the other, and where each token's begin: uint16, int64[ids + 1].

    Between the two halves of merge m the boundary disappears at cycle m; inside the halves it is theirs. The first base's is NEVER.
    """
    pieces = [np.empty(0, np.uint16)] * FIRST_BASE_ID + [np.array([NEVER], np.uint16)] * (FIRST_MERGE_ID - FIRST_BASE_ID)
    for merge, (left, right) in enumerate(zip(vocabulary.left.tolist(), vocabulary.right.tolist(), strict=True), start=1):
        second = pieces[right].copy()
        second[0] = merge
        pieces.append(np.concatenate([pieces[left], second]))
    return np.concatenate(pieces), np.concatenate([[0], np.cumsum([len(piece) for piece in pieces])])


def _batches(store: Store, vocabulary: Vocabulary, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(base, level, masked) of at most BATCH_ROWS rows; holds one contig."""
    levels, begins = levels_of_tokens(vocabulary)
    edges = store.contigs.row_start.tolist()
    waiting: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    rows = 0
    for contig, (start, stop) in enumerate(pairwise(edges)):
        codes = shuffle_dinucleotides(store.base(start, stop), seed * 1_000_003 + contig, BLOCK_BP)
        ids = encode_codes(codes, vocabulary).astype(np.int64)
        sizes = begins[ids + 1] - begins[ids]
        place = np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        level = levels[np.repeat(begins[ids], sizes) + place]
        waiting.append((codes, level, store.masked(start, stop)))
        rows += stop - start
        while rows >= BATCH_ROWS or (rows and stop == edges[-1]):
            columns = [np.concatenate(column) for column in zip(*waiting, strict=True)]
            yield tuple(column[:BATCH_ROWS] for column in columns)
            waiting, rows = [tuple(column[BATCH_ROWS:] for column in columns)], max(0, rows - BATCH_ROWS)
