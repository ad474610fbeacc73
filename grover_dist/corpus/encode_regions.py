"""Tokens with their coordinates as BED, TSV or Arrow: of a region of the run's genome, or of sequences that the learner never saw."""

from __future__ import annotations

import os
import re
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


def encode_fasta(run: RunDir, path: Path, cycles: int, *, format: str = "bed", output: Path | None = None) -> int:
    """The same for every record of a FASTA or 2bit file, encoded from the merges alone; each run of A, C, G, T by itself."""
    artifact = _learned(run)
    vocabulary = Vocabulary.read(artifact.path)
    vocabulary.at(cycles)
    with _writer(format, output) as write:
        return sum(write(_table(vocabulary, *piece)) for piece in fasta_pieces(vocabulary, path, cycles))


def parse_region(corpus: Corpus, region: str) -> tuple[str, int, int]:
    """(record, start_bp, end_bp), checked against the genome."""
    contigs = corpus.store.contigs
    found = re.fullmatch(r"(.+):([\d,_]+)-([\d,_]+)", region)
    if found is None or region in contigs.record_names:
        return region, 0, contigs.record_lengths_bp[contigs.record_index(region)]
    start_bp, end_bp = (int(re.sub("[,_]", "", text)) for text in found.groups()[1:])
    contigs.check_interval(found[1], start_bp, end_bp)
    return found[1], start_bp, end_bp


Piece = tuple[str, np.ndarray, np.ndarray, np.ndarray]  # record, start_bp, end_bp, ids


def region_pieces(corpus: Corpus, record: str, start_bp: int, end_bp: int, cycles: int) -> Iterator[Piece]:
    """The region's tokens in pieces of bounded size, each token once."""
    while start_bp < end_bp:
        stop_bp = min(start_bp + _PIECE_BP, end_bp)
        tokens = corpus.tokens(record, start_bp, stop_bp, cycles)
        yield record, tokens.start_bp, tokens.end_bp, tokens.ids
        start_bp = max(stop_bp, int(tokens.end_bp[-1])) if len(tokens) else stop_bp


def fasta_pieces(vocabulary: Vocabulary, path: Path, cycles: int) -> Iterator[Piece]:
    lengths = vocabulary.lengths(cycles).astype(np.int64)
    for record in read_fasta(path):
        for start_bp, codes in runs_of_bases(record.letters):
            ids = encode_codes(codes, vocabulary, cycles)
            ends = start_bp + np.cumsum(lengths[ids])
            yield record.name, ends - lengths[ids], ends, ids


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
