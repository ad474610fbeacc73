"""Tasks from the synthetic genome's own truth: promoters against places alike with nothing planted, bound against unbound CTCF motifs.

Blocks that the genome's split holds out are the test part; some training blocks are the validation part.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from grover_dist.config import Config
from grover_dist.corpus.store import Store
from grover_dist.errors import UserError
from grover_dist.finetune.places import place_of_region, region_codes
from grover_dist.finetune.tables import Part, TaskTable, check_part
from grover_dist.genome.intervals import Intervals, read_bed
from grover_dist.genome.split import HELD_OUT, TRAIN, split_blocks
from grover_dist.run_dir import Artifact

CTCF_WINDOW_BP = 200  # around the motif: the context word that decides lies upstream of it
_VALIDATION_SHARE = 0.15  # of the training regions, by whole blocks
_FILES = {"promoter": ("non_promoters.bed", "promoters.bed"), "ctcf": ("ctcf_unbound.bed", "ctcf_bound.bed")}
_CLASSES = {"promoter": ("background", "promoter"), "ctcf": ("unbound", "bound")}


def planted_task(config: Config, kind: str, genome: Artifact, store: Store) -> TaskTable:
    """Regions of `truth/*.bed` in the genome artefact, read along their strand. Regions that cross sides of the split are left out."""
    split = split_blocks(store.contigs, config.split, config.seed)
    sequences, labels, blocks, sides = [], [], [], []
    for label, name in enumerate(_FILES[kind]):
        path = genome.file(f"truth/{name}")
        if not path.is_file():
            raise UserError(
                "the genome has no record of what was planted in it", where=path, hint="tasks with 'planted' need genome.synthetic"
            )
        regions = read_bed(path)
        if kind == "ctcf":
            regions = _widened(regions, CTCF_WINDOW_BP).inside(store.contigs)
            regions = regions.take(regions.start_bp >= 0)
        for index in range(len(regions)):
            record, start_bp, end_bp = regions.record[index], int(regions.start_bp[index]), int(regions.end_bp[index])
            block, side = place_of_region(store, split, record, start_bp, end_bp)
            if side not in (TRAIN, HELD_OUT):
                continue
            sequences.append(region_codes(store, record, start_bp, end_bp, minus=regions.strand[index] == "-", where=name))
            labels.append(label)
            blocks.append(block)
            sides.append(side)
    if not sequences:
        raise UserError(
            "the synthetic genome has none of the planted regions",
            where=f"finetune task '{kind}'",
            hint="raise genome.synthetic.promoters or ctcf_sites",
        )
    whole = Part(tuple(sequences), np.array(labels, np.int64), np.array(blocks, np.int64))
    held_out = np.array(sides) == HELD_OUT
    validation = ~held_out & np.isin(whole.group, _validation_blocks(whole.group[~held_out], config.seed))
    parts = {"train": ~held_out & ~validation, "validation": validation, "test": held_out}
    table = TaskTable(_CLASSES[kind], {name: whole.take(np.flatnonzero(chosen)) for name, chosen in parts.items()})
    for name, part in table.parts.items():
        check_part(part, table.classes, name, f"planted {kind}")
    return table


def _widened(regions: Intervals, width_bp: int) -> Intervals:
    start_bp = (regions.start_bp + regions.end_bp) // 2 - width_bp // 2
    return replace(regions, start_bp=start_bp, end_bp=start_bp + width_bp)


def _validation_blocks(blocks: np.ndarray, seed: int) -> np.ndarray:
    """Whole training blocks that hold about the wished share of the training regions, never all of them."""
    distinct, counts = np.unique(blocks, return_counts=True)
    order = np.random.Generator(np.random.Philox(key=[seed, 0x7A11])).permutation(len(distinct))
    taken = int(np.searchsorted(np.cumsum(counts[order]), _VALIDATION_SHARE * counts.sum())) + 1
    return distinct[order[: min(taken, len(distinct) - 1)]]
