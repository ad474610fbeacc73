"""One checkpoint on its way from host memory to where it is kept, in a thread of each rank, while training goes on."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
from pathlib import Path
from typing import Any

from grover_dist.errors import UserError
from grover_dist.remote import Remote, describe_file
from grover_dist.run_dir import write_atomically
from grover_dist.training.ranks import Ranks
from grover_dist.training.snapshot import write_file

DESCRIPTION = "checkpoint.json"


class SharedFolder:
    """Where the parts of one checkpoint come together: a folder that all ranks see. The ranks tell rank 0 through it, since a collective
    call in a thread would meet those of the training.
    """

    poll_seconds = 0.02

    def __init__(self, partial: Path, final: Path, *, keep: int) -> None:
        self._partial, self._final, self._keep = partial, final, keep

    def take_in(self, path: Path) -> None:
        """A file that was written."""

    def leave_word(self, rank: int, word: dict[str, Any]) -> None:
        write_atomically(self._word(rank), json.dumps(word).encode())

    def word_of(self, rank: int) -> dict[str, Any] | None:
        if not self._word(rank).exists():
            return None
        word = json.loads(self._word(rank).read_text())
        self._word(rank).unlink()
        return word

    def publish(self, description: dict[str, Any]) -> None:
        others = {str(path.relative_to(self._partial)): path for path in sorted(self._partial.rglob("*")) if path.is_file()}
        description["files"] = {name: description["files"].get(name) or _flushed(path) for name, path in others.items()}
        publish(self._partial, self._final, description, keep=self._keep)

    def discard(self) -> None:
        shutil.rmtree(self._partial, ignore_errors=True)

    def _word(self, rank: int) -> Path:
        return self._partial / f".written-{rank}"


class ObjectStore:
    """The same where the ranks share no disk."""

    poll_seconds = 0.2

    def __init__(self, partial: Path, name: str, remote: Remote, *, keep: int) -> None:
        self._partial, self._name, self._remote, self._keep = partial, name, remote, keep

    def take_in(self, path: Path) -> None:
        self._remote.put(path, f"{self._name}/{path.relative_to(self._partial)}")

    def leave_word(self, rank: int, word: dict[str, Any]) -> None:
        self._remote.put_bytes(self._word(rank), json.dumps(word).encode())

    def word_of(self, rank: int) -> dict[str, Any] | None:
        word = self._remote.get_bytes(self._word(rank))
        if word is None:
            return None
        self._remote.delete([self._word(rank)])
        return json.loads(word)

    def publish(self, description: dict[str, Any]) -> None:
        """The description last; then the oldest go, each one's description first: a part must never be taken for the whole."""
        self._remote.put_bytes(f"{self._name}/{DESCRIPTION}", json.dumps(description, indent=1).encode())
        for name in sorted(name for name in complete_in(self._remote) if name.startswith("step-"))[: -self._keep]:
            self._remote.delete([f"{name}/{DESCRIPTION}"])
            self._remote.delete(self._remote.sizes(name))

    def discard(self) -> None:
        self._remote.delete([f"{self._name}/{DESCRIPTION}"])
        self._remote.delete(self._remote.sizes(self._name))

    def _word(self, rank: int) -> str:
        return f"{self._name}/.written-{rank}"


class Write:
    """One checkpoint on its way, in a thread. `written`: this rank's part is done, well or not. `fault`: what went wrong, in words, known
    on each rank for its own part and on rank 0 for all. `description`: of the whole, on rank 0, when it is published.
    """

    def __init__(
        self,
        partial: Path,
        final: Path,
        held: list[tuple[Path, Any]],
        ranks: Ranks,
        description: dict[str, Any],
        place: SharedFolder | ObjectStore,
    ) -> None:
        self.partial, self.final, self.description, self.fault = partial, final, description, None
        self._held, self._ranks, self._place = held, ranks, place
        self._stop, self.written = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="checkpoint", daemon=True)
        self._thread.start()

    def end(self, patience_seconds: float | None = None) -> None:
        """Wait until it is done, or give it up after `patience_seconds`."""
        self._thread.join(patience_seconds)
        if self._thread.is_alive():
            self._stop.set()
            self._thread.join()

    def _run(self) -> None:
        word: dict[str, Any] = {"files": {}}
        try:
            while self._held:
                path, state = self._held.pop(0)
                word["files"][str(path.relative_to(self.partial))] = write_file(path, state, self._stop.is_set)
                del state
                self._place.take_in(path)
        except Exception as error:
            self.fault = word["fault"] = f"rank {self._ranks.rank}: {_words(error)}"
        self._held.clear()
        try:
            if not self._ranks.is_main:
                self._place.leave_word(self._ranks.rank, word)
            self.written.set()
            if self._ranks.is_main:
                self._gather(word)
        except Exception as error:
            self.fault = self.fault or f"rank {self._ranks.rank}: {_words(error)}"
        self.written.set()
        if self._ranks.is_main and self.fault is not None:
            with contextlib.suppress(UserError):  # the object store does not answer: the next save of this name clears it
                self._place.discard()

    def _gather(self, own_word: dict[str, Any]) -> None:
        words = [own_word]
        for rank in range(1, self._ranks.world):
            while (word := self._place.word_of(rank)) is None:
                if self._stop.wait(self._place.poll_seconds):
                    raise InterruptedError(f"rank {rank} did not write its part")
            words.append(word)
        faults = [word["fault"] for word in words if "fault" in word]
        if faults:
            self.fault = "; ".join(faults)
            return
        self.description["files"] = {name: described for word in words for name, described in word["files"].items()}
        self._place.publish(self.description)


def complete_in(remote: Remote) -> set[str]:
    """Names of the complete checkpoints of a folder in an object store."""
    return {name.partition("/")[0] for name in remote.sizes() if name.endswith(f"/{DESCRIPTION}")}


def publish(partial: Path, final: Path, description: dict[str, Any], *, keep: int) -> None:
    """The description, then the name; then the oldest go."""
    write_atomically(partial / DESCRIPTION, json.dumps(description, indent=1).encode())
    shutil.rmtree(final, ignore_errors=True)
    os.replace(partial, final)
    for old in sorted(final.parent.glob("step-????????"))[:-keep]:
        shutil.rmtree(old)


def _words(error: Exception) -> str:
    if isinstance(error, UserError):
        return str(error)
    return f"{error.strerror} ({error.filename})" if isinstance(error, OSError) and error.strerror else f"{type(error).__name__}: {error}"


def _flushed(path: Path) -> dict[str, Any]:
    """What is said of a file that DeepSpeed wrote itself, when it is on the disk."""
    with open(path, "rb") as handle:
        os.fsync(handle.fileno())
    return describe_file(path)
