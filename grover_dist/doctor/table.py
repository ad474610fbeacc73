"""The findings as a table, the remedies below it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from grover_dist.doctor.findings import Finding

_STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red", "skipped": "dim"}
_LOG_WIDTH = 120  # of a table in a file or a job's log
_NODES_IN_FULL = 3


def merge_nodes(findings: Sequence[Finding], *, in_full: int = _NODES_IN_FULL) -> list[Finding]:
    """On many nodes a check's good findings become one line; what is not good keeps its own."""
    nodes = {finding.node for finding in findings if finding.node}
    if len(nodes) <= in_full:
        return list(findings)
    merged: list[Finding] = []
    for check in dict.fromkeys(finding.check for finding in findings):
        mine = [finding for finding in findings if finding.check == check]
        good = [finding for finding in mine if finding.node and not finding.remedy]
        if len(good) > 1:
            example = "" if len({finding.found for finding in good}) == 1 else f"for example {good[0].node}: "
            merged.append(Finding(check, good[0].state, f"{example}{good[0].found}", node=f"{len(good)} nodes"))
            mine = [finding for finding in mine if finding not in good]
        merged += mine
    return merged


def remedies(findings: Sequence[Finding]) -> dict[tuple[str, str], list[str]]:
    """Nodes by check and remedy, in the order of the findings: what is to be done on many nodes is said once."""
    found: dict[tuple[str, str], list[str]] = {}
    for finding in findings:
        if finding.remedy:
            found.setdefault((finding.check, finding.remedy), []).append(finding.node)
    return found


def print_table(findings: Sequence[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    in_log = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    console = Console(width=_LOG_WIDTH if in_log else None, highlight=False)
    table = Table(show_edge=False, pad_edge=False)
    shown, to_do = merge_nodes(findings), remedies(findings)
    several = any(finding.node for finding in shown)
    for column in ("check", *(["node"] if several else []), "", "found"):
        table.add_column(column, overflow="fold")
    for finding in shown:
        found = Text(finding.found)
        if finding.remedy:
            found.append(f" [{list(to_do).index((finding.check, finding.remedy)) + 1}]", style=_STYLES[finding.state])
        node = [Text(finding.node or "all")] if several else []
        table.add_row(Text(finding.check), *node, Text(finding.state, style=_STYLES[finding.state]), found)
    console.print(table)
    if to_do:
        console.print("\nWhat to do")
        for number, ((check, remedy), nodes) in enumerate(to_do.items(), 1):
            where = f" on {', '.join(filter(None, nodes))}" if any(nodes) else ""
            console.print(Text(f"[{number}] {check}{where}: {remedy}"))
