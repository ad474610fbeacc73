import json

import pytest
import torch

from grover_dist.training.metrics import MetricsWriter, Throughput, peak_memory_bytes
from grover_dist.training.plan import rank_peak_flops


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def test_rates_leave_out_pauses_and_know_what_was_waited_for():
    clock = Clock()
    speed = Throughput(clock)
    for _ in range(4):
        with speed.waiting():
            clock.now += 0.5
        clock.now += 2.0
        speed.add(tokens=1_000, bases=4_000, positions=1_100, padding=44)
    with speed.paused():
        clock.now += 1_000.0
    assert speed.read() == pytest.approx(
        {
            "tokens_per_second": 400.0,
            "bases_per_second": 1_600.0,
            "seconds_per_step": 2.5,
            "loader_wait_share": 0.2,
            "padding_share": 0.04,
        }
    )
    speed.restart()
    clock.now += 1.0
    speed.add(tokens=70, bases=280)
    assert speed.read()["tokens_per_second"] == pytest.approx(70.0)


def test_lines_after_the_checkpoint_and_broken_lines_are_dropped(tmp_path):
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    writer = MetricsWriter(first, second, labels={"steps": 9})
    for step in (1, 2, 3):
        writer.write(step, loss=step / 2)
    with open(first, "a") as handle:
        handle.write('{"step": 1, "lo')
    writer.begin(2)
    writer.write(3, loss=7.0)
    expected = [(1, 0.5), (2, 1.0), (3, 7.0)]
    for path in (first, second):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert [(row["step"], row["loss"]) for row in rows] == expected
        assert rows[0] == {"steps": 9, "step": 1, "loss": 0.5}


def test_mfu_is_what_the_model_costs_over_what_the_ranks_could_do():
    clock = Clock()
    speed = Throughput(clock, flops_per_token=5e8, peak_flops=2e12)
    speed.add(tokens=3_000, bases=1)
    clock.now += 2.0
    assert speed.read()["mfu"] == pytest.approx(1_500 * 5e8 / 2e12)


def test_peak_flops_are_set_or_measured():
    assert rank_peak_flops(7e12) == (7e12, "tracking.peak_flops")
    measured, source = rank_peak_flops("auto")
    assert measured > 1e8 and (torch.cuda.is_available() or "measured" in source)


def test_peak_memory_grows_with_what_is_held():
    before = peak_memory_bytes(torch.device("cpu"))
    held = bytearray(before + 100_000_000)
    assert peak_memory_bytes(torch.device("cpu")) > before + 50_000_000
    del held
