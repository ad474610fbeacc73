"""A small convolutional network on the bases: the baseline that learns motifs from the labels alone."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from grover_dist.finetune.metrics import evaluate_metrics
from grover_dist.finetune.tables import Part

CHANNELS, MOTIF_BP, PAIR_WIDTH, POOL_BP = 32, 11, 5, 4
EPOCHS, BATCH, LEARNING_RATE, PATIENCE = 12, 64, 2e-3, 3
_FORWARD = 256
_ONE_HOT = np.zeros((6, 4), np.float32)  # rows: A, C, G, T, an ambiguity letter, padding
_ONE_HOT[:4] = np.eye(4)
_PADDING = 5


class SmallCnn(nn.Module):
    """Motifs of 11 bases, pairs of motifs, the strongest of each over the sequence, a linear layer: about 7,000 weights."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.motifs = nn.Conv1d(4, CHANNELS, MOTIF_BP, padding=MOTIF_BP // 2)
        self.pairs = nn.Conv1d(CHANNELS, CHANNELS, PAIR_WIDTH, padding=PAIR_WIDTH // 2)
        self.head = nn.Linear(2 * CHANNELS, n_classes)

    def forward(self, bases: torch.Tensor) -> torch.Tensor:
        """bases: float[n, 4, length]. Returns logits [n, classes]."""
        found = functional.max_pool1d(functional.relu(self.motifs(bases)), POOL_BP, ceil_mode=True)
        pairs = functional.relu(self.pairs(found))
        return self.head(torch.cat([pairs.amax(dim=2), pairs.mean(dim=2)], dim=1))


def cnn(train: Part, validation: Part, test: Part, n_classes: int, seed: int) -> np.ndarray:
    """Log probabilities float64[test rows, classes], of the epoch with the best validation MCC. The same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SmallCnn(n_classes)
        optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, foreach=True)
        labels = torch.from_numpy(train.labels)
        best, kept, stale = -np.inf, None, 0
        for _ in range(EPOCHS):
            order = torch.randperm(len(train)).numpy()
            for start in range(0, len(order), BATCH):
                rows = order[start : start + BATCH]
                loss = functional.cross_entropy(model(_bases(train, rows)), labels[torch.from_numpy(rows)])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            mcc = float(evaluate_metrics(_log_prob(model, validation), validation.labels)["mcc"][0])
            stale += 1
            if mcc > best:
                best, stale = mcc, 0
                kept = {name: value.clone() for name, value in model.state_dict().items()}
            if stale >= PATIENCE:
                break
        model.load_state_dict(kept)
        return _log_prob(model, test)


def _log_prob(model: SmallCnn, part: Part) -> np.ndarray:
    with torch.no_grad():
        pieces = [
            functional.log_softmax(model(_bases(part, np.arange(start, min(start + _FORWARD, len(part))))), dim=1)
            for start in range(0, len(part), _FORWARD)
        ]
    return torch.cat(pieces).double().numpy()


def _bases(part: Part, rows: np.ndarray) -> torch.Tensor:
    """float32[rows, 4, longest]: one-hot, zeros for ambiguity letters and padding."""
    width = max(len(part.sequences[row]) for row in rows)
    codes = np.full((len(rows), width), _PADDING, np.uint8)
    for line, row in zip(codes, rows, strict=True):
        line[: len(part.sequences[row])] = part.sequences[row]
    return torch.from_numpy(_ONE_HOT[codes].transpose(0, 2, 1).copy())
