from __future__ import annotations

from pathlib import Path

import pytest

from grover_dist.bpe.cost import learn_seconds, partition_bytes
from grover_dist.cluster.plan import describe_plan, genome_bases, size
from grover_dist.config import load_config
from grover_dist.errors import UserError
from grover_dist.training.plan import guess_bases_per_token

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def lines(config, **more):
    return list(describe_plan(config, **({"flops_per_second": 4e14, "hardware": "h100", "cores": 64} | more)))


def test_every_candidate_has_its_line_and_hours_follow_the_hardware(tmp_path):
    with open(tmp_path / "hg19.fa", "wb") as sparse:
        sparse.truncate(3_000_000_000)
    config = load_config(CONFIGS / "human-hg19.yaml", [f"genome.fasta={tmp_path / 'hg19.fa'}"])
    slow, fast = lines(config, flops_per_second=1e14), lines(config, flops_per_second=4e14)
    assert len(slow) == 4 + len(config.pretrain.candidates) + 3 == len(fast)
    hours = [float(next(line for line in found if line.startswith("sweep")).split()[1].replace(",", "")) for found in (slow, fast)]
    assert hours[0] == pytest.approx(4 * hours[1], rel=0.01)
    six_hundred = next(line for line in fast if line.split()[0] == "600")
    assert "86,511,201" in six_hundred  # 87,101,793 with the pooler, which masked-LM training leaves out


def test_the_analyses_of_hg19_are_planned_for_eight_gpus(tmp_path):
    with open(tmp_path / "hg19.fa", "wb") as sparse:
        sparse.truncate(3_000_000_000)
    given = [f"genome.fasta={tmp_path / 'hg19.fa'}", "pretrain.candidates=[600]", "analysis.windows=1000"]
    config = load_config(CONFIGS / "human-hg19.yaml", given)
    (line,) = [line for line in lines(config) if line.startswith("analyze")]
    assert "1,000 held-out windows" in line and line.endswith("h on 8 ranks")
    tokens = 3_000_000_000 * config.split.held_out_fraction / guess_bases_per_token(600)
    # Two models, four passes, 2 operations a weight and token, and a tenth for attention at 510 tokens.
    assert float(line.split()[-5]) == pytest.approx(2 * 4 * tokens * 2 * 86e6 * 1.11 / 4e14 / 3_600 / 8, rel=0.05)


def test_the_learner_is_planned_by_its_own_constants(tmp_path):
    with open(tmp_path / "hg19.fa", "wb") as sparse:
        sparse.truncate(2_860_000_000)
    config = load_config(CONFIGS / "human-hg19.yaml", [f"genome.fasta={tmp_path / 'hg19.fa'}", "bpe.cycles=5000"])
    (line,) = [line for line in lines(config) if line.startswith("learn")]
    assert size(partition_bytes(2_860_000_000, "fast")) in line and size(partition_bytes(2_860_000_000, "lean")) in line
    assert f"about {learn_seconds(2_860_000_000, 5_000, 64):,.1f} s on 64 cores" in line


def test_bases_are_told_from_files(tmp_path):
    (tmp_path / "a.fa").write_bytes(b">a\n" + b"A" * 997)
    config = load_config(CONFIGS / "yeast.yaml", [f"genome.fasta={tmp_path / 'a.fa'}"])
    assert genome_bases(config) == 1_000
    with pytest.raises(UserError, match=r"b\.fa"):
        genome_bases(load_config(CONFIGS / "yeast.yaml", [f"genome.fasta={tmp_path / 'b.fa'}"]))


def test_sizes_are_told_in_words():
    assert [size(n) for n in (0, 999, 1_000, 2_500_000, 3e13)] == ["0 B", "999 B", "1.0 kB", "2.5 MB", "30.0 TB"]
