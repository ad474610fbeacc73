"""The learn stage: a conversation with workers that each hold a stretch of the genome, then the store, written by the same workers."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from grover_dist.bpe.learn import WorkerGroup, call_local, learn
from grover_dist.bpe.merge_log import MergeLog
from grover_dist.bpe.partition import Partition
from grover_dist.config import Config
from grover_dist.corpus.corpus import vocabulary_digest
from grover_dist.corpus.store import BATCH_ROWS, part_name, write_part
from grover_dist.errors import UserError
from grover_dist.genome.contigs import ContigTable
from grover_dist.genome.stage import open_genome
from grover_dist.remote import Remote, in_parallel
from grover_dist.run_dir import Artifact, RunDir, Work

_SMALLEST_PART, _LARGEST_PART = 1 << 16, 1 << 24
_PARTS_WANTED = 32


def part_rows(n_rows: int) -> int:
    """Rows of a part of the store: a power of two that depends on the genome alone, so that the files do not depend on the workers."""
    return min(_LARGEST_PART, max(_SMALLEST_PART, 1 << max(0, -(-n_rows // _PARTS_WANTED) - 1).bit_length()))


def worker_ranges(n_rows: int, workers: int) -> list[tuple[int, int]]:
    """Row ranges of the workers: whole parts, as even as they allow. Fewer than `workers` where there are fewer parts."""
    size = part_rows(n_rows)
    parts = -(-n_rows // size)
    edges = np.linspace(0, parts, min(workers, parts) + 1).round().astype(int) * size
    return [(int(start), int(min(stop, n_rows))) for start, stop in pairwise(edges)]


class PartitionWorker:
    """Holds a stretch of the genome while it is learned and writes its parts of the store. Reads its rows itself, so it may live on
    any node that sees the genome's folder; whatever it holds can be rebuilt from that folder and the merges.
    """

    def __init__(self, genome_path: str, row_start: int, row_stop: int, threads: int = 1, memory: str = "auto") -> None:
        self.genome = open_genome(genome_path)
        self.row_start, self.row_stop = row_start, row_stop
        starts = self.genome.contigs.row_start[:-1]
        inside = starts[(starts > row_start) & (starts < row_stop)] - row_start
        self.partition = Partition(
            self.genome.bases(row_start, row_stop),
            inside,
            bool(np.isin(row_start, starts)),
            threads=threads,
            memory=memory,
        )

    def start(self) -> bytes:
        return self.partition.start()

    def round(self, message: bytes) -> bytes:
        return self.partition.round(message)

    def replay(self, messages: list[bytes]) -> bytes:
        return self.partition.replay(messages)

    def write_parts(self, folder: str, metadata: dict[str, Any]) -> dict[str, None]:
        """Write the store's parts of these rows into a folder; their names are the keys. Done again, it gives the same files."""
        return {path.name: None for path in self._write_parts(Path(folder), metadata)}

    def upload_parts(self, remote: Remote, metadata: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """The same into a folder of an object store, with what a manifest says of each part. One part at a time is on the local disk."""
        found = {}
        with tempfile.TemporaryDirectory(prefix="grover-dist-store-") as folder:
            for path in self._write_parts(Path(folder), metadata):
                found[path.name] = remote.put(path, path.name)
                path.unlink()
        return found

    def _write_parts(self, folder: Path, metadata: dict[str, Any]) -> Iterator[Path]:
        size = part_rows(self.genome.n_rows)
        for start in range(self.row_start, self.row_stop, size):
            stop = min(start + size, self.row_stop)
            name = part_name(start // size)
            described = {**metadata, "first_row": start, "rows": stop - start, "contigs": _contigs_of(self.genome.contigs, start, stop)}
            temporary = folder / f".{name}.tmp"
            write_part(temporary, self._batches(start, stop), described)
            os.replace(temporary, folder / name)
            yield folder / name

    def _batches(self, row_start: int, row_stop: int):
        for start in range(row_start, row_stop, BATCH_ROWS):
            stop = min(start + BATCH_ROWS, row_stop)
            level = self.partition.levels(start - self.row_start, stop - self.row_start)
            yield self.genome.bases(start, stop), level, self.genome.masked(start, stop)


def _contigs_of(contigs: ContigTable, row_start: int, row_stop: int) -> list[dict[str, Any]]:
    """The contigs that some rows belong to, as docs/formats.md describes them."""
    first, last = contigs.contig_of(np.array([row_start, row_stop - 1]))
    return [
        {
            "record": contigs.record_names[contigs.record[index]],
            "start_bp": int(contigs.start_bp[index]),
            "end_bp": int(contigs.end_bp[index]),
            "row_start": int(contigs.row_start[index]),
        }
        for index in range(first, last + 1)
    ]


def _write_store(group: WorkerGroup, workers: int, store: Path, metadata: dict[str, Any], work: Work) -> list[str]:
    """Every worker writes its parts; their names. Into an object store they go straight from the workers, and from there to this folder."""
    if work.remote is None:
        return [name for part in group.call("write_parts", [(str(store), metadata)] * workers) for name in part]
    remote = work.remote / store.name
    found = {name: described for part in group.call("upload_parts", [(remote, metadata)] * workers) for name, described in part.items()}
    in_parallel([lambda name=name: remote.get(name, store / name, found[name]) for name in found])
    work.uploaded |= {f"{store.name}/{name}": described for name, described in found.items()}
    return list(found)


def local_workers(genome_path: str, row_ranges: Sequence[tuple[int, int]]) -> list[PartitionWorker]:
    """Workers inside this process. `call_local` asks one after the other, so each may use every core."""
    return [PartitionWorker(genome_path, start, stop, threads=os.cpu_count() or 1) for start, stop in row_ranges]


def build_corpus(
    config: Config,
    run: RunDir,
    genome: Artifact,
    *,
    n_workers: int = 1,
    make_workers: Callable[[str, Sequence[tuple[int, int]]], list[Any]] = local_workers,
    call: Callable[..., list[Any]] = call_local,
    say: Callable[[str], None] = print,
) -> Artifact:
    """Stage "learn": merges.txt, vocabulary.json, contigs.json and store/part-NNNNN.arrow. The files do not depend on the workers.

    make_workers(genome_path, row_ranges): a PartitionWorker, or a handle of one, for each range; called again for a lost worker's
    range, and then with as many threads as before.
    call(workers, method, args_per_worker) reaches them. A killed stage goes on from the merges in its log. UserError where the genome
    supports fewer cycles than asked for.
    """

    def write(work: Work) -> None:
        opened = open_genome(genome)
        # Workers may have another working folder.
        genome_path, store = str(genome.path.resolve()), work.path.resolve() / "store"
        ranges = worker_ranges(opened.n_rows, n_workers)

        revivals = 0

        def revive(index: int) -> Any:
            nonlocal revivals
            revivals += 1
            if revivals > config.resources.max_failures * len(ranges):
                raise UserError(
                    "workers of the learner are lost again and again",
                    where="resources",
                    got=f"{revivals} losses",
                    hint="most often a node's memory ran out: set resources.bpe_memory=lean or more resources.bpe_actors, then run again",
                )
            return make_workers(genome_path, [ranges[index]])[0]

        group = WorkerGroup(make_workers(genome_path, ranges), call=call, revive=revive, say=say)
        with MergeLog.open(work.file("merges.log"), genome.digest, strand=config.bpe.strand, say=say) as log:
            vocabulary = learn(group, config.bpe.cycles, strand=config.bpe.strand, log=log, say=say)
        shutil.rmtree(store, ignore_errors=True)
        store.mkdir()
        metadata = {"learner": vocabulary_digest(vocabulary), "genome": genome.digest, "cycles": vocabulary.cycles}
        try:
            names = _write_store(group, len(ranges), store, metadata, work)
        except Exception:  # a full disk, perhaps: half a store helps nobody, the merges are in their log
            shutil.rmtree(store, ignore_errors=True)
            raise
        vocabulary.write(work.path)
        work.write_json("contigs.json", opened.contigs.to_json())
        work.file("merges.log").unlink()
        work.counts |= {
            "bases": opened.n_rows,
            "contigs": len(opened.contigs),
            "cycles": vocabulary.cycles,
            "parts": len(names),
            "learner": vocabulary_digest(vocabulary),
            "longest_token_bases": int(vocabulary.lengths().max()),
        }
        say(f"learn: {vocabulary.cycles:,} cycles on {opened.n_rows:,} bases, store of {len(names)} parts")

    return run.once("learn", "bpe", write, settings={"bpe": config.bpe}, inputs={"genome": genome}, resumable=True, say=say)
