"""Word2Vec for comparison: CBOW with negative sampling (Mikolov et al. 2013, https://arxiv.org/abs/1310.4546) on the same tokens."""

from __future__ import annotations

import numpy as np
import torch

from grover_dist.bpe.vocabulary import FIRST_BASE_ID
from grover_dist.corpus.corpus import Corpus
from grover_dist.corpus.windows import WindowTable

REACH = 5  # words on either side, as in the original
NEGATIVES = 5
_BATCH = 512
_LEARNING_RATE = 5e-3  # Adam's; the sparse original used plain gradient descent


def cbow(corpus: Corpus, windows: WindowTable, cycles: int, *, hidden: int, tokens: int, seed: int) -> np.ndarray:
    """Vectors float64 [vocabulary, hidden] after one pass over at most `tokens` tokens of the windows, spread evenly over them."""
    size = len(corpus.vocabulary.strings(cycles))
    count = int(min(len(windows), max(1, round(tokens / max(float(windows.n_tokens.mean()), 1.0)))))
    chosen = windows.take(((np.arange(count) + 0.5) * len(windows) / count).astype(np.int64))
    ids = np.zeros((count, int(chosen.n_tokens.max()) + 2 * REACH), np.int64)
    corpus.ids_of_windows(chosen.row_start, chosen.row_stop, cycles, ids, column=REACH)
    line, column = np.nonzero(ids)
    places = np.concatenate([np.arange(-REACH, 0), np.arange(1, REACH + 1)])
    seen = np.bincount(ids[line, column], minlength=size).astype(np.float64)
    # The original draws negatives by frequency to the power of 0.75.
    noise = torch.from_numpy(np.where(np.arange(size) >= FIRST_BASE_ID, seen, 0.0) ** 0.75)
    generator = torch.Generator().manual_seed(seed)
    inside = torch.nn.Parameter((torch.rand(size, hidden, generator=generator) - 0.5) / hidden)
    outside = torch.nn.Parameter(torch.zeros(size, hidden))
    embedding = torch.nn.functional.embedding  # indexing adds up gradients in the order in which threads come
    optimizer = torch.optim.Adam([inside, outside], lr=_LEARNING_RATE)
    order = np.random.default_rng([seed, 0x773276]).permutation(len(line))
    for at in range(0, len(order), _BATCH):
        here = order[at : at + _BATCH]
        context = torch.from_numpy(ids[line[here, None], column[here, None] + places])
        known = (context > 0).float()
        mean = (embedding(context, inside) * known[..., None]).sum(1) / known.sum(1, keepdim=True).clamp_min(1.0)
        target = torch.from_numpy(ids[line[here], column[here]])
        false = torch.multinomial(noise, len(here) * NEGATIVES, replacement=True, generator=generator).reshape(len(here), NEGATIVES)
        right = (mean * embedding(target, outside)).sum(-1)
        wrong = (mean[:, None] * embedding(false, outside)).sum(-1)
        loss = -(torch.nn.functional.logsigmoid(right).mean() + torch.nn.functional.logsigmoid(-wrong).sum(1).mean())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return inside.detach().double().numpy()
