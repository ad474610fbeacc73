"""Both strand rules on real genomes: closure under reverse complement, and how far the tokens of the two strands share their boundaries.

python benchmarks/strands.py [--cycles 600] [FASTA ...]     # default: yeast and the chr22 piece from GROVER_DATA
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from grover_dist.bpe.strands import compare_strands
from grover_dist.config import config_from
from grover_dist.genome.stage import build_genome, open_genome
from grover_dist.run_dir import RunDir

DATA = Path(os.environ.get("GROVER_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
LINE = "{:<28} {:<10} {:>7} {:>8} {:>10} {:>11} {:>6} {:>13} {:>14} {:>6}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = [DATA / "yeast" / "R64-1-1.fa.gz", DATA / "human" / "hg19_chr22_1-22000000.fa.gz"]
    parser.add_argument("fasta", nargs="*", type=Path, default=default)
    parser.add_argument("--cycles", nargs="+", type=int, default=[600])
    chosen = parser.parse_args()
    names = "genome", "strand", "cycles", "closure", "agreement", "bases/token", "dead", "resync p50/99", "footprint p99", "CPU s"
    print(LINE.format(*names))
    for fasta in chosen.fasta:
        with tempfile.TemporaryDirectory() as folder:
            config = config_from({"genome": {"fasta": str(fasta)}, "run": {"dir": folder}})
            genome = open_genome(build_genome(config, RunDir.open(config), say=lambda _: None))
            started = time.process_time()
            found = compare_strands(genome.bases(0, genome.n_rows), genome.contigs.row_start[:-1], chosen.cycles)
            seconds = time.process_time() - started
        for strand, by_cycles in found.items():
            for cycles, figures in by_cycles.items():
                resync, footprint = figures["resynchronisation_bp"], figures["substitution_footprint_bp"]
                print(
                    LINE.format(
                        fasta.name, strand, cycles, f"{figures['reverse_complement_closure']:.1%}", f"{figures['boundary_agreement']:.1%}",
                        f"{figures['bases_per_token']:.3f}", figures["dead_tokens"], f"{resync['p50']:.0f} / {resync['p99']:.0f}",
                        f"{footprint['p99']:.0f}", f"{seconds:.1f}",
                    )
                )  # fmt: skip


if __name__ == "__main__":
    main()
