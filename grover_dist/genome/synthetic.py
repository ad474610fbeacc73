"""A synthetic genome with known words, for the demonstration and for tests of the whole pipeline.

    genome.fa                    records chr1.., soft-masked (lower case) where repeats lie, with a few runs of N
    truth/transposons.bed        copies: name = family, score = substitutions per thousand bases, strand
    truth/tandem_repeats.bed     arrays: name = unit
    truth/promoters.bed          windows of 300 bp, the transcription start at base 249 of the strand
    truth/non_promoters.bed      windows placed like promoters, nothing planted: the fair negatives
    truth/ctcf_bound.bed         motif with the context word upstream at a fixed distance
    truth/ctcf_unbound.bed       motif with a shuffled context word: same composition, other word
    truth/isochores.bed          name = isochore, score = G+C per thousand, measured in the finished sequence
    truth/gaps.bed               runs of N
    truth/truth.json             the planted words and parameters

BED: 0-based half-open. The background is a Markov chain of order 4 made from 5-mer energies that are equal for a word and its
reverse complement, so both strands look alike (Chargaff's second rule), tilted to the G+C of each isochore. Then, in this order:
transposon copies and tandem repeats, decay of CpG, promoters and CTCF sites. Planted elements never overlap.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from grover_dist.config import SyntheticSettings
from grover_dist.errors import UserError
from grover_dist.genome.background import ENERGY_SIGMA, ORDER, background

LINE_BP = 80

PROMOTER_BP, TSS_OFFSET = 300, 249
TATA_WORD, TATA_FROM_TSS, TATA_JITTER_BP = "TATAWAAG", -31, 2
INR_WORD, INR_FROM_TSS = "TCAKTY", -2  # its A is the first transcribed base
CTCF_MOTIF, CTCF_CONTEXT, CTCF_GAP_BP = "CCASYAGRKGGCRS", "TTGCACCTGA", 12
TANDEM_UNITS = ("A", "AC", "AG", "AAAT", "TTAGGG", "AAGTGTCCTGAGTCAA")
TANDEM_BP = (100, 500)
TANDEM_DIVERGENCE = 0.02
FULL_LENGTH_SHARE = 0.6  # of transposon copies; the others have lost a part of their 5' end
POLY_A_BP = 16
MOST_PLANTED = 0.85  # of a genome's bases; the rest stays background

_IUPAC = {"A": "A", "C": "C", "G": "G", "T": "T", "R": "AG", "Y": "CT", "S": "CG", "W": "AT", "K": "GT", "M": "AC"}
_LETTERS = np.frombuffer(b"ACGT", dtype=np.uint8)
_C, _G = 1, 2


@dataclass
class _Elements:
    """One kind of planted element, placed: n rows. `start` counts in the concatenation of all records."""

    sizes_bp: np.ndarray
    minus: np.ndarray  # bool, strand
    start: np.ndarray
    names: list[str]
    scores: np.ndarray

    @classmethod
    def draw(cls, sizes_bp: np.ndarray, names: list[str], random: np.random.Generator) -> _Elements:
        n = len(sizes_bp)
        return cls(np.asarray(sizes_bp, dtype=np.int64), random.random(n) < 0.5, np.zeros(n, np.int64), names, np.zeros(n, np.int64))


def make_genome(settings: SyntheticSettings, seed: int, folder: Path) -> None:
    """Write genome.fa and truth/ into `folder` (module docstring). A function of its arguments alone.

    Raises UserError where the planted elements do not fit into `length_bp`.
    """
    random = np.random.default_rng([seed, 0x67656E6F])  # a stream of its own: "geno"
    lengths_bp = _record_lengths(settings)
    families = {f"TE{i + 1}": _consensus(settings.transposons.length_bp, random) for i in range(settings.transposons.families)}
    elements = _draw_elements(settings, list(families), lengths_bp, random)
    _place(elements, lengths_bp, random)

    codes = background(settings, lengths_bp, random)
    _plant_transposons(codes, elements["transposons"], families, settings.transposons.divergence, random)
    _plant_tandem_repeats(codes, elements["tandem_repeats"], random)
    _decay_cpg(codes, settings.cpg_depletion, random)
    _plant_promoters(codes, elements["promoters"], random)
    _plant_ctcf(codes, elements["ctcf_bound"], bound=True, random=random)
    _plant_ctcf(codes, elements["ctcf_unbound"], bound=False, random=random)

    letters = _LETTERS[codes]
    for kind in ("transposons", "tandem_repeats"):
        letters[_positions(elements[kind])] |= 0x20  # lower case
    letters[_positions(elements["gaps"])] = ord("N")

    (folder / "truth").mkdir(parents=True, exist_ok=True)
    _write_fasta(folder / "genome.fa", letters, lengths_bp)
    for kind, placed in elements.items():
        if kind.startswith("ctcf"):
            placed = _motif_only(placed)
        _write_bed(folder / "truth" / f"{kind}.bed", placed, lengths_bp)
    _write_bed(folder / "truth" / "isochores.bed", _measured_isochores(letters, settings, lengths_bp), lengths_bp)
    truth = {
        "seed": seed,
        "settings": settings.model_dump(mode="json"),
        "transposons": {name: _text(codes) for name, codes in families.items()},
        "tandem_units": list(TANDEM_UNITS),
        "promoter": {
            "window_bp": PROMOTER_BP,
            "tss_offset_bp": TSS_OFFSET,
            "tata_word": TATA_WORD,
            "tata_from_tss_bp": [TATA_FROM_TSS - TATA_JITTER_BP, TATA_FROM_TSS + TATA_JITTER_BP],
            "inr_word": INR_WORD,
            "inr_from_tss_bp": INR_FROM_TSS,
        },
        "ctcf": {"motif": CTCF_MOTIF, "context_word": CTCF_CONTEXT, "context_before_motif_bp": CTCF_GAP_BP + len(CTCF_CONTEXT)},
        "background": {"markov_order": ORDER, "energy_sigma": ENERGY_SIGMA},
    }
    (folder / "truth" / "truth.json").write_text(json.dumps(truth, indent=1, sort_keys=True))


def iupac_matches(text: str, word: str) -> bool:
    """True where `text` (upper case) is an instance of the IUPAC `word` of the same length."""
    return len(text) == len(word) and all(letter in _IUPAC[symbol] for letter, symbol in zip(text, word, strict=True))


def iupac_instances(word: str) -> list[str]:
    """Every sequence of A, C, G, T that the IUPAC `word` stands for, in alphabetical order."""
    found = [""]
    for symbol in word:
        found = [head + letter for head in found for letter in _IUPAC[symbol]]
    return sorted(found)


# Where things lie


def _record_lengths(settings: SyntheticSettings) -> np.ndarray:
    """Unequal records, as chromosomes are; they sum to `length_bp`."""
    weights = np.linspace(1.3, 0.7, settings.contigs)
    edges = np.rint(np.concatenate([[0], np.cumsum(weights) / weights.sum()]) * settings.length_bp).astype(np.int64)
    return np.diff(edges)


def _draw_elements(
    settings: SyntheticSettings, families: list[str], lengths_bp: np.ndarray, random: np.random.Generator
) -> dict[str, _Elements]:
    length = settings.transposons.length_bp
    mean_bp = length * (FULL_LENGTH_SHARE + (1 - FULL_LENGTH_SHARE) * 0.65)
    copies = round(settings.transposons.share * settings.length_bp / mean_bp) if families else 0
    full = random.random(copies) < FULL_LENGTH_SHARE
    copy_bp = np.where(full, length, np.rint(length * random.uniform(0.3, 1.0, copies))).astype(np.int64)
    family_of = [families[i] for i in random.integers(0, max(1, len(families)), copies)]

    tandem_bp = random.integers(*TANDEM_BP, settings.tandem_repeats)
    units = [TANDEM_UNITS[i % len(TANDEM_UNITS)] for i in range(settings.tandem_repeats)]
    site_bp = len(CTCF_CONTEXT) + CTCF_GAP_BP + len(CTCF_MOTIF)
    bound = settings.ctcf_sites // 2
    gaps_bp = np.concatenate([[1, max(2, n // 1_000), max(3, n // 100)] for n in lengths_bp])
    return {
        "transposons": _Elements.draw(copy_bp, family_of, random),
        "tandem_repeats": _Elements.draw(tandem_bp, units, random),
        "promoters": _Elements.draw(np.full(settings.promoters, PROMOTER_BP), ["promoter"] * settings.promoters, random),
        "non_promoters": _Elements.draw(np.full(settings.promoters, PROMOTER_BP), ["none"] * settings.promoters, random),
        "ctcf_bound": _Elements.draw(np.full(bound, site_bp), ["bound"] * bound, random),
        "ctcf_unbound": _Elements.draw(np.full(settings.ctcf_sites - bound, site_bp), ["unbound"] * (settings.ctcf_sites - bound), random),
        "gaps": _Elements(gaps_bp, np.zeros(len(gaps_bp), bool), np.zeros_like(gaps_bp), ["N"] * len(gaps_bp), np.zeros_like(gaps_bp)),
    }


def _place(elements: dict[str, _Elements], lengths_bp: np.ndarray, random: np.random.Generator) -> None:
    """Random order, random gaps between: every layout without overlap that keeps the order is equally likely. Sets `start`."""
    sizes = np.concatenate([group.sizes_bp for group in elements.values()])
    total_bp, planted_bp = int(lengths_bp.sum()), int(sizes.sum())
    order = random.permutation(len(sizes))
    shared_out = np.cumsum(sizes[order]) - sizes[order] / 2  # each record takes its share of the planted bases, by their middles
    record = np.searchsorted(np.cumsum(lengths_bp) / total_bp * planted_bp, shared_out, side="right").clip(max=len(lengths_bp) - 1)
    starts = np.empty(len(sizes), dtype=np.int64)
    offset = 0
    for index, length_bp in enumerate(lengths_bp):
        mine = order[record == index]
        free = int(length_bp - sizes[mine].sum())
        if free < (1 - MOST_PLANTED) * length_bp:
            raise UserError(
                "the planted elements do not fit into the synthetic genome",
                where="genome.synthetic",
                got=f"{planted_bp:,} planted bases in {total_bp:,}",
                expected=f"at most {MOST_PLANTED:.0%} planted in each of {len(lengths_bp)} contigs",
                hint="raise genome.synthetic.length_bp, or lower contigs, transposons.share, promoters, ctcf_sites or tandem_repeats",
            )
        cuts = np.sort(random.integers(0, free, len(mine), endpoint=True))
        starts[mine] = offset + cuts + np.cumsum(sizes[mine]) - sizes[mine]
        offset += int(length_bp)
    for group, edge in zip(elements.values(), np.cumsum([len(g.sizes_bp) for g in elements.values()]), strict=True):
        group.start = starts[edge - len(group.sizes_bp) : edge]


def _positions(group: _Elements) -> np.ndarray:
    """All positions of all elements, element after element, each from left to right."""
    ends = np.cumsum(group.sizes_bp)
    within = np.arange(int(ends[-1]) if len(ends) else 0) - np.repeat(ends - group.sizes_bp, group.sizes_bp)
    return np.repeat(group.start, group.sizes_bp) + within


def _motif_only(group: _Elements) -> _Elements:
    """The motif's own interval inside the placed footprint (context word, gap, motif on the plus strand)."""
    shift = np.where(group.minus, 0, len(CTCF_CONTEXT) + CTCF_GAP_BP)
    return _Elements(np.full_like(group.sizes_bp, len(CTCF_MOTIF)), group.minus, group.start + shift, group.names, group.scores)


# Planted elements


def _decay_cpg(codes: np.ndarray, share: float, random: np.random.Generator) -> None:
    """Methylated C decays to T: CG becomes TG, or CA where it happened on the other strand."""
    sites = np.flatnonzero((codes[:-1] == _C) & (codes[1:] == _G))
    sites = sites[random.random(len(sites)) < share]
    other_strand = random.random(len(sites)) < 0.5
    codes[sites[~other_strand]] = 3
    codes[sites[other_strand] + 1] = 0


def _consensus(length_bp: int, random: np.random.Generator) -> np.ndarray:
    """A random transposon with a poly-A tail and without CG, as an old genome's are."""
    codes = random.integers(0, 4, length_bp).astype(np.uint8)
    codes[-min(POLY_A_BP, length_bp // 10) :] = 0
    _decay_cpg(codes, 1.0, random)
    return codes


def _plant_transposons(
    codes: np.ndarray, group: _Elements, families: dict[str, np.ndarray], divergence: float, random: np.random.Generator
) -> None:
    """Copies of all ages: substitutions per base spread evenly from 0 to twice the mean; the 5' end may be lost. Sets `scores`."""
    if not len(group.sizes_bp):
        return
    ages = random.uniform(0.0, 2.0 * divergence, len(group.sizes_bp))
    consensus = np.stack(list(families.values()))
    family = np.array([list(families).index(name) for name in group.names])
    ends = np.cumsum(group.sizes_bp)
    owner = np.repeat(np.arange(len(ends)), group.sizes_bp)
    from_end = ends[owner] - 1 - np.arange(ends[-1])  # distance to the right edge, 0 at the last base
    left_edge = group.sizes_bp[owner] - 1 - from_end
    # On the plus strand the 3' end is at the right; on the minus strand at the left, complemented.
    back = np.where(group.minus[owner], left_edge, from_end)
    copied = consensus[family[owner], consensus.shape[1] - 1 - back]
    mutated = random.random(len(copied)) < ages[owner]
    copied = np.where(mutated, (copied + random.integers(1, 4, len(copied))) % 4, copied)
    codes[_positions(group)] = np.where(group.minus[owner], 3 - copied, copied)
    group.scores = np.rint(ages * 1_000).astype(np.int64)


def _plant_tandem_repeats(codes: np.ndarray, group: _Elements, random: np.random.Generator) -> None:
    for start, size, minus, unit in zip(group.start, group.sizes_bp, group.minus, group.names, strict=True):
        array = np.resize(_codes(unit), size)
        mutated = random.random(size) < TANDEM_DIVERGENCE
        array = np.where(mutated, (array + random.integers(1, 4, size)) % 4, array)
        codes[start : start + size] = 3 - array[::-1] if minus else array


def _plant_promoters(codes: np.ndarray, group: _Elements, random: np.random.Generator) -> None:
    """TATA box and initiator; the base counts of each window are then restored, so that composition tells nothing."""
    windows = _read_windows(codes, group)
    for window in windows:
        before = np.bincount(window, minlength=4)
        tata_at = TSS_OFFSET + TATA_FROM_TSS + int(random.integers(-TATA_JITTER_BP, TATA_JITTER_BP, endpoint=True))
        inr_at = TSS_OFFSET + INR_FROM_TSS
        window[tata_at : tata_at + len(TATA_WORD)] = _instance(TATA_WORD, random)
        window[inr_at : inr_at + len(INR_WORD)] = _instance(INR_WORD, random)
        planted = np.zeros(len(window), dtype=bool)
        planted[tata_at : tata_at + len(TATA_WORD)] = planted[inr_at : inr_at + len(INR_WORD)] = True
        _restore_counts(window, before, planted, random)
    _write_windows(codes, group, windows)


def _restore_counts(window: np.ndarray, wanted: np.ndarray, keep: np.ndarray, random: np.random.Generator) -> None:
    """Substitute bases outside `keep` until the base counts are `wanted`, making no new CG."""
    change = np.bincount(window, minlength=4) - wanted
    missing = np.repeat(np.arange(4), np.maximum(-change, 0))
    surplus = np.repeat(np.arange(4), np.maximum(change, 0))
    for old, new in zip(surplus, random.permutation(missing), strict=True):
        places = (window == old) & ~keep
        places[:-1] &= ~((new == _C) & (window[1:] == _G))
        places[1:] &= ~((new == _G) & (window[:-1] == _C))
        places = np.flatnonzero(places)
        if len(places):
            window[random.choice(places)] = new


def _plant_ctcf(codes: np.ndarray, group: _Elements, *, bound: bool, random: np.random.Generator) -> None:
    windows = _read_windows(codes, group)
    context = _codes(CTCF_CONTEXT)
    for window in windows:
        word = context if bound else random.permutation(context)
        if not bound and (word == context).all():
            word = np.roll(word, 1)
        window[: len(word)] = word
        window[-len(CTCF_MOTIF) :] = _instance(CTCF_MOTIF, random)
    _write_windows(codes, group, windows)


def _read_windows(codes: np.ndarray, group: _Elements) -> np.ndarray:
    """Elements of one common size, read along their own strand: uint8 [n, size]."""
    width = int(group.sizes_bp[0]) if len(group.sizes_bp) else 0
    windows = codes[group.start[:, None] + np.arange(width)]
    windows[group.minus] = 3 - windows[group.minus, ::-1]
    return windows


def _write_windows(codes: np.ndarray, group: _Elements, windows: np.ndarray) -> None:
    windows = windows.copy()
    windows[group.minus] = 3 - windows[group.minus, ::-1]
    codes[group.start[:, None] + np.arange(windows.shape[1])] = windows


def _instance(word: str, random: np.random.Generator) -> np.ndarray:
    return _codes("".join(_IUPAC[symbol][int(random.integers(len(_IUPAC[symbol])))] for symbol in word))


def _codes(text: str) -> np.ndarray:
    return np.searchsorted(_LETTERS, np.frombuffer(text.encode(), dtype=np.uint8)).astype(np.uint8)


def _text(codes: np.ndarray) -> str:
    return _LETTERS[codes].tobytes().decode()


# Files


def _measured_isochores(letters: np.ndarray, settings: SyntheticSettings, lengths_bp: np.ndarray) -> _Elements:
    starts = np.concatenate(
        [a + np.arange(0, n, settings.isochore_bp) for a, n in zip(np.cumsum(lengths_bp) - lengths_bp, lengths_bp, strict=True)]
    )
    upper = letters & 0xDF
    gc = np.add.reduceat((upper == ord("C")) | (upper == ord("G")), starts, dtype=np.int64)
    bases = np.add.reduceat(upper != ord("N"), starts, dtype=np.int64)
    sizes = np.diff(np.append(starts, len(letters)))
    scores = np.rint(1_000 * gc / np.maximum(bases, 1)).astype(np.int64)
    return _Elements(sizes, np.zeros(len(starts), bool), starts, ["isochore"] * len(starts), scores)


def _write_fasta(path: Path, letters: np.ndarray, lengths_bp: np.ndarray) -> None:
    with open(path, "wb") as handle:
        start = 0
        for index, length in enumerate(int(n) for n in lengths_bp):
            handle.write(f">chr{index + 1} synthetic\n".encode())
            whole = length // LINE_BP * LINE_BP
            lines = np.full((whole // LINE_BP, LINE_BP + 1), ord("\n"), dtype=np.uint8)
            lines[:, :LINE_BP] = letters[start : start + whole].reshape(-1, LINE_BP)
            handle.write(lines.tobytes())
            if whole < length:
                handle.write(letters[start + whole : start + length].tobytes() + b"\n")
            start += length


def _write_bed(path: Path, group: _Elements, lengths_bp: np.ndarray) -> None:
    with open(path, "w") as handle:
        handle.writelines(_bed_lines(group, lengths_bp))


def _bed_lines(group: _Elements, lengths_bp: np.ndarray) -> Iterator[str]:
    ends = np.cumsum(lengths_bp)
    record = np.searchsorted(ends, group.start, side="right")
    local = group.start - (ends - lengths_bp)[record]
    for i in np.argsort(group.start, kind="stable"):
        strand = "-" if group.minus[i] else "+"
        yield f"chr{record[i] + 1}\t{local[i]}\t{local[i] + group.sizes_bp[i]}\t{group.names[i]}\t{group.scores[i]}\t{strand}\n"
