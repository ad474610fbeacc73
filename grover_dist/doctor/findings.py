"""What a check found, and what to do about it. The standard library alone: a node that lacks packages must be able to say so."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

State = Literal["ok", "warning", "failed", "skipped"]


@dataclass(frozen=True)
class Finding:
    """One check on one node. remedy: what to do; every "warning" and "failed" has one. node: empty for a check between nodes."""

    check: str
    state: State
    found: str
    remedy: str = ""
    node: str = ""


@dataclass(frozen=True)
class Request:
    """What the nodes are examined for.

    folder: the run's folder (run.dir), which need not exist yet. bucket: "s3://NAME[/PREFIX]". gpus: GPUs that Ray or the settings
    count on here. cluster: other nodes are expected to connect.
    """

    folder: str | None = None
    bucket: str | None = None
    gpus: float = 0.0
    cluster: bool = False


@dataclass(frozen=True)
class NodeReport:
    """facts: what must be equal on every node, as text by name ("python", "package numpy", "product")."""

    node: str
    findings: Sequence[Finding]
    facts: Mapping[str, str] = field(default_factory=dict)


def within(seconds: float, checks: Mapping[str, Callable[[], Iterable[Finding]]]) -> list[Finding]:
    """Run the checks side by side. One that raises, or that hangs (a dead mount, a closed port), is a finding like any other."""
    results: dict[str, list[Finding]] = {}

    def run(name: str, check: Callable[[], Iterable[Finding]]) -> None:
        try:
            results[name] = list(check())
        except Exception as error:
            words = f"{type(error).__name__}: {error}"
            results[name] = [Finding(name, "failed", words, "the check itself broke; repeat it by hand on this node")]

    threads = {
        name: threading.Thread(target=run, args=item, daemon=True) for name, item in ((name, (name, checks[name])) for name in checks)
    }
    for thread in threads.values():
        thread.start()
    deadline = time.monotonic() + seconds
    for thread in threads.values():
        thread.join(max(0.0, deadline - time.monotonic()))
    late = "look for a mount or an address that does not answer (`df`, `curl`), and mend or name another"
    return [
        finding for name in checks for finding in results.get(name, [Finding(name, "failed", f"no answer within {seconds:,.0f} s", late)])
    ]
