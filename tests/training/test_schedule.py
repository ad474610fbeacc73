import pytest
from hypothesis import given
from hypothesis import strategies as st

from grover_dist.config import OptimizerSettings
from grover_dist.training.schedule import Schedule

fractions = st.floats(0, 1)


@given(total=st.integers(1, 300), warmup=fractions, decay=fractions, kind=st.sampled_from(["stable", "linear"]))
def test_rate_rises_stays_and_falls(total, warmup, decay, kind):
    schedule = Schedule.of(OptimizerSettings(learning_rate=2.0, schedule=kind, warmup_fraction=warmup, decay_fraction=decay), total)
    rates = [schedule.rate(step) for step in range(total)]
    assert all(0 < rate <= 2.0 for rate in rates)
    assert rates[: schedule.warmup_steps] == sorted(rates[: schedule.warmup_steps])
    assert rates[schedule.decay_start :] == sorted(rates[schedule.decay_start :], reverse=True)
    assert set(rates[schedule.warmup_steps : schedule.decay_start]) <= {2.0}
    assert schedule.warmup_steps + schedule.decay_steps <= total


def test_golden_rates():
    schedule = Schedule.of(OptimizerSettings(learning_rate=1.0, warmup_fraction=0.2, decay_fraction=0.3), 10)
    assert [schedule.rate(step) for step in range(10)] == [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25]


def test_golden_linear_rates():
    schedule = Schedule.of(OptimizerSettings(learning_rate=1.0, schedule="linear", warmup_fraction=0.2, decay_fraction=0.1), 10)
    assert [schedule.rate(step) for step in range(10)] == pytest.approx([0.5, 1.0, *(n / 9 for n in range(8, 0, -1))])


def test_a_longer_run_with_the_same_warm_up_makes_the_same_steps_until_the_decay():
    settings = OptimizerSettings(warmup_fraction=0.1, decay_fraction=0.2)
    short = Schedule.of(settings, 100)
    long = Schedule.of(settings, 300, warmup_steps=short.warmup_steps)
    assert [short.rate(step) for step in range(short.decay_start)] == [long.rate(step) for step in range(short.decay_start)]
