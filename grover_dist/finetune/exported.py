"""The published classifier: plain Hugging Face files, and how to read them back with the same logits.

With `[CLS]` pooling the folder is a BertForSequenceClassification. With another pooling it is a BertModel and the linear layer in
`head.safetensors`: BertForSequenceClassification would read [CLS] instead and be wrong without a word.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers.models.bert.modeling_bert import BertForSequenceClassification, BertModel

from grover_dist.bpe.encode import encode_codes
from grover_dist.bpe.vocabulary import FIRST_MERGE_ID, Vocabulary
from grover_dist.errors import UserError
from grover_dist.model.bert import quiet_transformers
from grover_dist.run_dir import write_atomically
from grover_dist.selection.classifier import POOLED, logits_of
from grover_dist.selection.examples import TokenExamples, TokenRows, tokens_of_sequences

TASK_FILE, HEAD_FILE = "task.json", "head.safetensors"
SAME_LOGITS = 1e-4  # largest difference between two ways of batching the same sequence
_BATCH = 64


@dataclass(frozen=True)
class FinetunedModel:
    """A published model: `classes` in the order of the logits, `task`: what task.json says of it."""

    module: torch.nn.Module
    vocabulary: Vocabulary
    classes: tuple[str, ...]
    positions: int
    task: dict

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    def rows(self, sequences: Sequence[np.ndarray]) -> TokenRows:
        """Tokens of sequences of base codes; those longer than the model's positions in several windows."""
        return tokens_of_sequences([encode_codes(codes, self.vocabulary) for codes in sequences], self.positions - 2)

    def logits(self, sequences: Sequence[np.ndarray]) -> np.ndarray:
        """float32[n, classes] of sequences of base codes."""
        return self.logits_of_rows(self.rows(sequences))

    def logits_of_rows(self, rows: TokenRows) -> np.ndarray:
        examples = TokenExamples(rows, np.zeros(len(rows), np.int64))
        found = []
        with torch.no_grad():
            for start in range(0, len(rows), _BATCH):
                batch = examples.batch(np.arange(start, min(start + _BATCH, len(rows))))
                found.append(logits_of(self.module, batch, self.device).cpu().numpy())
        return np.concatenate(found) if found else np.zeros((0, len(self.classes)), np.float32)


def save_finetuned(
    model: BertForSequenceClassification,
    folder: Path,
    vocabulary: Vocabulary,
    cycles: int,
    *,
    pooling: str,
    classes: Sequence[str],
    positions: int,
    task: dict,
) -> None:
    """Write the model's folder: weights, tokenizer and task.json."""
    model.config.id2label = dict(enumerate(classes))
    model.config.label2id = {name: index for index, name in enumerate(classes)}
    with quiet_transformers():
        if pooling == "cls":
            model.save_pretrained(folder)
        else:
            model.config.pooling = pooling
            model.bert.save_pretrained(folder)
            save_file({f"classifier.{name}": value for name, value in model.classifier.state_dict().items()}, folder / HEAD_FILE)
    vocabulary.save_tokenizer(folder, cycles, max_length=positions)
    described = {**task, "pooling": pooling, "classes": list(classes), "cycles": cycles, "positions": positions}
    write_atomically(folder / TASK_FILE, json.dumps(described, indent=1, sort_keys=True).encode())


def load_finetuned(folder: str | Path, device: torch.device | None = None) -> FinetunedModel:
    """Read a published model, in evaluation mode. `folder`: the artefact of the task or its `model/`. UserError where it is neither."""
    folder = Path(folder)
    folder = folder / "model" if (folder / "model" / TASK_FILE).is_file() else folder
    if not (folder / TASK_FILE).is_file():
        raise UserError(
            "this is not the folder of a fine-tuned model",
            where=folder,
            expected=f"a folder with {TASK_FILE}, such as RUN/finetune/TASK-xxxxxxxx/model",
            hint="fine-tune one with `grover-dist finetune CONFIG`",
        )
    task = json.loads((folder / TASK_FILE).read_text())
    pooling, classes = task["pooling"], tuple(task["classes"])
    with quiet_transformers():
        if pooling == "cls":
            model = BertForSequenceClassification.from_pretrained(folder, local_files_only=True, attn_implementation="sdpa")
        else:
            trunk = BertModel.from_pretrained(folder, local_files_only=True, attn_implementation="sdpa")
            trunk.config.num_labels = len(classes)
            model = BertForSequenceClassification(trunk.config)
            model.bert.load_state_dict(trunk.state_dict())
            head = load_file(folder / HEAD_FILE)
            model.classifier.load_state_dict({name.removeprefix("classifier."): value for name, value in head.items()})
    module = POOLED[pooling](model).eval().to(device or torch.device("cpu"))
    return FinetunedModel(module, tokenizer_vocabulary(folder / "tokenizer.json"), classes, int(task["positions"]), task)


def tokenizer_vocabulary(path: Path) -> Vocabulary:
    """The merges of a tokenizer.json of ours, so that sequences are encoded by compiled code."""
    model = json.loads(path.read_text())["model"]
    pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
    ids = np.array([[model["vocab"][left], model["vocab"][right]] for left, right in pairs], np.int64).reshape(-1, 2)
    made = [model["vocab"][left + right] for left, right in pairs]
    if made != list(range(FIRST_MERGE_ID, FIRST_MERGE_ID + len(made))):
        raise UserError("the tokenizer's ids are not in the order of its merges", where=path, hint="export the model again")
    return Vocabulary(ids[:, 0], ids[:, 1], np.zeros(len(ids), np.int64))


def check_same_logits(published: FinetunedModel, sequences: Sequence[np.ndarray], log_prob: np.ndarray, *, where: Path) -> int:
    """Compare the published files' log probabilities with the trained model's. Returns how many were compared; UserError if they differ."""
    logits = torch.from_numpy(published.logits(sequences))
    found = torch.log_softmax(logits, dim=1).numpy()
    difference = np.abs(found - log_prob).max(axis=1)
    if not (difference <= SAME_LOGITS).all():
        raise UserError(
            "the published model's logits differ from the trained model's",
            where=where,
            got=f"{difference.max():.3g} at sequence {int(difference.argmax())}",
            expected=f"{SAME_LOGITS:g} at most",
            hint="run the same command again; if it comes again, report it",
        )
    return len(sequences)
