"""Speed, padding and memory of the path from the store to a batch. CPU seconds of one core; the best of several repeats.

python benchmarks/corpus.py --fasta GENOME.fa.gz             # or GROVER_DATA with yeast/R64-1-1.fa.gz
python benchmarks/corpus.py --fasta GENOME.fa.gz --large     # also memory on a store of 10**9 rows (3.2 GB of disk)
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from grover_dist.bpe.encode import encode_codes
from grover_dist.config import MaskSettings, WindowSettings, config_from
from grover_dist.corpus.batches import MaskedBatches
from grover_dist.corpus.build import build_corpus
from grover_dist.corpus.corpus import Corpus
from grover_dist.corpus.store import BATCH_ROWS, Store, part_name, write_part
from grover_dist.corpus.windows import make_windows, tile
from grover_dist.genome.contigs import ContigTable
from grover_dist.genome.split import split_blocks
from grover_dist.genome.stage import build_genome
from grover_dist.run_dir import RunDir

CYCLES = (100, 600, 5_000)
WINDOWS = 4_096
LINE = "{:<46} {:>10} {:>10} {:>10}"


def best_cpu_seconds(work: Callable[[], Any], repeats: int = 5) -> float:
    work()  # compiled, and its pages in memory
    found = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        found.append(time.process_time() - started)
    return min(found)


def learn(fasta: Path, folder: Path) -> Corpus:
    config = config_from({"genome": {"fasta": str(fasta)}, "run": {"dir": str(folder)}, "bpe": {"cycles": max(CYCLES)}})
    run = RunDir.open(config)
    return Corpus.open(build_corpus(config, run, build_genome(config, run)))


def full_windows(corpus: Corpus, cycles: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of random windows of 510 tokens."""
    table = tile(corpus.store, WindowSettings(), cycles, seed=1)
    chosen = np.random.default_rng(1).choice(np.flatnonzero(table.n_tokens == 510), WINDOWS)
    return table.row_start[chosen], table.row_stop[chosen]


def region_speed(corpus: Corpus, cycles: int) -> float:
    """Bases a second, the whole genome as one region."""
    return corpus.store.n_rows / best_cpu_seconds(lambda: corpus.ids_of_rows(0, corpus.store.n_rows, cycles), repeats=3)


def window_speed(corpus: Corpus, cycles: int) -> float:
    """Tokens a second over random windows, 64 at a time."""
    start, stop = full_windows(corpus, cycles)
    out = np.zeros((64, 512), np.int64)

    def work() -> None:
        for at in range(0, WINDOWS, 64):
            corpus.ids_of_windows(start[at : at + 64], stop[at : at + 64], cycles, out, column=1)

    return 510 * WINDOWS / best_cpu_seconds(work)


def tokenizer_speed(corpus: Corpus, cycles: int, windows: int = 256) -> float:
    """Tokens a second of Hugging Face tokenizers on the text of the same windows."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    tokenizer = corpus.vocabulary.to_tokenizer(cycles)
    letters = np.frombuffer(b"ACGT", np.uint8)
    start, stop = full_windows(corpus, cycles)
    texts = [letters[corpus.store.base(*rows)].tobytes().decode() for rows in zip(start[:windows], stop[:windows], strict=True)]
    return 510 * windows / best_cpu_seconds(lambda: tokenizer.encode_batch(texts, add_special_tokens=False), repeats=2)


def new_sequence_speed(corpus: Corpus, cycles: int) -> float:
    """Bases a second of a sequence that the store does not hold, from the merges alone."""
    codes = corpus.store.base(0, min(corpus.store.n_rows, 1 << 23))
    return len(codes) / best_cpu_seconds(lambda: encode_codes(codes, corpus.vocabulary, cycles), repeats=2)


ENCODE_MEMORY = """
import resource, sys
import numpy as np
from grover_dist.bpe.encode import encode_codes
from grover_dist.corpus.corpus import Corpus
corpus = Corpus.open(sys.argv[1])
once = corpus.store.base(0, min(corpus.store.n_rows, 1 << 23))
encode_codes(once[: 1 << 20], corpus.vocabulary, 600)
codes = np.empty(-(-int(sys.argv[2]) // len(once)) * len(once), np.uint8)
codes.reshape(-1, len(once))[:] = once
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
ids = encode_codes(codes, corpus.vocabulary, 600)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / len(codes))
"""


def new_sequence_bytes(folder: Path, bases: int = 10**8) -> float:
    """Bytes of memory a base, beside the codes, of encoding one sequence of about so many bases; the ids are among them."""
    done = subprocess.run([sys.executable, "-c", ENCODE_MEMORY, str(folder), str(bases)], check=True, capture_output=True, text=True)
    return float(done.stdout)


def batches_of(corpus: Corpus, cycles: int, batch_windows: int, micro_batch_windows: int) -> MaskedBatches:
    config = config_from({"genome": {"fasta": "-"}, "split": {"block_bp": 200_000}})
    split = split_blocks(corpus.store.contigs, config.split, 1)
    windows = make_windows(corpus.store, split, config.windows, cycles, 1)
    return MaskedBatches(corpus, windows, cycles, 1, batch_windows, micro_batch_windows, MaskSettings(fraction=0.022))


def loader_speed(corpus: Corpus, cycles: int) -> float:
    """Tokens a second of finished, masked, padded batches."""
    batches = batches_of(corpus, cycles, 256, 32)
    tokens = sum(batch.n_tokens for step in range(20) for batch in batches.step(step))
    return tokens / best_cpu_seconds(lambda: [batches.step(step) for step in range(20)], repeats=3)


def padding(corpus: Corpus, cycles: int, batch_windows: int, micro_batch_windows: int) -> float:
    batches = batches_of(corpus, cycles, batch_windows, micro_batch_windows)
    made = [batch for step in range(30) for batch in batches.step(step)]
    return 1 - sum(int(batch.attention_mask.sum()) for batch in made) / sum(batch.attention_mask.size for batch in made)


def repeat_store(store: Store, folder: Path, rows: int) -> None:
    """A store of about `rows` rows: the small one again and again, each time under other record names."""
    copies = -(-rows // store.n_rows)
    table = store.contigs.to_json()
    records = [{**record, "name": f"{record['name']}_{copy}"} for copy in range(copies) for record in table["records"]]
    numbers = [number + copy * len(table["records"]) for copy in range(copies) for number in table["record"]]
    large = {"record": numbers, "start_bp": table["start_bp"] * copies, "end_bp": table["end_bp"] * copies, "records": records}
    (folder / "store").mkdir(parents=True)
    (folder / "contigs.json").write_text(json.dumps(large))
    assert ContigTable.from_json(large).n_rows == copies * store.n_rows
    for copy in range(copies):
        pieces = [(at, min(at + BATCH_ROWS, store.n_rows)) for at in range(0, store.n_rows, BATCH_ROWS)]
        rows_of = ((store.base(*piece), store.level(*piece), store.masked(*piece)) for piece in pieces)
        write_part(folder / "store" / part_name(copy), rows_of, {"first_row": copy * store.n_rows, "learner": store.learner})


MEMORY = """
import json, sys
from benchmarks.corpus import batches_of
from grover_dist.corpus.corpus import Corpus
batches = batches_of(Corpus.open(sys.argv[1]), 600, 256, 32)
for step in range(100):
    batches.step(step)
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({key: int(status[key].split()[0]) // 1024 for key in ("RssAnon", "RssFile")} | {"windows": len(batches.windows.train)}))
"""


def memory(folder: Path) -> dict[str, int]:
    """MiB of a process that opens a store, makes its windows and 100 batches: its own (RssAnon) and mapped file pages (RssFile)."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(folder)], check=True, capture_output=True, text=True, cwd=Path(__file__).parent.parent
    )
    return json.loads(done.stdout)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("GROVER_DATA", "../shared/data")) / "yeast" / "R64-1-1.fa.gz"
    arguments.add_argument("--fasta", type=Path, default=default)
    arguments.add_argument("--large", action="store_true", help="also measure memory on a store of 10**9 rows")
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        corpus = learn(chosen.fasta, Path(folder) / "run")
        print(LINE.format("cycles", *CYCLES))
        rows: list[tuple[str, list[float], str]] = [
            ("region to ids, million bases/s", [region_speed(corpus, cycles) / 1e6 for cycles in CYCLES], ".0f"),
            ("random 510-token windows, million tokens/s", [window_speed(corpus, cycles) / 1e6 for cycles in CYCLES], ".1f"),
            ("Hugging Face tokenizers, same windows", [tokenizer_speed(corpus, cycles) / 1e6 for cycles in CYCLES], ".3f"),
            ("new sequences to ids, million bases/s", [new_sequence_speed(corpus, cycles) / 1e6 for cycles in CYCLES], ".1f"),
            ("masked padded batches, million tokens/s", [loader_speed(corpus, cycles) / 1e6 for cycles in CYCLES], ".1f"),
        ]
        rows.append(("windows over tokenizers, times", [ours / theirs for ours, theirs in zip(rows[1][1], rows[2][1], strict=True)], ".0f"))
        for batch, micro in ((64, 16), (256, 32), (1_024, 64)):
            name = f"padding share, {batch} windows in {batch // micro} forward passes, %"
            rows.append((name, [100 * padding(corpus, cycles, batch, micro) for cycles in CYCLES], ".1f"))
        for name, values, style in rows:
            print(LINE.format(name, *(format(value, style) for value in values)))
        small = corpus.store.path
        print(f"encoding a new sequence of 10**8 bases: {new_sequence_bytes(small):.1f} bytes a base beside the codes")
        print(f"memory, {corpus.store.n_rows:,} rows: {memory(small)}")
        if chosen.large:
            large = Path(folder) / "large"
            repeat_store(corpus.store, large, 10**9)
            (large / "merges.txt").write_bytes((small / "merges.txt").read_bytes())
            started = time.process_time()
            store = Store.open(large)
            print(f"opening {store.n_rows:,} rows: {time.process_time() - started:.2f} s")
            seconds = best_cpu_seconds(lambda: tile(store, WindowSettings(), 600, 1), repeats=1)
            print(f"window table of {store.n_rows:,} rows: {seconds:.1f} s")
            print(f"memory, {store.n_rows:,} rows: {memory(large)}")


if __name__ == "__main__":
    main()
