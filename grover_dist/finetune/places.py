"""Where rows lie: their regions in the run's genome or in another one, the blocks that go together, and the side of the split."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from grover_dist.config import Config, TaskSettings
from grover_dist.corpus.store import Store
from grover_dist.errors import UserError, nearest
from grover_dist.genome.intervals import NO_POINT, Intervals, match_records
from grover_dist.genome.split import HELD_OUT, MIXED, Split, split_blocks

PLACE_COLUMNS = ("chrom", "start", "end")
UNKNOWN = 4  # code of an ambiguity letter: one [UNK] each
Block = int | tuple[str, int]  # number of a block of the run's genome; (record, number) in another one


class Placed(NamedTuple):
    """row: of the table, from 0. region: record, start and end in the run's genome, None where the row has none there."""

    row: int
    split: str
    block: Block | None
    region: tuple[str, int, int] | None


def place_rows(
    path: Path,
    records: list[list[str]],
    place: Mapping[str, int],
    splits: list[str],
    free: bool,
    config: Config,
    settings: TaskSettings,
    store: Store,
    notes: list[str],
) -> list[Placed]:
    """The rows that stay. free: nobody has said what the test part is; then it is the settings' named records, or the genome's held-out
    blocks, and regions across the border of such a block are left out. Sequences may come with regions of another genome, whose own blocks
    then go together; rows without a sequence must lie in the run's genome.
    """
    named = settings.test_records or settings.validation_records
    if not all(name in place for name in PLACE_COLUMNS):
        if named:
            raise UserError("splitting by records needs the columns chrom, start and end", where=path)
        return [Placed(row, split, None, None) for row, split in enumerate(splits)]
    intervals = _intervals(path, records, place)
    if free and named:
        splits = _by_records(path, intervals, settings)
    if "sequence" in place and not _known(intervals, store):
        block_bp = config.split.block_bp
        notes.append(f"{path.name}: its regions are not of the run's genome; blocks of {block_bp:,} bp of its own records go together")
        middle = (intervals.start_bp + intervals.end_bp) // 2 // block_bp
        blocks = zip(intervals.record.tolist(), middle.tolist(), strict=True)
        return [Placed(row, split, block, None) for row, (split, block) in enumerate(zip(splits, blocks, strict=True))]
    matched, match = match_records(intervals, store.contigs, where=path)
    if match.unknown or any(old != new for old, new in match.renamed.items()):
        notes.append(f"{path.name}: {match}")
    by_genome = free and not named
    split = split_blocks(store.contigs, config.split, config.seed)
    kept, across = [], 0
    for index in range(len(matched)):
        row = int(matched.score[index])
        where = f"{path}, row {row + 1}"
        region = str(matched.record[index]), int(matched.start_bp[index]), int(matched.end_bp[index])
        check_inside(store, *region, where=where)
        block, side = place_of_region(store, split, *region)
        if block is None:
            raise UserError("a region holds no known base", where=where, got="{}:{}-{}".format(*region), hint="remove the row")
        if by_genome and side == MIXED:
            across += 1
            continue
        kept.append(Placed(row, "test" if by_genome and side == HELD_OUT else splits[row], block, region))
    if by_genome:
        notes.append(f"no test part was given: it is the regions of the genome's held-out blocks; {across:,} across a border are left out")
    return kept


def _known(intervals: Intervals, store: Store) -> bool:
    try:
        matched, _ = match_records(intervals, store.contigs, where="")
    except UserError:
        return False
    lengths = dict(zip(store.contigs.record_names, store.contigs.record_lengths_bp, strict=True))
    return all(end_bp <= lengths[record] for record, end_bp in zip(matched.record.tolist(), matched.end_bp.tolist(), strict=True))


def _by_records(path: Path, intervals: Intervals, settings: TaskSettings) -> list[str]:
    bare = np.array([name.removeprefix("chr") for name in intervals.record], object)
    splits = np.full(len(bare), "train", object)
    for split, names in (("test", settings.test_records), ("validation", settings.validation_records)):
        for name in names:
            mine = bare == name.removeprefix("chr")
            if not mine.any():
                known = sorted(set(intervals.record.tolist()))
                raise UserError(
                    f"no row lies on the record '{name}' that the {split} part is made of",
                    where=f"{path}, task '{settings.name}', {split}_records",
                    hint=f"nearest: {nearest(name, known)}",
                )
            splits[mine] = split
    return splits.tolist()


def _intervals(path: Path, records: list[list[str]], place: Mapping[str, int]) -> Intervals:
    """The rows as intervals; `score` carries the row's number, since the alias step may leave rows out."""
    bounds = np.empty((len(records), 2), np.int64)
    for row, record in enumerate(records):
        texts = record[place["start"]], record[place["end"]]
        try:
            bounds[row] = int(texts[0]), int(texts[1])
        except ValueError:
            raise UserError("start and end are whole numbers", where=f"{path}, row {row + 1}", got=f"{texts[0]!r}, {texts[1]!r}") from None
    n = len(records)
    strand = np.array([record[place["strand"]].strip() if "strand" in place else "+" for record in records], object)
    chrom = np.array([record[place["chrom"]].strip() for record in records], object)
    return Intervals(
        chrom, bounds[:, 0], bounds[:, 1], strand, np.full(n, "", object), np.arange(n, dtype=np.float64), np.full(n, NO_POINT)
    )


def place_of_region(store: Store, split: Split, record: str, start_bp: int, end_bp: int) -> tuple[int | None, int]:
    """(genome block of the first known base, side of the split); (None, MIXED) where the region has no known base."""
    rows = store.contigs.rows_of(record, start_bp, end_bp)
    if not rows:
        return None, MIXED
    return int(split.block_of(np.array([rows[0][0]]))[0]), int(split.side_of_interval(rows[0][0], rows[-1][1]))


def check_inside(store: Store, record: str, start_bp: int, end_bp: int, *, where: object) -> None:
    length_bp = store.contigs.record_lengths_bp[store.contigs.record_index(record)]
    if not 0 <= start_bp < end_bp <= length_bp:
        raise UserError(
            "an interval is not inside its record",
            where=where,
            got=f"{record}:{start_bp}-{end_bp}",
            expected=f"0 <= start < end <= {length_bp:,}",
            hint="is the table of another assembly?",
        )


def region_codes(store: Store, record: str, start_bp: int, end_bp: int, *, minus: bool, where: object) -> np.ndarray:
    """Base codes of a region of the genome, 4 where it has another letter; reverse complement where `minus`."""
    check_inside(store, record, start_bp, end_bp, where=where)
    codes = np.full(end_bp - start_bp, UNKNOWN, np.uint8)
    for row_start, row_stop in store.contigs.rows_of(record, start_bp, end_bp):
        _, first_bp = store.contigs.locate(row_start)
        codes[first_bp - start_bp : first_bp - start_bp + row_stop - row_start] = store.base(row_start, row_stop)
    if minus:
        codes = np.where(codes == UNKNOWN, codes, 3 - codes)[::-1].copy()
    return codes
