"""Motifs as position weight matrices: JASPAR or MEME text in, exact integer scores and a p-value's threshold out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from grover_dist.errors import UserError

MA0139_1 = Path(__file__).with_name("MA0139.1.jaspar")  # CTCF of JASPAR, the paper's motif
SCALE = 1_000  # units of a score in one bit
PSEUDOCOUNT = 0.8  # shared out by the background; JASPAR's tools use sqrt(N) or 0.8
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


@dataclass(frozen=True)
class Motif:
    """counts: float64[width, 4], occurrences (JASPAR) or probabilities times nsites (MEME) of A, C, G, T at each place."""

    name: str
    counts: np.ndarray

    @property
    def width_bp(self) -> int:
        return len(self.counts)


def read_motif(path: Path, name: str | None = None) -> Motif:
    """The only motif of a file, or the one that `name` names (its identifier or its alternative name)."""
    try:
        text = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the motif file cannot be read: {error}", where=path, hint="give JASPAR or MEME text") from None
    motifs = _read_meme(text, path) if text.lstrip().startswith("MEME version") else _read_jaspar(text, path)
    chosen = [motif for motif in motifs if name is None or name in motif.name.split()]
    if len(chosen) != 1:
        known = ", ".join(motif.name for motif in motifs[:8])
        raise UserError(
            "the file holds no such motif" if name else "the file holds several motifs",
            where=path,
            got=name or f"{len(motifs)} motifs",
            expected=f"one of: {known}",
            hint="name one of them with --motif-name",
        )
    return chosen[0]


def _read_jaspar(text: str, path: Path) -> list[Motif]:
    """`>ID NAME`, then four lines of counts: A, C, G, T, with or without letters and brackets."""
    motifs = []
    for block in text.split(">")[1:]:
        header, *lines = (line for line in block.splitlines() if line.strip())
        rows = [[float(number) for number in _NUMBER.findall(line.strip().lstrip("ACGTacgt"))] for line in lines]
        if len(rows) != 4 or not rows[0] or len({len(row) for row in rows}) != 1:
            raise UserError(
                "a JASPAR matrix has four lines of as many counts",
                where=f"{path}, motif '{header.strip()}'",
                got=f"lines of {', '.join(str(len(row)) for row in rows)} numbers",
            )
        motifs.append(_checked(" ".join(header.split()), np.array(rows).T, path))
    if not motifs:
        raise UserError("the file holds no motif", where=path, expected="JASPAR text ('>ID NAME', 4 lines) or MEME text ('MEME version')")
    return motifs


def _read_meme(text: str, path: Path) -> list[Motif]:
    """Minimal MEME text: `MOTIF name`, `letter-probability matrix: ... w= nsites=`, one line a place."""
    motifs = []
    for block in re.split(r"^MOTIF\s+", text, flags=re.MULTILINE)[1:]:
        name = " ".join(block.splitlines()[0].split())
        found = re.search(r"^letter-probability matrix:(.*)$", block, flags=re.MULTILINE)
        if found is None:
            raise UserError("a MEME motif has no letter-probability matrix", where=f"{path}, motif '{name}'")
        options = dict(re.findall(r"(\w+)=\s*([-\d.eE+]+)", found[1]))
        rows = []
        for line in block[found.end() :].strip().splitlines():
            numbers = line.split()
            if len(numbers) != 4 or not all(_NUMBER.fullmatch(number) for number in numbers):
                break
            rows.append([float(number) for number in numbers])
        if not rows or ("w" in options and len(rows) != int(options["w"])):
            raise UserError(
                "a MEME matrix has not as many lines as it says",
                where=f"{path}, motif '{name}'",
                got=len(rows),
                expected=options.get("w", "one line of four numbers a place"),
            )
        motifs.append(_checked(name, np.array(rows) * float(options.get("nsites", 20)), path))
    if not motifs:
        raise UserError("the file holds no motif", where=path, expected="lines that begin with MOTIF")
    return motifs


def _checked(name: str, counts: np.ndarray, path: Path) -> Motif:
    if (counts < 0).any() or (counts.sum(axis=1) <= 0).any():
        raise UserError("a motif's place has no or negative counts", where=f"{path}, motif '{name}'")
    return Motif(name, counts)


def log_odds(motif: Motif, background: np.ndarray) -> np.ndarray:
    """int64[width, 4]: log2(probability / background) in units of 1/SCALE bit, rounded, so that sums are exact."""
    smoothed = motif.counts + PSEUDOCOUNT * background
    probability = smoothed / smoothed.sum(axis=1, keepdims=True)
    return np.rint(SCALE * np.log2(probability / background)).astype(np.int64)


def score_distribution(scores: np.ndarray, background: np.ndarray) -> tuple[int, np.ndarray]:
    """(lowest score, probability of each score from it on) of a random word of independent bases: exact, by convolution over the places."""
    lowest = scores.min(axis=1)
    distribution = np.ones(1)
    for place, low in zip(scores, lowest, strict=True):
        longer = np.zeros(len(distribution) + int(place.max() - low))
        for base in range(4):
            shift = int(place[base] - low)
            longer[shift : shift + len(distribution)] += background[base] * distribution
        distribution = longer
    return int(lowest.sum()), distribution


def threshold(scores: np.ndarray, background: np.ndarray, p_value: float) -> int:
    """The lowest score that a random word reaches with probability at most `p_value`. UserError where none is so rare."""
    lowest, distribution = score_distribution(scores, background)
    tail = np.cumsum(distribution[::-1])[::-1]
    rare = np.flatnonzero((tail <= p_value) & (distribution > 0))
    if not len(rare):
        raise UserError(
            "the motif is too short for this p-value: its best word is more frequent",
            got=f"p = {p_value:g}",
            expected=f"p = {tail[np.flatnonzero(distribution)[-1]]:.2g} or more",
            hint="raise --p-value",
        )
    return lowest + int(rare[0])
