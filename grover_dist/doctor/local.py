"""This machine alone, without Ray."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace

from grover_dist.doctor.findings import Finding, Request
from grover_dist.doctor.network import RankGroup, judge
from grover_dist.doctor.node import Examiner

ALL_REDUCE_SECONDS = 60.0


def examine_here(request: Request) -> list[Finding]:
    """All checks of one node, and an all-reduce between two ranks of this machine, or between its GPUs."""
    examiner = Examiner()
    findings = [replace(finding, node="") for finding in examiner.examine("", request).findings]
    if any(finding.check == "packages" and finding.state == "failed" for finding in findings):
        return [*findings, Finding("all-reduce", "skipped", "see packages")]
    gpus = count_gpus() if request.gpus else 0
    group = RankGroup(max(2, gpus), "127.0.0.1", examiner.free_port("127.0.0.1"), "nccl" if gpus > 1 else "gloo")
    return [*findings, judge(examiner.run_ranks(group, 0, group.world, ALL_REDUCE_SECONDS), group, nodes=1)]


def count_gpus() -> int:
    smi = shutil.which("nvidia-smi")
    if smi is None:
        return 0
    return len(subprocess.run([smi, "-L"], capture_output=True, text=True, timeout=30).stdout.splitlines())
