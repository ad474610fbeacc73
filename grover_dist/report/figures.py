"""Figures as inline SVG. Colours are Okabe and Ito's, which the colour-blind can tell apart; markers and lines repeat what colour says.

Every function takes plain arrays and returns the text of an <svg> element without a fixed size, so that the page scales it.
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
import matplotlib.lines
import matplotlib.ticker
import numpy as np
from matplotlib.figure import Figure

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GREY = "#666666"
LINES = {  # of baselines: dashes and grey
    "majority": (":", "#8A8A8A"),
    "Markov chain": ("--", "#555555"),
    "TF-IDF + forest": ("-.", "#555555"),
    "untrained twin": ("-", "#A0A0A0"),
}
_STYLE = {
    "svg.fonttype": "none",  # text stays text: it can be searched and selected
    "svg.hashsalt": "grover_dist",
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica", "Arial", "DejaVu Sans"],
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "legend.frameon": False,
    "lines.linewidth": 1.6,
}
_DROPPED = re.compile(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<metadata>.*?</metadata>", re.DOTALL)


@dataclass(frozen=True)
class Series:
    """One line with an interval. x [n]; y, low, high [n], the last two None where no interval is known."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


def learning_curves(curves: Sequence[Series]) -> str:
    """Held-out bits per base against the bases that the model has seen."""
    with figure_svg(7.2, 3.4) as (figure, svg):
        axes = figure.subplots()
        for index, curve in enumerate(curves):
            million = np.asarray(curve.x) / 1e6
            axes.plot(million, curve.y, color=_colour(index), marker=_marker(index), markersize=4, label=curve.name)
        axes.set_xlabel("bases seen in training (million)")
        axes.set_ylabel("held-out loss (bits per base)")
        axes.legend(title="candidate", ncols=2 if len(curves) > 5 else 1)
    return svg()


def accuracy_by_k(series: Sequence[Series], baselines: Sequence[Series]) -> str:
    """Next-k-mer accuracy in percent, one panel a k: candidates as points with intervals, baselines as lines across."""
    ks = sorted({int(k) for line in series for k in line.x})
    with figure_svg(7.2, 3.0 if len(ks) <= 3 else 5.0) as (figure, svg):
        columns = min(len(ks), 3)
        panels = figure.subplots(-(-len(ks) // columns), columns, squeeze=False).ravel()
        for panel in panels[len(ks) :]:
            panel.set_axis_off()
        for panel, k in zip(panels, ks, strict=False):
            for index, line in enumerate(series):
                places = [i for i, at in enumerate(line.x) if int(at) == k]
                for i in places:
                    y = 100 * line.y[i]
                    if line.low is not None and line.high is not None:
                        panel.plot([index, index], [100 * line.low[i], 100 * line.high[i]], color=_colour(index), linewidth=1.4)
                    panel.plot([index], [y], marker=_marker(index), color=_colour(index), markersize=6, linestyle="none")
            for line in baselines:
                here = [100 * value for at, value in zip(line.x, line.y, strict=True) if int(at) == k]
                if here:
                    dashes, grey = LINES[line.name]
                    panel.axhline(here[0], color=grey, linestyle=dashes, linewidth=1.2, zorder=1)
            panel.set_title(f"k = {k}")
            panel.set_xticks(range(len(series)), [line.name for line in series], rotation=30, ha="right")
            panel.set_xlim(-0.6, len(series) - 0.4)
            panel.grid(axis="x", visible=False)
        for panel in panels[: len(ks) : columns]:
            panel.set_ylabel("accuracy (%)")
        handles = [
            matplotlib.lines.Line2D([], [], linestyle=LINES[line.name][0], color=LINES[line.name][1], label=line.name) for line in baselines
        ]
        if handles:
            figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return svg()


def pareto_view(names: Sequence[str], accuracy: Sequence[float], merits: Mapping[str, Sequence[float]], front: Sequence[bool]) -> str:
    """Accuracy (share) against each of `merits` (axis label -> value a candidate), the front filled."""
    with figure_svg(7.2, 3.0) as (figure, svg):
        for axes, (label, values) in zip(figure.subplots(1, len(merits), sharey=True, squeeze=False)[0], merits.items(), strict=True):
            for index, (name, x, y, kept) in enumerate(zip(names, values, accuracy, front, strict=True)):
                face = _colour(index) if kept else "white"
                axes.plot(x, 100 * y, marker=_marker(index), color=_colour(index), markerfacecolor=face, linestyle="none")
                axes.annotate(name, (x, 100 * y), textcoords="offset points", xytext=(5, 4), fontsize=8, color=GREY)
            axes.set_xlabel(label)
        figure.axes[0].set_ylabel("mean accuracy (%)")
    return svg()


def embedding_map(x: np.ndarray, y: np.ndarray, colours: Mapping[str, np.ndarray], shares: Sequence[float]) -> str:
    """The first two components of the token embeddings, one panel for each property that colours the points."""
    with figure_svg(7.2, 2.9) as (figure, svg):
        panels = figure.subplots(1, len(colours), sharex=True, sharey=True, squeeze=False)[0]
        for panel, (name, values) in zip(panels, colours.items(), strict=True):
            points = panel.scatter(x, y, c=values, cmap="cividis", s=11, linewidths=0.3, edgecolors="#333333")
            bar = figure.colorbar(points, ax=panel, orientation="horizontal", shrink=0.9, aspect=28, pad=0.02)
            bar.set_label(name, fontsize=8)
            bar.ax.tick_params(labelsize=7)
            bar.outline.set_visible(False)
            panel.set_xlabel(f"PC1 ({100 * shares[0]:.0f} %)")
        panels[0].set_ylabel(f"PC2 ({100 * shares[1]:.0f} %)")
    return svg()


def correlation_bars(names: Sequence[str], trained: Sequence[float], nulls: Mapping[str, Sequence[float]]) -> str:
    """Strongest absolute correlation of any component with each property, the model beside its nulls."""
    bars = {"trained model": (trained, PALETTE[0], None)}
    for (name, values), (grey, hatch) in zip(nulls.items(), (("#BBBBBB", "///"), ("#888888", "..."), ("#DDDDDD", "xxx")), strict=False):
        bars[name] = (values, grey, hatch)
    with figure_svg(7.2, 1.1 + 0.17 * len(names) * len(bars)) as (figure, svg):
        axes = figure.subplots()
        rows, height = np.arange(len(names))[::-1], 0.72 / len(bars)
        for number, (name, (values, colour, hatch)) in enumerate(bars.items()):
            places = rows + 0.36 - (number + 0.5) * height
            axes.barh(
                places, np.abs(values), height=0.94 * height, color=colour, hatch=hatch, edgecolor="white" if hatch else None, label=name
            )
        axes.set_yticks(rows, names)
        axes.set_xlim(0, 1)
        axes.set_xlabel("largest |Spearman's rho| of a component")
        axes.grid(axis="y", visible=False)
        figure.legend(loc="outside lower center", ncols=len(bars), fontsize=8)
    return svg()


def similarity_by_layer(trained: Sequence[float], twin: Sequence[float]) -> str:
    """Mean self-similarity of tokens, anisotropy taken off, from the input embedding (layer 0) to the last layer."""
    with figure_svg(7.2, 2.5) as (figure, svg):
        axes = figure.subplots()
        for name, values, colour, line, marker in (
            ("trained model", trained, PALETTE[0], "-", "o"),
            ("untrained twin", twin, "#8A8A8A", "--", "s"),
        ):
            axes.plot(range(len(values)), values, color=colour, linestyle=line, marker=marker, markersize=4, label=name)
        axes.set_xticks(range(len(trained)), ["input", *map(str, range(1, len(trained)))])
        axes.set_xlabel("layer")
        axes.set_ylabel("self-similarity\n(cosine, adjusted)")
        axes.legend()
    return svg()


def accuracy_by_repeats(share: np.ndarray, accuracy: np.ndarray, enriched: np.ndarray) -> str:
    """Masked-token accuracy of each word against the share of its bases in the soft mask."""
    with figure_svg(7.2, 3.0) as (figure, svg):
        axes = figure.subplots()
        for chosen, name, colour, marker in (
            (~enriched, "other words", "#8A8A8A", "s"),
            (enriched, "enriched (q < 0.05)", PALETTE[1], "o"),
        ):
            axes.scatter(
                100 * share[chosen], 100 * accuracy[chosen], s=14, color=colour, marker=marker, linewidths=0, alpha=0.8, label=name
            )
        axes.set_xlabel("bases of the word in soft-masked sequence (%)")
        axes.set_ylabel("predicted first where masked (%)")
        axes.legend()
    return svg()


def word_clusters(x: np.ndarray, y: np.ndarray, cluster: np.ndarray) -> str:
    """Words in the plane by cluster (from 1); beyond the palette's seven all are grey."""
    with figure_svg(7.2, 3.6) as (figure, svg):
        axes = figure.subplots()
        for name in np.unique(cluster):
            mine, known = cluster == name, name <= len(PALETTE)
            colour, marker = (PALETTE[name - 1], MARKERS[name - 1]) if known else (GREY, ".")
            label = f"{name} ({int(mine.sum())} words)"
            axes.scatter(x[mine], y[mine], s=14, color=colour, marker=marker, linewidths=0, alpha=0.8, label=label)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.legend(title="cluster", loc="center left", bbox_to_anchor=(1.0, 0.5))
    return svg()


def masked_by_length(lengths: Sequence[int], first: Sequence[float], in_five: Sequence[float]) -> str:
    """Masked-token accuracy against the length of the word."""
    with figure_svg(7.2, 2.5) as (figure, svg):
        axes = figure.subplots()
        for name, values, colour, line, marker in (
            ("among the first five", in_five, PALETTE[4], "--", "s"),
            ("predicted first", first, PALETTE[0], "-", "o"),
        ):
            axes.plot(lengths, [100 * value for value in values], color=colour, linestyle=line, marker=marker, markersize=4, label=name)
        axes.set_xlabel("length of the masked word (bases)")
        axes.set_ylabel("held-out cases (%)")
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
        axes.legend()
    return svg()


def task_scores(tasks: Mapping[str, Sequence[Mapping[str, Any]]], metric: str) -> str:
    """One row of a dot chart for each method of each task, with its interval. Each entry: method, value, low, high, ours."""
    rows = sum(len(entries) + 1 for entries in tasks.values())
    with figure_svg(7.2, 0.7 + 0.27 * rows) as (figure, svg):
        axes = figure.subplots()
        labels, places, place = [], [], 0
        for task, entries in tasks.items():
            labels.append(task)
            places.append(place)
            place -= 1
            for entry in entries:
                colour = PALETTE[0] if entry.get("ours") else GREY
                if entry.get("low") is not None and entry.get("high") is not None:
                    axes.plot([entry["low"], entry["high"]], [place, place], color=colour, linewidth=1.4)
                axes.plot([entry["value"]], [place], marker="o" if entry.get("ours") else "D", color=colour, markersize=5)
                labels.append(f"  {entry['method']}")
                places.append(place)
                place -= 1
        axes.set_yticks(places, labels)
        for label, text in zip(axes.get_yticklabels(), labels, strict=True):
            label.set_fontweight("normal" if text.startswith("  ") else "bold")
        axes.axvline(0.0, color="#AAAAAA", linewidth=0.8)
        axes.set_xlabel(metric)
        axes.grid(axis="y", visible=False)
    return svg()


def length_histogram(lengths: Mapping[str, Mapping[int, int]]) -> str:
    """Tokens of each length in the dictionary of each candidate."""
    with figure_svg(7.2, 2.6) as (figure, svg):
        axes = figure.subplots()
        for index, (name, counts) in enumerate(lengths.items()):
            at = sorted(counts)
            axes.plot(at, [counts[n] for n in at], color=_colour(index), marker=_marker(index), markersize=4, label=name)
        axes.set_xlabel("token length (bases)")
        axes.set_ylabel("tokens in the dictionary")
        axes.set_yscale("symlog", linthresh=1)
        axes.yaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.set_ylim(bottom=0)
        axes.legend(title="candidate")
    return svg()


@contextmanager
def figure_svg(width: float, height: float):
    """A figure, and a function that gives its SVG after the block."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        rendered = io.StringIO()
        yield figure, lambda: _clean(rendered.getvalue())
        figure.savefig(rendered, format="svg", metadata={"Date": None}, transparent=True)


def _clean(svg: str) -> str:
    text = _DROPPED.sub("", svg).strip()
    # Identifiers are the same in every figure of a page; the salt is, so that the bytes are the same in every run.
    prefix = f"f{zlib.crc32(text.encode()):08x}"
    text = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', text)
    text = re.sub(r'(xlink:href="|href="|url\()#', rf"\1#{prefix}-", text)
    return re.sub(r'<svg ([^>]*?)width="[^"]*pt" ?', r"<svg \1", re.sub(r'(<svg [^>]*?)height="[^"]*pt" ', r"\1", text, count=1), count=1)


def _colour(index: int) -> str:
    return PALETTE[index % len(PALETTE)]


def _marker(index: int) -> str:
    return MARKERS[index % len(MARKERS)]
