"""The page as data: sections of blocks, and their rendering into one self-contained HTML text."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_HERE = Path(__file__).parent
NOTHING = "\u2013"


@dataclass(frozen=True)
class Column:
    """One column of a table: its head, the row's key (or a function of the row) and how a value is written."""

    title: str
    value: str | Callable[[Mapping[str, Any]], Any]
    write: Callable[[Any], str] = str
    number: bool = True
    word: bool = False

    def show(self, row: Mapping[str, Any]) -> str:
        value = row.get(self.value) if isinstance(self.value, str) else self.value(row)
        return NOTHING if value is None or value != value else self.write(value)


@dataclass
class PageSection:
    id: str
    title: str
    blocks: list[dict[str, Any]] = field(default_factory=list)

    def text(self, text: str) -> None:
        self.blocks.append({"kind": "text", "text": text})

    def note(self, text: str) -> None:
        self.blocks.append({"kind": "note", "text": text})

    def link(self, text: str, target: str) -> None:
        """target: relative to the report's own folder."""
        self.blocks.append({"kind": "link", "text": text, "target": target})

    def heading(self, text: str) -> None:
        self.blocks.append({"kind": "heading", "text": text})

    def bullets(self, items: Sequence[str]) -> None:
        if items:
            self.blocks.append({"kind": "list", "entries": list(items)})

    def figure(self, svg: str, caption: str) -> None:
        self.blocks.append({"kind": "figure", "svg": svg, "caption": caption})

    def table(self, rows: Sequence[Mapping[str, Any]], columns: Sequence[Column], caption: str | None = None) -> None:
        self.blocks.append({"kind": "table", "rows": list(rows), "columns": list(columns), "caption": caption})

    def dictionary(self, titles: Sequence[str], kinds: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """A searchable table. kinds: text, integer or percent of each column; a value may be None."""
        # "</" would end the script element in which the data lie.
        text = json.dumps({"kinds": list(kinds), "rows": [list(row) for row in rows]}, separators=(",", ":")).replace("</", "<\\/")
        self.blocks.append({"kind": "dictionary", "titles": list(titles), "json": text})


@dataclass(frozen=True)
class Tile:
    value: str
    label: str


def render(title: str, subtitle: str, headline: str, tiles: Sequence[Tile], sections: Sequence[PageSection]) -> str:
    """HTML text. Every value is escaped, except our own style, scripts and figures."""
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("template.html").render(
        title=title,
        subtitle=subtitle,
        headline=headline,
        tiles=tiles,
        sections=sections,
        style=(_HERE / "style.css").read_text(),
        dictionary_script=(_HERE / "dictionary.js").read_text(),
    )


def integer(value: float) -> str:
    return f"{int(value):,}"


def decimals(places: int) -> Callable[[float], str]:
    return lambda value: f"{value:,.{places}f}"


def percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def percent2(value: float) -> str:
    return f"{100 * value:.2f} %"


def interval(low: float | None, high: float | None, write: Callable[[float], str]) -> str | None:
    return None if low is None or high is None else f"{write(low)} to {write(high)}"


def big_bases(n: float) -> str:
    for size, unit in ((1e9, "Gb"), (1e6, "Mb"), (1e3, "kb")):
        if n >= size:
            return f"{n / size:.2f} {unit}"
    return f"{int(n)} b"


def seconds(value: float) -> str:
    if value < 90:
        return f"{value:.1f} s"
    minutes = value / 60
    return f"{minutes:.1f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
