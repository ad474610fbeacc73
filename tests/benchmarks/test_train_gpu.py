"""The benchmark that waits for a GPU runs to its end anywhere, on a model of two small layers, without Ray."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.train_gpu import VARIANTS

REPOSITORY = Path(__file__).resolve().parents[2]
SMALL = ["--layers", "1", "--hidden", "32", "--windows", "2", "--micro-batch", "1", "--steps", "1"]
WITHOUT_RAY = (
    "import sys; sys.modules['ray'] = None; from benchmarks import train_gpu; train_gpu.Ranks.end_process(train_gpu.main(sys.argv[1:]))"
)


def test_every_variant_gives_a_row():
    command = [sys.executable, "-c", WITHOUT_RAY.replace("train_gpu;", "train_gpu; train_gpu.WARM_STEPS = 1;", 1), *SMALL]
    # Without a compiler on the path the compiled variants say so, and cost no minute.
    environment = {**os.environ, "PATH": "", "CXX": ""}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines() if line.startswith("| ")][1:]
    assert [row[0] for row in rows] == [variant.name for variant in VARIANTS]
    for variant, row in zip(VARIANTS, rows, strict=True):
        if variant.compiled:
            assert "C++ compiler" in row[1]
            continue
        assert len(row) == 10 and float(row[1].replace(",", "")) > 0 and row[2].endswith("%")
        shares = [float(share.rstrip("%")) for share in row[6:] if share]
        assert 80 <= sum(shares) <= 102 if not variant.loop else len(shares) == 1


def test_without_a_gpu_the_papers_size_is_refused():
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    from benchmarks.train_gpu import main

    assert main([]) == 2
