"""What must agree between nodes: versions, the shared folder, clocks. Over reports, so that a test needs no cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from grover_dist.doctor.findings import Finding, NodeReport
from grover_dist.doctor.storage import clock_finding


def compare_facts(reports: Sequence[NodeReport]) -> Iterator[Finding]:
    """Every node against the first, which is the head."""
    if len(reports) < 2:
        return
    head, *others = reports
    different = 0
    for report in others:
        for name in sorted({*head.facts, *report.facts}):
            here, there = report.facts.get(name, "missing"), head.facts.get(name, "missing")
            if here != there:
                different += 1
                yield Finding(
                    "same everywhere", "failed", f"{name}: {here} here, {there} on {head.node}", _remedy(name, there), report.node
                )
    if not different:
        yield Finding("same everywhere", "ok", f"Python, product and {sum('package' in name for name in head.facts)} packages are equal")


def _remedy(name: str, wanted: str) -> str:
    if name == "python":
        return f"make this node's environment with Python {wanted}"
    if name == "product":
        return "install the same wheel on every node, and restart Ray on this one"
    return f"pip install '{name.removeprefix('package ')}=={wanted}' on this node, then restart Ray there; constraints.txt pins all"


def compare_marks(folder: str, missing: Mapping[str, Sequence[str]]) -> Iterator[Finding]:
    """missing: for each node, the nodes whose files it does not see in the run's folder."""
    blind = {node: others for node, others in missing.items() if others}
    for node, others in blind.items():
        remedy = f"mount the same file system at the same path on every node, so that {folder} is one folder (or use a bucket)"
        yield Finding("shared folder", "failed", f"{folder}: what {', '.join(others)} wrote is not seen", remedy, node)
    if not blind:
        yield Finding("shared folder", "ok", f"{folder} is one folder for all {len(missing)} nodes")


def compare_clocks(offsets: Mapping[str, float], reference: str) -> Iterator[Finding]:
    """offsets: seconds that each node's clock is ahead of the reference's."""
    faults = [clock_finding(abs(seconds), f"{reference}'s", node) for node, seconds in offsets.items()]
    bad = [finding for finding in faults if finding.state != "ok"]
    if bad:
        yield from bad
    elif offsets:
        yield clock_finding(max(abs(seconds) for seconds in offsets.values()), f"{reference}'s on every node")
