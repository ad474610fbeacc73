"""PromID: promoters against four kinds of negatives. PromScan: the window with the start site against the windows around it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from grover_dist.bpe.vocabulary import Vocabulary
from grover_dist.errors import UserError
from grover_dist.finetune.builders.annotations import TssFormat, on_genome, read_tss
from grover_dist.finetune.builders.shuffles import base_shuffled, dinucleotide_shuffled, token_shuffled
from grover_dist.finetune.builders.table import check_output, text_of, write_table
from grover_dist.finetune.places import UNKNOWN, region_codes
from grover_dist.genome.intervals import Intervals

UPSTREAM_BP, DOWNSTREAM_BP = 249, 51  # -249 to +50: the start site is base 0 of the 51
NEGATIVES = ("token_shuffled", "base_shuffled", "dinucleotide_shuffled", "genomic")
SCAN_BP, SCAN_WINDOW_BP = 10_000, 1_000
_TRIES = 200  # random places for one genomic negative


def build_promid(
    store,
    tss: Path,
    output: Path,
    *,
    vocabulary: Vocabulary | None = None,
    cycles: int | None = None,
    negatives: Sequence[str] = NEGATIVES,
    tss_format: TssFormat = "auto",
    piece: bool = False,
    apart_bp: int = UPSTREAM_BP + DOWNSTREAM_BP,
    away_bp: int = 5_000,
    seed: int = 1,
    say: Callable[[str], None] = print,
) -> Path:
    """One row a promoter: `chrom,start,end,strand,name,sequence`, and a column for each kind of negative (300 bp each, read along the
    strand). A task reads one of these columns as its negative class (`negatives:` of the task).

    apart_bp: a start site nearer than this to one that is kept, on the same strand, is left out. away_bp: between a genomic negative and
    any start site; it lies on the promoter's record, within a megabase where there is room, on a random strand.
    store: `contigs` and `base(row_start, row_stop)`. Returns the manifest's path; UserError on every fault of the files.
    """
    unknown = set(negatives) - set(NEGATIVES)
    if unknown or not negatives:
        raise UserError("unknown kind of negatives", got=", ".join(sorted(unknown)) or "none", expected=", ".join(NEGATIVES))
    if "token_shuffled" in negatives and (vocabulary is None or cycles is None):
        raise UserError("token-shuffled negatives need a vocabulary", hint="give --cycles, or other --negatives")
    check_output(output)
    sites, notes, facts = _sites(store, tss, tss_format, piece)
    chosen = _apart(sites, apart_bp)
    generator = np.random.Generator(np.random.Philox(key=[seed, 0x960]))
    columns: dict[str, list[Any]] = {name: [] for name in ("chrom", "start", "end", "strand", "name", "sequence", *negatives)}
    left_out = Counter()
    starts_of = {name: np.sort(sites.start_bp[sites.record == name]) for name in np.unique(sites.record.astype(str))}
    for index in chosen:
        record, at, strand = str(sites.record[index]), int(sites.start_bp[index]), str(sites.strand[index])
        before, after = (UPSTREAM_BP, DOWNSTREAM_BP) if strand == "+" else (DOWNSTREAM_BP - 1, UPSTREAM_BP + 1)
        codes, fault = _codes(store, record, at - before, at + after, strand)
        if codes is None:
            left_out[fault] += 1
            continue
        place = (record, at - before, at + after, strand, str(sites.name[index]), text_of(codes))
        for name, value in zip(columns, place, strict=False):
            columns[name].append(value)
        for kind in negatives:
            columns[kind].append(_negative(kind, codes, vocabulary, cycles, generator, store, record, at, starts_of[record], away_bp))
    if not columns["chrom"]:
        raise UserError("no promoter lies wholly on known bases", where=tss, got=_listed(left_out), hint="is it the right assembly?")
    facts |= {
        "promoters": len(columns["chrom"]),
        "left_out": {"nearer_than_apart_bp": len(sites) - len(chosen), **left_out},
        "without_genomic_negative": sum(text is None for text in columns.get("genomic", ())),
        "notes": notes,
    }
    say(
        f"promid: {facts['promoters']:,} promoters of {len(sites):,} start sites ({facts['format']}); "
        f"left out: {_listed(facts['left_out'])}; without a genomic negative: {facts['without_genomic_negative']:,}"
    )
    for note in notes:
        say(f"promid: {note}")
    settings = {"negatives": list(negatives), "cycles": cycles, "apart_bp": apart_bp, "away_bp": away_bp, "seed": seed}
    return write_table(output, columns, kind="promid", settings=settings, inputs={"tss": tss}, genome=_genome(store), **facts)


def build_promscan(
    store,
    tss: Path,
    output: Path,
    *,
    tss_format: TssFormat = "auto",
    piece: bool = False,
    apart_bp: int = SCAN_BP,
    seed: int = 1,
    say: Callable[[str], None] = print,
) -> Path:
    """One row a 1-kb window: `chrom,start,end,strand,label,scan,name`; ten windows in a row make a scan of 10 kb, and the label is 1
    where the window holds the scan's start site.

    The scan begins at a random phase, so that the site lies anywhere in its window. Windows that hold another start site are left out,
    and so are those with an unknown base. apart_bp: as for `build_promid`; the default lets no two scans of a strand overlap.
    """
    check_output(output)
    sites, notes, facts = _sites(store, tss, tss_format, piece)
    generator = np.random.Generator(np.random.Philox(key=[seed, 0x5CA]))
    columns: dict[str, list[Any]] = {name: [] for name in ("chrom", "start", "end", "strand", "label", "scan", "name")}
    left_out, scans = Counter(), 0
    lengths = dict(zip(store.contigs.record_names, store.contigs.record_lengths_bp, strict=True))
    starts_of = {name: np.sort(sites.start_bp[sites.record == name]) for name in np.unique(sites.record.astype(str))}
    chosen = _apart(sites, apart_bp)
    for index in chosen:
        record, at, strand = str(sites.record[index]), int(sites.start_bp[index]), str(sites.strand[index])
        first = at - SCAN_BP // 2 + int(generator.integers(SCAN_WINDOW_BP))
        windows = []
        for start in range(first, first + SCAN_BP, SCAN_WINDOW_BP):
            stop, inside = start + SCAN_WINDOW_BP, starts_of[record]
            holds = start <= at < stop
            others = np.searchsorted(inside, stop) - np.searchsorted(inside, start)
            if start < 0 or stop > lengths[record] or _known_bases(store, record, start, stop) < SCAN_WINDOW_BP:
                left_out["windows off the record or with unknown bases"] += 1
            elif others and not holds:
                left_out["windows with another start site"] += 1
            else:
                windows.append((record, start, stop, strand, int(holds), scans, str(sites.name[index])))
        labels = [window[4] for window in windows]
        if len(set(labels)) < 2:
            left_out["scans without both kinds of windows"] += 1
            continue
        scans += 1
        for window in windows:
            for name, value in zip(columns, window, strict=True):
                columns[name].append(value)
    if not scans:
        raise UserError("no scan has its start site on known bases", where=tss, got=_listed(left_out), hint="is it the right assembly?")
    facts |= {
        "scans": scans,
        "positives": sum(columns["label"]),
        "left_out": {"start_sites_nearer_than_apart_bp": len(sites) - len(chosen), **left_out},
        "notes": notes,
    }
    say(
        f"promscan: {scans:,} scans, {len(columns['label']):,} windows, {facts['positives']:,} with a start site "
        f"({facts['format']}); left out: {_listed(facts['left_out'])}"
    )
    for note in notes:
        say(f"promscan: {note}")
    settings = {"scan_bp": SCAN_BP, "window_bp": SCAN_WINDOW_BP, "apart_bp": apart_bp, "seed": seed}
    return write_table(output, columns, kind="promscan", settings=settings, inputs={"tss": tss}, genome=_genome(store), **facts)


def _sites(store, tss: Path, tss_format: TssFormat, piece: bool) -> tuple[Intervals, list[str], dict[str, Any]]:
    sites, found = read_tss(tss, tss_format)
    sites, notes = on_genome(sites, store.contigs, where=tss, piece=piece)
    return sites, notes, {"format": found, "start_sites": len(sites)}


def _apart(sites: Intervals, apart_bp: int) -> np.ndarray:
    """Indices of the sites that stay when each is dropped that follows a kept one of its strand too closely."""
    kept, last = [], {}
    for index in np.lexsort((sites.start_bp, sites.strand.astype(str), sites.record.astype(str))):
        key, at = (sites.record[index], sites.strand[index]), int(sites.start_bp[index])
        if at - last.get(key, -(1 << 60)) >= apart_bp:
            kept.append(int(index))
            last[key] = at
    return np.array(kept, np.int64)


def _codes(store, record: str, start_bp: int, end_bp: int, strand: str) -> tuple[np.ndarray | None, str]:
    """Base codes, or None and why."""
    if start_bp < 0 or end_bp > store.contigs.record_lengths_bp[store.contigs.record_index(record)]:
        return None, "past the end of the record"
    codes = region_codes(store, record, start_bp, end_bp, minus=strand == "-", where=record)
    return (None, "with unknown bases") if (codes == UNKNOWN).any() else (codes, "")


def _negative(
    kind: str,
    codes: np.ndarray,
    vocabulary: Vocabulary | None,
    cycles: int | None,
    generator: np.random.Generator,
    store,
    record: str,
    at: int,
    starts: np.ndarray,
    away_bp: int,
) -> str | None:
    if kind == "token_shuffled":
        return text_of(token_shuffled(codes, vocabulary, cycles, generator))
    if kind == "base_shuffled":
        return text_of(base_shuffled(codes, generator))
    if kind == "dinucleotide_shuffled":
        return text_of(dinucleotide_shuffled(codes, generator))
    length_bp = store.contigs.record_lengths_bp[store.contigs.record_index(record)]
    for reach in (500_000, length_bp):
        low, high = max(0, at - reach), min(length_bp, at + reach) - len(codes)
        for _ in range(_TRIES if high > low else 0):
            start = int(generator.integers(low, high))
            near = np.searchsorted(starts, [start - away_bp, start + len(codes) + away_bp])
            if near[0] == near[1]:
                found, _ = _codes(store, record, start, start + len(codes), "+-"[int(generator.integers(2))])
                if found is not None:
                    return text_of(found)
    return None


def _known_bases(store, record: str, start_bp: int, end_bp: int) -> int:
    return sum(stop - start for start, stop in store.contigs.rows_of(record, start_bp, end_bp))


def _genome(store) -> dict[str, str]:
    contigs = store.contigs
    return dict(zip(contigs.record_names, contigs.record_digests, strict=True))


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in counts.items() if count) or "nothing"
