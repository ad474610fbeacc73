"""Files that genome browsers open: BED, bedGraph-like TSV and bigWig, each written under a temporary name and renamed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from grover_dist.errors import UserError
from grover_dist.run_dir import disk_error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, with its suffix, that becomes `path` on a clean exit and vanishes on an error."""
    if not path.parent.is_dir():
        raise UserError("there is no such folder", where=path.parent, hint="make it first")
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise disk_error(error, path) from error
    finally:
        temporary.unlink(missing_ok=True)


def mean_track(start_bp: np.ndarray, end_bp: np.ndarray, value: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(start, end, value) of disjoint cells in order: where intervals overlap the mean of their values; bases under none have no cell."""
    edges = np.unique(np.concatenate([start_bp, end_bp]))
    if len(edges) < 2:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
    total, count = np.zeros(len(edges)), np.zeros(len(edges), np.int64)
    first, last = np.searchsorted(edges, start_bp), np.searchsorted(edges, end_bp)
    np.add.at(total, first, value)
    np.add.at(total, last, -value)
    np.add.at(count, first, 1)
    np.add.at(count, last, -1)
    covered = np.cumsum(count)[:-1]
    mean = np.cumsum(total)[:-1] / np.maximum(covered, 1)
    kept = covered > 0
    return edges[:-1][kept], edges[1:][kept], mean[kept]


def check_bigwig() -> None:
    try:
        import pybigtools  # noqa: F401
    except ImportError:
        raise UserError(
            "bigWig files need the package pybigtools", hint="pip install 'grover_dist[tracks]', or write .bed or .tsv"
        ) from None


def write_bigwig(
    path: Path, lengths_bp: Mapping[str, int], values: Mapping[str, Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]]
) -> int:
    """values: (start, end, value) arrays of each record in any order; overlaps become means. Returns the number of cells."""
    check_bigwig()
    import pybigtools

    cells = 0

    def rows() -> Iterator[tuple[str, int, int, float]]:
        nonlocal cells
        for record in sorted(values):
            track = mean_track(*(np.concatenate(column) for column in zip(*values[record], strict=True)))
            cells += len(track[0])
            for start, end, value in zip(*(column.tolist() for column in track), strict=True):
                yield record, start, end, value

    with replacing(path) as temporary:
        pybigtools.open(str(temporary), "w").write({name: lengths_bp[name] for name in sorted(values)}, rows())
    return cells
