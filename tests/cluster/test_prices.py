from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from grover_dist.cli import app
from grover_dist.cluster.plan import plan_candidates
from grover_dist.cluster.prices import SHIPPED, MachinePrice, describe_money, read_prices, sweep_money
from grover_dist.config import load_config
from grover_dist.errors import UserError
from grover_dist.training.plan import GPU_PEAK_FLOPS

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def planned(*overrides):
    config = load_config(CONFIGS / "smoke.yaml", overrides)
    return config, plan_candidates(config, flops_per_second=1e9)


def test_the_shipped_table_is_dated_and_names_gpus_that_plan_knows():
    prices = read_prices(None)
    assert prices.date.year >= 2026 and prices.currency == "USD"
    assert {machine.gpu for machine in prices.machines.values() if machine.gpu} <= set(GPU_PEAK_FLOPS)
    assert all(bool(machine.gpus) == (machine.gpu is not None) for machine in prices.machines.values())


@pytest.mark.parametrize(
    ("ranks", "gpus_per_rank", "share"),
    [(1, 1, 1 / 4), (2, 1, 1 / 2), (3, 1, 1), (4, 1, 1), (5, 1, 2), (8, 1, 2), (1, 0.5, 1 / 8), (1, 2, 1 / 2)],
)
def test_machines_are_paid_whole(ranks, gpus_per_rank, share):
    config, candidates = planned(f"resources.ranks_per_candidate={ranks}", f"resources.gpus_per_rank={gpus_per_rank}")
    four = MachinePrice(gpu="l4", gpus=4, cpus=48, per_hour=10.0)
    found = sweep_money(config, candidates, four, read_prices(None))
    hours = sum(candidate.hours for candidate in candidates)
    assert found.machine_hours == pytest.approx(hours * share) and found.workers == pytest.approx(10 * hours * share)
    assert found.machines == max(1, round(len(candidates) * share + 0.49))
    assert found.hours == max(candidate.hours for candidate in candidates)


def test_a_rank_that_no_machine_holds_is_said():
    config, candidates = planned("resources.gpus_per_rank=9")
    lines = list(describe_money(config, candidates, read_prices(None), hardware="l4", machine="g6.12xlarge"))
    assert "a rank does not fit" in lines[1]


def test_a_table_of_ones_own_replaces_the_shipped_one(tmp_path):
    own = tmp_path / "prices.yaml"
    own.write_text(
        "date: 2030-01-02\ncurrency: EUR\nsource: our own cluster\nmachines:\n  box: {gpu: h100, gpus: 8, cpus: 64, per_hour: 5.0}\n"
    )
    said = CliRunner().invoke(app, ["plan", str(CONFIGS / "smoke.yaml"), f"resources.prices={own}", "--hardware", "h100"]).output
    assert "our own cluster, noted 2030-01-02" in said and "box (8 h100, 5.00 EUR an hour)" in said and "USD" not in said
    assert "until `terraform destroy`" not in said


def test_plan_prints_money_for_every_machine_with_the_gpu_or_for_the_named_one():
    said = CliRunner().invoke(app, ["plan", str(CONFIGS / "smoke.yaml"), "--hardware", "l4"]).output
    assert [name in said for name in ("g6.xlarge", "g6.12xlarge", "p5.48xlarge")] == [True, True, False]
    named = CliRunner().invoke(app, ["plan", str(CONFIGS / "smoke.yaml"), "--machine", "p4d.24xlarge"]).output
    assert "a100 at 40%" in named and "p4d.24xlarge (8 a100, 21.96 USD an hour)" in named and "g6" not in named
    assert "USD a day (head disk, NAT gateway, and what is stored)" in named


@pytest.mark.parametrize(
    ("text", "fault"),
    [("date: soon\n", "date"), ("- a\n", "valid dictionary"), ("date: [\n", "not valid YAML")],
)
def test_a_table_that_is_wrong_is_refused_with_its_faults(tmp_path, text, fault):
    own = tmp_path / "prices.yaml"
    own.write_text(text)
    with pytest.raises(UserError, match=fault):
        read_prices(own)


def test_an_unknown_machine_is_refused_with_the_nearest():
    with pytest.raises(UserError, match=r"g6\.12xlarge"):
        read_prices(None).machine("g6.12large")
    with pytest.raises(UserError, match="cannot be read"):
        read_prices(SHIPPED.with_name("none.yaml"))
