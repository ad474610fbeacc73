"""What DeepSpeed hands over to be saved is copied to host memory at once and written to the disk by a thread, while training goes on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


class Holder:
    """Stands in for DeepSpeed's checkpoint engine, which writes its files: `save` only copies, into `held`."""

    def __init__(self, checkpoint_engine: Any) -> None:
        self._checkpoint_engine = checkpoint_engine
        self.held: list[tuple[Path, Any]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._checkpoint_engine, name)

    def save(self, state_dict: Any, path: str) -> None:
        self.held.append((Path(path), _on_host(state_dict, {})))

    def preserves_storage_sharing(self) -> bool:
        return False  # or DeepSpeed would make copies of its own first


def _on_host(value: Any, copies: dict[tuple, torch.Tensor]) -> Any:
    """The same structure, with a copy of each tensor in host memory; one that stands there twice (tied weights) is copied once."""
    if isinstance(value, torch.Tensor):
        key = (value.device, value.data_ptr(), value.dtype, value.shape, value.stride())
        if value.numel() == 0 or key not in copies:
            copies[key] = value.detach().to("cpu", copy=True)
        return copies[key]
    if isinstance(value, dict):
        made = value.copy()  # keeps OrderedDict and its metadata
        for name, item in value.items():
            made[name] = _on_host(item, copies)
        return made
    if isinstance(value, list) or type(value) is tuple:
        return type(value)(_on_host(item, copies) for item in value)
    return value


def write_file(path: Path, state: Any, stopped: Callable[[], bool] = lambda: False) -> dict[str, Any]:
    """Write one state as torch.load reads it, flush it to the disk, and return its size and checksum. Raises OSError."""
    with open(path, "wb") as handle:
        sink = _Sink(handle, stopped)
        torch.save(state, sink)
        if sink.fault is not None:
            raise sink.fault
        handle.flush()
        os.fsync(handle.fileno())
    return {"bytes": sink.bytes, "sha256": sink.digest.hexdigest()}


class _Sink:
    """A file that counts and digests what is written to it. A fault is kept, not raised: torch's writer ends the process when its
    sink raises while it tidies up.
    """

    def __init__(self, handle: Any, stopped: Callable[[], bool]) -> None:
        self._handle, self._stopped = handle, stopped
        self.digest, self.bytes = hashlib.sha256(), 0
        self.fault: OSError | None = None

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        if self.fault is None:
            try:
                if self._stopped():
                    raise InterruptedError("the write was given up")
                self._handle.write(data)
            except OSError as error:
                self.fault = error
            self.digest.update(data)
            self.bytes += size
        return size

    def flush(self) -> None:
        """torch asks for it; `write_file` flushes at the end."""
