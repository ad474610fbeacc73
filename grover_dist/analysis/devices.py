"""Where the analyses run a model."""

from __future__ import annotations

import torch
from transformers.models.bert.modeling_bert import BertForMaskedLM


def to_device(model: BertForMaskedLM) -> torch.device:
    """Move the model to the GPU where there is one, for prediction, and say where it is."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device).eval()
    return device
