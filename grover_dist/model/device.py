"""Where models run, and how numbers get there."""

from __future__ import annotations

import os

import numpy as np
import torch


def local_device() -> torch.device:
    """This process's GPU; the CPU where there is none, or where DS_ACCELERATOR=cpu keeps the process away from it."""
    if torch.cuda.is_available() and os.environ.get("DS_ACCELERATOR") != "cpu":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def for_prediction(model: torch.nn.Module) -> torch.device:
    """Move the model to the local device, out of training mode, and say where it is."""
    device = local_device()
    model.to(device).eval()
    return device


def to_device(values: np.ndarray | torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """The same numbers on `device`. On a CPU the memory is shared. To a GPU they go through pinned memory, so that the copy waits its turn
    among the GPU's work while Python goes on; from pageable memory Python would wait for all of that work.
    """
    tensor = torch.from_numpy(values) if isinstance(values, np.ndarray) else values
    if torch.device(device).type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
