"""The learner against its peers: CPU and wall seconds of learning, and bytes a base at the peak, in one table.

python benchmarks/learn.py                                  # all systems that can be imported; the others are named and skipped
python benchmarks/learn.py --peer-python VENV/bin/python    # peers from an environment of their own
python benchmarks/learn.py --inputs real-13 --cycles 600 --repeats 3 --systems ours lean sentencepiece
python benchmarks/learn.py --two-cores --repeats 8          # what a second core brings, in turns, beside what this machine can give

Every measurement runs in a process of its own, on one thread unless the row says otherwise; the best of the repeats is kept. What is timed
is learning only: no imports, no compilation (a small genome is learned first), no reading of the genome by us. Real DNA is the chr22 piece
and yeast from GROVER_DATA as one unbroken sequence; peers that cannot take one get words of 1,000 bases, which spares them work.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

WORD_BASES = 1_000
PEERS = ("sentencepiece", "youtokentome", "rustbpe", "tokenizers")
OURS = ("ours", "lean", "threads-2", "processes-2")
LINE = "{:<12} {:>6} {:<14} {:>9} {:>9} {:>12} {:>10}"


def real_genome(data: Path) -> np.ndarray:
    """13 Mb: A, C, G, T of the chr22 piece, then of yeast."""
    import gzip

    lut = np.full(256, 255, np.uint8)
    for code, base in enumerate(b"ACGT"):
        lut[base] = lut[base + 32] = code
    codes = []
    for name in ("human/hg19_chr22_1-22000000.fa.gz", "yeast/R64-1-1.fa.gz"):
        with gzip.open(data / name) as handle:
            lines = [line.strip() for line in handle if not line.startswith(b">")]
        found = lut[np.frombuffer(b"".join(lines), np.uint8)]
        codes.append(found[found < 4])
    return np.concatenate(codes)[:13_000_000]


def synthetic_genome(n: int) -> np.ndarray:
    """Half of it diverged copies of 40 families of 300 to 6,000 bases, a twentieth tandem repeats, the rest random with 41 % GC."""
    rng = np.random.default_rng(20)
    codes = rng.choice(4, n, p=[0.295, 0.205, 0.205, 0.295]).astype(np.uint8)
    families = [rng.choice(4, int(length), p=[0.3, 0.2, 0.2, 0.3]).astype(np.uint8) for length in rng.integers(300, 6_000, 40)]
    filled = 0
    while filled < 0.5 * n:
        copy = families[rng.integers(40) if rng.random() < 0.3 else 0].copy()
        changed = rng.random(len(copy)) < rng.uniform(0.02, 0.2)
        copy[changed] = rng.integers(0, 4, int(changed.sum()))
        at = int(rng.integers(0, n - len(copy)))
        codes[at : at + len(copy)] = copy
        filled += len(copy)
    for _ in range(n // 20 // 60):
        at = int(rng.integers(0, n - 60))
        codes[at : at + 60] = np.tile(rng.integers(0, 4, rng.integers(1, 7)), 60)[:60]
    return codes


def measured(work: Callable[[], object]) -> dict[str, float]:
    """CPU and wall seconds of one call, and by how many bytes the process grew at its peak."""
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again
    before, started = _memory("VmRSS"), time.perf_counter()
    cpu = _cpu(resource.RUSAGE_SELF)
    work()
    return {"wall": time.perf_counter() - started, "cpu": _cpu(resource.RUSAGE_SELF) - cpu, "bytes": _memory("VmHWM") - before}


def _cpu(who: int) -> float:
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def _memory(field: str) -> int:
    return next(1024 * int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field + ":"))


def measure_ours(system: str, path: Path, cycles: int) -> dict[str, float]:
    from grover_dist.bpe.learn import learn
    from grover_dist.bpe.partition import Partition

    options = {"memory": "lean"} if system == "lean" else {"threads": 2} if system == "threads-2" else {}
    warm = np.random.default_rng(0).integers(0, 4, 30_000).astype(np.uint8)
    learn([Partition(warm, [], True, **options), Partition(warm, [], False, **options)], 100)
    if system == "processes-2":
        return measure_processes(path, cycles)
    codes = [np.load(path)]
    rounds = []

    def work() -> None:
        learn([Partition(codes.pop(), [], True, **options)], cycles, on_round=lambda number, learned: rounds.append(number))

    return {**measured(work), "rounds": len(rounds)}


def serve(pipe, path: Path, part: int) -> None:
    """One worker process: half of the genome."""
    from grover_dist.bpe.partition import Partition

    warm = Partition(np.random.default_rng(0).integers(0, 4, 30_000).astype(np.uint8), [], True)
    from grover_dist.bpe.learn import learn

    learn([warm], 100)
    codes = np.load(path)
    half = len(codes) // 2
    pipe.send("ready")
    pipe.recv()
    cpu = _cpu(resource.RUSAGE_SELF)
    partition = Partition(codes[:half] if part == 0 else codes[half:], [], part == 0)
    while (message := pipe.recv_bytes()) != b"end":
        pipe.send_bytes(partition.round(message) if message else partition.start())
    pipe.send(_cpu(resource.RUSAGE_SELF) - cpu)


def measure_processes(path: Path, cycles: int) -> dict[str, float]:
    from grover_dist.bpe.learn import learn

    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for part in range(2):
        here, there = context.Pipe()
        processes.append(context.Process(target=serve, args=(there, path, part), daemon=True))
        processes[-1].start()
        pipes.append(here)
    for pipe in pipes:
        pipe.recv()

    def call(workers, method, args):
        for pipe, arguments in zip(workers, args, strict=True):
            pipe.send_bytes(*arguments) if arguments else pipe.send_bytes(b"")
        return [pipe.recv_bytes() for pipe in workers]

    for pipe in pipes:
        pipe.send("go")
    found = measured(lambda: learn(pipes, cycles, call=call))
    for pipe in pipes:
        pipe.send_bytes(b"end")
        found["cpu"] += pipe.recv()
    return {**found, "bytes": float("nan")}


def measure_peer(system: str, path: Path, cycles: int) -> dict[str, float]:
    text = np.frombuffer(b"ACGT", np.uint8)[np.load(path)].tobytes().decode()
    words = [text[at : at + WORD_BASES] for at in range(0, len(text), WORD_BASES)]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "genome.txt"
        if system == "tokenizers":
            from tokenizers import Tokenizer, models, trainers

            trainer = trainers.BpeTrainer(vocab_size=4 + cycles, show_progress=False, initial_alphabet=list("ACGT"))
            del text
            return measured(lambda: Tokenizer(models.BPE()).train_from_iterator(words, trainer))
        if system == "rustbpe":
            import rustbpe

            del text
            return measured(lambda: rustbpe.Tokenizer().train_from_iterator(words, 256 + cycles))
        if system == "youtokentome":
            import youtokentome

            file.write_text(text + "\n")
            del text
            return measured(
                lambda: youtokentome.BPE.train(data=str(file), model=str(file) + ".model", vocab_size=cycles + 9, coverage=1.0, n_threads=1)
            )
        import sentencepiece

        file.write_text("\n".join(words) + "\n")
        del text
        return measured(
            lambda: sentencepiece.SentencePieceTrainer.train(
                input=str(file), model_prefix=str(file), model_type="bpe", vocab_size=cycles + 7, character_coverage=1.0, num_threads=1,
                max_sentence_length=2 * WORD_BASES, max_sentencepiece_length=512, add_dummy_prefix=False, split_by_whitespace=False,
                normalization_rule_name="identity", minloglevel=2, hard_vocab_limit=False,
            )
        )  # fmt: skip


def two_cores(path: Path, cycles: int, repeats: int) -> dict[str, list[float]]:
    """Wall seconds of one thread, of two, and of two processes that each learn a half and never speak to each other, taken in turns.
    The last is what two cores of this machine can do at all: they share caches, memory and often a host.
    """
    context = multiprocessing.get_context("spawn")
    pipes = []
    for part in range(2):
        here, there = context.Pipe()
        context.Process(target=learn_half, args=(there, path, part, cycles), daemon=True).start()
        pipes.append(here)
    for pipe in pipes:
        pipe.recv()
    measure_ours("threads-2", path, 16)  # compiled, and the genome is in the cache
    found: dict[str, list[float]] = {"one thread": [], "two threads": [], "two free halves": []}
    for _ in range(repeats):
        found["one thread"].append(measure_ours("ours", path, cycles)["wall"])
        found["two threads"].append(measure_ours("threads-2", path, cycles)["wall"])
        for pipe in pipes:
            pipe.send("go")
        found["two free halves"].append(max(pipe.recv() for pipe in pipes))
    for pipe in pipes:
        pipe.send("end")
    return found


def learn_half(pipe, path: Path, part: int, cycles: int) -> None:
    codes = np.load(path)
    half = len(codes) // 2
    np.save(own := path.with_suffix(f".{part}.npy"), codes[:half] if part == 0 else codes[half:])
    del codes
    measure_ours("ours", own, 16)
    pipe.send("ready")
    while pipe.recv() == "go":
        pipe.send(measure_ours("ours", own, cycles)["wall"])


def run_one(python: str, system: str, path: Path, cycles: int) -> dict[str, float] | str:
    """One measurement in a process of its own; the reason where there is none."""
    environment = {
        **os.environ,
        "RAYON_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": "1",
        "NUMBA_NUM_THREADS": "1",
    }
    done = subprocess.run([python, __file__, "--one", system, str(path), str(cycles)], capture_output=True, text=True, env=environment)
    if done.returncode:
        return done.stderr.strip().splitlines()[-1]
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("GROVER_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    )
    parser.add_argument("--inputs", nargs="+", default=["real-13", "synthetic-50"])
    parser.add_argument("--cycles", nargs="+", type=int, default=[600, 5_000])
    parser.add_argument("--systems", nargs="+", default=[*OURS, *PEERS])
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--two-cores", action="store_true")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        system, path, cycles = options.one[0], Path(options.one[1]), int(options.one[2])
        print(json.dumps((measure_ours if system in OURS else measure_peer)(system, path, cycles)))
        return
    if options.two_cores:
        with tempfile.TemporaryDirectory() as folder:
            np.save(path := Path(folder) / "genome.npy", synthetic_genome(50_000_000))
            for cycles in options.cycles:
                found = two_cores(path, cycles, options.repeats)
                alone = np.array(found["one thread"])
                for name, walls in found.items():
                    ratio = np.median(alone / np.array(walls))
                    print(f"synthetic-50 {cycles:>6} {name:<16} median wall {np.median(walls):.2f} s, best {min(walls):.2f} s,", end=" ")
                    print(f"speed-up {ratio:.2f} (median of {options.repeats}), best to best {alone.min() / min(walls):.2f}", flush=True)
        return
    print(LINE.format("input", "cycles", "system", "CPU s", "wall s", "bytes/base", "CPU/ours"))
    with tempfile.TemporaryDirectory() as folder:
        for name in options.inputs:
            kind, megabases = name.split("-")
            codes = real_genome(options.data) if kind == "real" else synthetic_genome(int(megabases) * 1_000_000)
            path = Path(folder) / f"{name}.npy"
            np.save(path, codes)
            for cycles in options.cycles:
                ours = None
                for system in options.systems:
                    python = sys.executable if system in OURS else options.peer_python
                    runs = [run_one(python, system, path, cycles) for _ in range(options.repeats)]
                    if isinstance(runs[0], str):
                        print(LINE.format(name, cycles, system, "skipped:", runs[0], "", ""), flush=True)
                        continue
                    best = min(runs, key=lambda run: run["cpu"])
                    wall = min(run["wall"] for run in runs)
                    ours = best["cpu"] if system == "ours" else ours
                    ratio = f"{best['cpu'] / ours:.1f}" if ours else ""
                    cells = f"{best['cpu']:.2f}", f"{wall:.2f}", f"{best['bytes'] / len(codes):.1f}", ratio
                    print(LINE.format(name, cycles, system, *cells), flush=True)


if __name__ == "__main__":
    main()
