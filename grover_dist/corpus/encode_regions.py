"""Tokens with their coordinates as BED, TSV or Arrow: of a region of the run's genome, or of sequences that the learner never saw."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv

from grover_dist.bpe.encode import encode_codes
from grover_dist.bpe.vocabulary import Vocabulary
from grover_dist.corpus.corpus import Corpus
from grover_dist.errors import UserError
from grover_dist.genome.fasta import read_fasta
from grover_dist.genome.region import RegionLetters, read_region, split_region
from grover_dist.genome.stage import runs_of_bases
from grover_dist.run_dir import Artifact, RunDir

FORMATS = ("bed", "tsv", "arrow")
SCHEMA = pa.schema(
    [
        pa.field("record", pa.string()),
        pa.field("start_bp", pa.int64()),
        pa.field("end_bp", pa.int64()),
        pa.field("token", pa.string()),
        pa.field("id", pa.uint16()),
    ]
)
_PIECE_BP = 1 << 22
_PIECE_TOKENS = 1 << 20
_DEFAULT_FLANK_BP = 256


def encode_region(run: RunDir, region: str, cycles: int, *, format: str = "bed", output: Path | None = None) -> int:
    """Write the tokens that overlap "RECORD" or "RECORD:START-END" (0-based, half-open); returns how many.

    The first and the last token may reach past the region. Letters other than A, C, G, T have no token. UserError for a region that is
    outside, reversed or unknown, and for a vocabulary that was not learned.
    """
    corpus = Corpus.open(_learned(run))
    corpus.check_cycles(cycles)
    record, start_bp, end_bp = parse_region(corpus, region)
    with _writer(format, output) as write:
        return sum(write(_table(corpus.vocabulary, *piece)) for piece in region_pieces(corpus, record, start_bp, end_bp, cycles))


def encode_fasta(
    run: RunDir,
    path: Path,
    cycles: int,
    *,
    region: str | None = None,
    format: str = "bed",
    output: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> int:
    """The same for every record of a FASTA or 2bit file, encoded from the merges alone; each run of A, C, G, T by itself.

    region: only the tokens that overlap it. They are those of the whole record, though only the region is encoded, with as much around
    it as tokens depend on their surroundings (see `cut_out`). say: is told of letters without a token.
    """
    artifact = _learned(run)
    vocabulary = Vocabulary.read(artifact.path)
    vocabulary.at(cycles)
    if region is None:
        pieces = fasta_pieces(vocabulary, path, cycles, say)
    else:
        record = read_region(path, region)
        pieces = cut_out(vocabulary, record, cycles, flank_bp(run, artifact, cycles), say)
    with _writer(format, output) as write:
        return sum(write(_table(vocabulary, *piece)) for piece in pieces)


def parse_region(corpus: Corpus, region: str) -> tuple[str, int, int]:
    """(record, start_bp, end_bp), checked against the genome."""
    contigs = corpus.store.contigs
    named = None if region in contigs.record_names else split_region(region)
    if named is None:
        return region, 0, contigs.record_lengths_bp[contigs.record_index(region)]
    contigs.check_interval(*named)
    return named


Piece = tuple[str, np.ndarray, np.ndarray, np.ndarray]  # record, start_bp, end_bp, ids


def region_pieces(corpus: Corpus, record: str, start_bp: int, end_bp: int, cycles: int) -> Iterator[Piece]:
    """The region's tokens in pieces of bounded size, each token once."""
    while start_bp < end_bp:
        stop_bp = min(start_bp + _PIECE_BP, end_bp)
        tokens = corpus.tokens(record, start_bp, stop_bp, cycles)
        yield record, tokens.start_bp, tokens.end_bp, tokens.ids
        start_bp = max(stop_bp, int(tokens.end_bp[-1])) if len(tokens) else stop_bp


def fasta_pieces(vocabulary: Vocabulary, path: Path, cycles: int, say: Callable[[str], None] = lambda _: None) -> Iterator[Piece]:
    """Every record's tokens in pieces of bounded size."""
    lengths = vocabulary.lengths(cycles).astype(np.int64)
    for record in read_fasta(path):
        tell_of_others(record.name, record.letters, say)
        for start_bp, codes in runs_of_bases(record.letters):
            ids = encode_codes(codes, vocabulary, cycles)
            for at in range(0, len(ids), _PIECE_TOKENS):
                piece = ids[at : at + _PIECE_TOKENS]
                ends = start_bp + np.cumsum(lengths[piece])
                yield record.name, ends - lengths[piece], ends, piece
                start_bp = int(ends[-1])


def tell_of_others(name: str, letters: np.ndarray, say: Callable[[str], None]) -> None:
    """Letters that have no token are never dropped without a word."""
    counts = np.bincount(letters & 0xDF, minlength=128)  # as upper case
    others = {chr(letter): int(counts[letter]) for letter in np.flatnonzero(counts) if chr(letter) not in "ACGT"}
    if others:
        named = ", ".join(f"{count:,} {letter}" for letter, count in others.items())
        say(f"record '{name}': {named}: no token; each ends the sequence before it")


def flank_bp(run: RunDir, learned: Artifact, cycles: int) -> int:
    """How far around a cut-out piece to encode, at first: the farthest that a cut reaches in 99 of 100 pieces, by the health report of the
    nearest vocabulary that is not smaller, else of the largest; a default where the run has none yet.
    """
    health = run.latest("health")
    if health is None or health.manifest["inputs"].get("learn") != learned.digest:
        return _DEFAULT_FLANK_BP
    found = json.loads(health.file("health.json").read_text())
    measured = {int(size): figures["resynchronisation_bp"] for size, figures in found.items() if figures["resynchronisation_bp"]}
    if not measured:
        return _DEFAULT_FLANK_BP
    nearest_size = min((size for size in measured if size >= cycles), default=max(measured))
    return max(1, math.ceil(measured[nearest_size]["p99"]))


def cut_out(
    vocabulary: Vocabulary, piece: RegionLetters, cycles: int, flank: int, say: Callable[[str], None] = lambda _: None
) -> Iterator[Piece]:
    """The tokens that overlap a region, as the whole record has them. The flank is encoded too and trimmed off; it is doubled until twice
    the flank gives the same tokens, or the ends of the run of A, C, G, T are reached.
    """
    lengths = vocabulary.lengths(cycles).astype(np.int64)
    start_bp, end_bp = piece.start_bp, piece.end_bp
    tell_of_others(piece.record, piece.letters(start_bp, end_bp), say)

    def tokens(flank: int) -> tuple[np.ndarray, np.ndarray, bool]:
        low, high = max(0, start_bp - flank), min(piece.length_bp, end_bp + flank)
        found_ids, found_ends = [], []
        whole = True
        runs = list(runs_of_bases(piece.letters(low, high)))
        for offset, codes in runs:
            first, last = low + offset, low + offset + len(codes)
            if last <= start_bp or first >= end_bp:
                continue
            whole = whole and (first > low or low == 0) and (last < high or high == piece.length_bp)
            ids = encode_codes(codes, vocabulary, cycles)
            ends = first + np.cumsum(lengths[ids])
            inside = (ends > start_bp) & (ends - lengths[ids] < end_bp)
            found_ids.append(ids[inside])
            found_ends.append(ends[inside])
        empty = [np.empty(0, np.int64)]
        return np.concatenate(found_ids or [np.empty(0, np.uint16)]), np.concatenate(found_ends or empty), whole

    found = tokens(flank)
    while not found[2]:
        flank *= 2
        wider = tokens(flank)
        same = np.array_equal(found[0], wider[0]) and np.array_equal(found[1], wider[1])
        found = wider
        if same:
            break
    ids, ends, _ = found
    yield piece.record, ends - lengths[ids], ends, ids


def _learned(run: RunDir) -> Artifact:
    artifact = run.latest("learn")
    if artifact is None:
        raise UserError("the run has no vocabulary yet", where=run.address, hint="run `grover-dist learn CONFIG` first")
    return artifact


def _table(vocabulary: Vocabulary, record: str, start_bp: np.ndarray, end_bp: np.ndarray, ids: np.ndarray) -> pa.Table:
    strings = pa.array(vocabulary.strings()).take(pa.array(ids))
    names = pa.repeat(record, len(ids))
    return pa.table([names, pa.array(start_bp), pa.array(end_bp), strings, pa.array(ids)], schema=SCHEMA)


@contextmanager
def _writer(format: str, output: Path | None) -> Iterator[Callable[[pa.Table], int]]:
    """A function that writes a table and returns its rows. A file appears under its name only when all is written."""
    if format not in FORMATS:
        raise UserError("unknown output format", where="--format", got=format, expected=", ".join(FORMATS))
    schema = pa.schema(list(SCHEMA)[:4]) if format == "bed" else SCHEMA
    temporary = output.with_name(f".{output.name}.{os.getpid()}.tmp") if output is not None else None
    try:
        with open(temporary, "wb") if temporary is not None else _kept_open(sys.stdout.buffer) as sink:
            if format == "arrow":
                writer: Any = pa.ipc.new_file(sink, schema)
            else:
                options = pa.csv.WriteOptions(include_header=format == "tsv", delimiter="\t", quoting_style="none", quoting_header="none")
                writer = pa.csv.CSVWriter(sink, schema, write_options=options)

            def write(table: pa.Table) -> int:
                if table.num_rows:
                    writer.write_table(table.select(schema.names))
                return table.num_rows

            with writer:
                yield write
        if temporary is not None:
            os.replace(temporary, output)
    except OSError as error:
        raise UserError(f"the tokens cannot be written: {error.strerror or error}", where=output or "standard output") from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextmanager
def _kept_open(stream):
    yield stream
    stream.flush()
