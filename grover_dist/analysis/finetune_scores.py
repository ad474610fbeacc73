"""The test scores of a fine-tuned task as plain rows, our model first."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from grover_dist.run_dir import Artifact

OURS, TWIN = "pretrained", "twin"
COMPOSITION = ("majority", "length only", "GC only", "GC and length")  # baselines that read no word of the sequence
_NAMES = {OURS: "fine-tuned model", TWIN: "untrained twin"}


def read_metrics(artifact: Artifact) -> dict[str, Any]:
    return json.loads(artifact.file("metrics.json").read_text())


def method_name(key: str) -> str:
    return _NAMES.get(key, key)


def method_rows(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a method: key, method (its name), ours, value, low and high of the MCC, and the other metrics. Ours first."""
    rows = [
        {
            "key": key,
            "method": method_name(key),
            "ours": key == OURS,
            **{name: found["mcc"][name] for name in ("value", "low", "high")},
            **{metric: one["value"] for metric, one in found.items() if metric != "mcc"},
        }
        for key, found in metrics["methods"].items()
    ]
    return sorted(rows, key=lambda row: (not row["ours"], row["key"] != TWIN, -row["value"]))
