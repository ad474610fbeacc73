"""The objective of fine-tuning: keeps the weights of the epoch with the best validation MCC, and ends when it grows no more."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save_file
from torch import nn

from grover_dist.finetune.metrics import evaluate_metrics
from grover_dist.run_dir import write_atomically
from grover_dist.selection.classifier import Classification
from grover_dist.selection.examples import ExampleBatch, TokenExamples
from grover_dist.training.ranks import Ranks

BEST = "best.safetensors"
_HISTORY = "history.json"


class BestEpoch(Classification):
    """The validation MCC of every evaluation stands in `folder`/history.json, so that a resumed run ends where the uninterrupted one does.

    patience: evaluations without a better MCC before `finished` is set; None: never.
    """

    def __init__(
        self,
        name: str,
        model: nn.Module,
        training: TokenExamples,
        validation: TokenExamples,
        folder: Path,
        *,
        total_steps: int,
        evaluations: int,
        patience: int | None = None,
        **more: Any,
    ) -> None:
        super().__init__(name, model, training, validation, **more)
        self.folder, self.patience = folder, patience
        self._steps = total_steps, evaluations
        self._first_step: int | None = None
        self._history: list[float] | None = None
        self.finished = False

    @property
    def best_mcc(self) -> float:
        return max(self._read_history())

    def batches(self, step: int, rank: int, world: int) -> Sequence[ExampleBatch]:
        if self._first_step is None:
            self._first_step = step
        return super().batches(step, rank, world)

    def evaluate(self, model: Any, ranks: Ranks) -> Mapping[str, float]:
        figures = dict(super().evaluate(model, ranks))
        figures["mcc"] = float(evaluate_metrics(self.predictions.log_prob, self.evaluation.labels)["mcc"][0])
        if self._history is None:
            self._history = ranks.on_main(self._before)
        if figures["mcc"] > max(self._history, default=-np.inf):
            ranks.on_main(self._keep)
        self._history.append(figures["mcc"])
        ranks.on_main(lambda: write_atomically(self.folder / _HISTORY, json.dumps(self._history).encode()))
        stale = len(self._history) - 1 - int(np.argmax(self._history))
        self.finished = self.patience is not None and stale >= self.patience
        return figures

    def _before(self) -> list[float]:
        """The evaluations before the step at which this process began; what was evaluated after the last checkpoint comes again."""
        total_steps, evaluations = self._steps
        if self._first_step is None:  # taken up at its end: no step was made
            return self._read_history()[: evaluations - 1]
        return self._read_history()[: self._first_step * evaluations // total_steps]

    def _read_history(self) -> list[float]:
        path = self.folder / _HISTORY
        return json.loads(path.read_text()) if path.exists() else []

    def _keep(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        weights = {name: value.detach().cpu().contiguous() for name, value in self.model.model.state_dict().items()}
        save_file(weights, self.folder / f"{BEST}.tmp")
        (self.folder / f"{BEST}.tmp").replace(self.folder / BEST)


def balanced_weights(labels: np.ndarray, n_classes: int) -> np.ndarray:
    """float64[classes] with mean 1 over the examples: each class has the same total weight."""
    counts = np.bincount(labels, minlength=n_classes)
    return len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))
