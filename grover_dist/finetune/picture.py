"""The importance of bases as a picture: one panel a region, with the words that count most written over their bases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from grover_dist.finetune.tracks import replacing

PANELS = 12  # at the most
NAMED = 6  # words of a region
_FOR, _AGAINST = "#0072B2", "#D55E00"  # Okabe and Ito's
_LETTERS = np.array(list("ACGTN"))


@dataclass(frozen=True)
class ExplainedRegion:
    """codes uint8[bases] and value float64[bases] lie along the strand."""

    record: str
    start_bp: int
    strand: str
    codes: np.ndarray
    value: np.ndarray
    probability: float  # of the class


def draw_regions(path: Path, regions: Sequence[ExplainedRegion], *, class_name: str, unit: str) -> None:
    """Draw the first PANELS regions, each from left to right along its strand. The format is the suffix's: .svg or .png."""
    import matplotlib
    from matplotlib.figure import Figure

    shown = regions[:PANELS]
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "grover_dist", "font.size": 8}):
        figure = Figure(figsize=(9, 1.9 * len(shown) + 0.3), layout="constrained")
        for region, axes in zip(shown, figure.subplots(len(shown), squeeze=False)[:, 0], strict=True):
            _draw(axes, region, class_name)
        axes.set_xlabel("bases from the region's start, along its strand")
        figure.supylabel(f"importance for '{class_name}' ({unit})", fontsize=8)
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)


def _draw(axes, region: ExplainedRegion, class_name: str) -> None:
    n = len(region.value)
    edges = np.arange(n + 1) - 0.5
    for sign, colour, hatch in ((1, _FOR, None), (-1, _AGAINST, "////")):
        axes.stairs(np.where(sign * region.value > 0, region.value, 0.0), edges, fill=True, color=colour, hatch=hatch, linewidth=0)
    axes.axhline(0, color="#666666", linewidth=0.6)
    starts = np.flatnonzero(np.diff(region.value, prepend=np.nan) != 0)  # every base of a word has the word's importance
    stops = np.append(starts[1:], n)
    taken: list[tuple[float, float]] = []
    for word in np.argsort(-np.abs(region.value[starts]), kind="stable").tolist():
        start, stop, value = int(starts[word]), int(stops[word]), region.value[starts[word]]
        letters = "".join(_LETTERS[np.minimum(region.codes[start:stop], 4)])
        middle, half = (start + stop - 1) / 2, len(letters) * n / 220  # a letter is about a 110th of the panel wide
        if len(taken) < NAMED and all(middle + half <= left or right <= middle - half for left, right in taken):
            taken.append((middle - half, middle + half))
            axes.text(middle, value, letters, ha="center", va="bottom" if value > 0 else "top", fontsize=7, family="monospace")
    end = region.start_bp + n
    place = f"{region.record}:{region.start_bp:,}-{end:,} ({region.strand}), probability of '{class_name}' {region.probability:.2f}"
    axes.set_title(place, loc="left", fontsize=8)
    axes.set_xlim(-0.5, n - 0.5)
    axes.margins(y=0.3)
    axes.spines[["top", "right"]].set_visible(False)
