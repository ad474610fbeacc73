"""Stage "kmer-task": the positions of next-k-mer prediction, the same for every candidate and every k.

The input is `input_bp` bases, the class is the next k. Input and the longest k-mer lie inside one piece of one genome block, so
that no base of an evaluation position belongs to a training block. The bases are stored, and nobody needs the genome again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from grover_dist.config import Config, SelectionSettings
from grover_dist.errors import UserError
from grover_dist.genome.split import Split, split_blocks
from grover_dist.genome.stage import Genome, open_genome
from grover_dist.run_dir import Artifact, RunDir, Work

PARTS = ("train", "validation", "held_out")
VALIDATION_FRACTION = 0.1  # of the training blocks' bases: whole blocks, for the choice of a Markov chain's order


@dataclass(frozen=True)
class Positions:
    """row int64[n]: first base of each input. block int32[n]. codes uint8[n, input_bp + longest k]: input, then what follows."""

    row: np.ndarray
    block: np.ndarray
    codes: np.ndarray
    input_bp: int

    def __len__(self) -> int:
        return len(self.row)

    @property
    def inputs(self) -> np.ndarray:
        """uint8[n, input_bp]"""
        return self.codes[:, : self.input_bp]

    def labels(self, k: int) -> np.ndarray:
        """int64[n]: the next k bases as a number to base 4, the first base the highest digit."""
        return kmer_numbers(self.codes[:, self.input_bp : self.input_bp + k])


@dataclass(frozen=True)
class KmerTask:
    train: Positions
    validation: Positions
    held_out: Positions
    validation_blocks: np.ndarray  # block ids inside the training side that `train` does not touch
    ks: tuple[int, ...]

    @classmethod
    def open(cls, artifact: Artifact) -> KmerTask:
        """Read the stage's `positions.arrow`."""
        with pa.memory_map(str(artifact.file("positions.arrow"))) as source:
            table = pa.ipc.open_file(source).read_all()
        metadata = table.schema.metadata
        input_bp, width = int(metadata[b"input_bp"]), table.schema.field("codes").type.byte_width
        part = table["part"].to_numpy()
        codes = np.frombuffer(table["codes"].combine_chunks().buffers()[1], np.uint8, len(table) * width).reshape(-1, width)
        row, block = table["row"].to_numpy(), table["block"].to_numpy()
        parts = []
        for index in range(len(PARTS)):
            first, last = np.searchsorted(part, [index, index + 1])
            parts.append(Positions(row[first:last].copy(), block[first:last].copy(), codes[first:last].copy(), input_bp))
        ks = tuple(int(k) for k in metadata[b"ks"].split(b","))
        return cls(*parts, np.unique(parts[1].block), ks)


def kmer_numbers(codes: np.ndarray) -> np.ndarray:
    """Base codes [n, k] as numbers to base 4, int64[n]."""
    powers = 4 ** np.arange(codes.shape[1] - 1, -1, -1, dtype=np.int64)
    return codes.astype(np.int64) @ powers


def build_task(config: Config, run: RunDir, genome: Artifact, say: Callable[[str], None] = print) -> Artifact:
    """Stage "kmer-task": `positions.arrow`. UserError where the blocks cannot supply the positions."""
    selection = config.selection
    settings = {
        "seed": config.seed,
        "split": config.split,
        "input_bp": selection.input_bp,
        "ks": selection.ks,
        "train_positions": selection.train_positions,
        "evaluate_positions": selection.evaluate_positions,
    }

    def write(work: Work) -> None:
        opened = open_genome(genome)
        split = split_blocks(opened.contigs, config.split, config.seed)
        parts = sample_positions(split, selection, config.seed)
        _write_positions(work, [gather_positions(opened, rows, split, selection) for rows in parts], selection.ks)
        work.counts |= {f"{name}_positions": len(rows) for name, rows in zip(PARTS, parts, strict=True)}
        work.counts |= {f"{name}_blocks": len(np.unique(split.block_of(rows))) for name, rows in zip(PARTS, parts, strict=True)}
        say(
            f"kmer-task: {len(parts[0]):,} training positions in {work.counts['train_blocks']} blocks, "
            f"{len(parts[2]):,} evaluation positions in {work.counts['held_out_blocks']} held-out blocks"
        )

    return run.once("kmer-task", "positions", write, settings=settings, inputs={"genome": genome}, say=say)


def sample_positions(split: Split, selection: SelectionSettings, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First rows of training, validation and held-out positions, each sorted and without repeats.

    Uniform over all rows from which input and longest k-mer fit into one piece. Validation takes whole training blocks.
    """
    span_bp = selection.input_bp + max(selection.ks)
    starts = np.maximum(np.diff(split.row_edges) - span_bp + 1, 0)  # per piece
    generator = np.random.Generator(np.random.Philox(key=[seed, 0x9057]))
    train_blocks = np.unique(split.piece_block[~split.piece_held_out & (starts > 0)])
    held_out_blocks = np.unique(split.piece_block[split.piece_held_out & (starts > 0)])
    if len(train_blocks) < 2 or len(held_out_blocks) < 2:
        raise UserError(
            "next-k-mer prediction needs at least two training blocks and two held-out blocks with room for an input",
            where="split.block_bp",
            got=f"{len(train_blocks)} training and {len(held_out_blocks)} held-out blocks with {span_bp} bases in one piece",
            hint="make split.block_bp smaller or split.held_out_fraction larger, or hold out more records",
        )
    shuffled = generator.permutation(train_blocks)
    block_starts = np.bincount(split.piece_block, weights=starts, minlength=len(split.held_out))[shuffled]
    taken = int(np.searchsorted(np.cumsum(block_starts), VALIDATION_FRACTION * block_starts.sum())) + 1
    in_validation = np.isin(split.piece_block, shuffled[: min(taken, len(shuffled) - 1)])
    in_train = ~split.piece_held_out & ~in_validation
    validation_positions = int(min(selection.evaluate_positions, starts[in_validation].sum()))
    return (
        _sample(split.row_edges, starts * in_train, selection.train_positions, "training", generator),
        _sample(split.row_edges, starts * in_validation, validation_positions, "validation", generator),
        _sample(split.row_edges, starts * split.piece_held_out, selection.evaluate_positions, "held-out", generator),
    )


def _sample(row_edges: np.ndarray, starts: np.ndarray, count: int, side: str, generator: np.random.Generator) -> np.ndarray:
    total = int(starts.sum())
    if total < count:
        setting = "selection.train_positions" if side == "training" else "selection.evaluate_positions"
        raise UserError(
            f"the {side} blocks cannot supply the positions of next-k-mer prediction",
            where=setting,
            got=f"{count:,} positions wanted, {total:,} possible",
            hint=f"set {setting} to at most {total:,}, or change split.block_bp or split.held_out_fraction",
        )
    before = np.concatenate(([0], np.cumsum(starts)))
    chosen = np.sort(generator.choice(total, size=count, replace=False))
    piece = np.searchsorted(before, chosen, side="right") - 1
    return (row_edges[piece] + chosen - before[piece]).astype(np.int64)


def gather_positions(genome: Genome, rows: np.ndarray, split: Split, selection: SelectionSettings) -> Positions:
    """The bases of sorted `rows`, and their blocks."""
    span_bp = selection.input_bp + max(selection.ks)
    codes = np.empty((len(rows), span_bp), np.uint8)
    for index, row in enumerate(rows.tolist()):
        codes[index] = genome.bases(row, row + span_bp)
    return Positions(rows, split.block_of(rows).astype(np.int32), codes, selection.input_bp)


def _write_positions(work: Work, parts: Sequence[Positions], ks: Sequence[int]) -> None:
    width = parts[0].codes.shape[1]
    codes = np.ascontiguousarray(np.concatenate([part.codes for part in parts]))
    column = pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(codes), [None, pa.py_buffer(codes)])
    table = pa.table(
        {
            "part": np.repeat(np.arange(len(parts), dtype=np.uint8), [len(part) for part in parts]),
            "row": np.concatenate([part.row for part in parts]),
            "block": np.concatenate([part.block for part in parts]),
            "codes": column,
        }
    ).replace_schema_metadata({"input_bp": str(parts[0].input_bp), "ks": ",".join(map(str, ks)), "parts": ",".join(PARTS)})
    with pa.OSFile(str(work.file("positions.arrow")), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
