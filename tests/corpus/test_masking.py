from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grover_dist.config import MaskSettings
from grover_dist.corpus.counter_random import MASKS, stream_key
from grover_dist.corpus.masking import mask_lines, mask_tokens, start_threshold

IDS = st.lists(st.integers(0, 40), max_size=60).map(np.array)
FRACTIONS = st.sampled_from([1e-6, 0.022, 0.15, 0.7])


@given(ids=IDS, span=st.integers(1, 5), fraction=FRACTIONS, key=st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)))
def test_what_masking_may_do(ids, span, fraction, key):
    settings = MaskSettings(fraction=fraction, span=span)
    inputs, positions, labels = mask_tokens(ids, seed=3, sample_key=key, vocab_size=41, settings=settings)
    again = mask_tokens(ids, seed=3, sample_key=key, vocab_size=41, settings=settings)
    assert all(np.array_equal(one, other) for one, other in zip((inputs, positions, labels), again, strict=True))
    assert (np.diff(positions) > 0).all()
    assert labels.tolist() == ids[positions].tolist() if len(positions) else labels.size == 0
    untouched = np.setdiff1d(np.arange(len(ids)), positions)
    assert inputs[untouched].tolist() == ids[untouched].tolist() if len(untouched) else True
    assert (labels >= 5).all()  # specials are never chosen
    assert ((inputs[positions] >= 5) | (inputs[positions] == 4)).all()  # nor drawn
    assert (inputs[positions] < 41).all()
    assert (len(positions) > 0) == bool((ids >= 5).any())


def test_rates():
    n = 400_000
    ids = np.random.default_rng(1).integers(5, 609, n)
    for fraction, span in ((0.15, 1), (0.022, 1), (0.15, 3), (0.5, 8)):
        inputs, positions, labels = mask_tokens(
            ids, seed=1, sample_key=(0, 0), vocab_size=609, settings=MaskSettings(fraction=fraction, span=span)
        )
        m = len(positions)
        # Tokens of a span go together, so the share has the spread of about n / span draws.
        assert m / n == pytest.approx(fraction, abs=5 * np.sqrt(fraction * (1 - fraction) * span * 2 / n))
        error = 5 * np.sqrt(0.25 / m)
        masked, kept = inputs[positions] == 4, inputs[positions] == labels
        assert masked.mean() == pytest.approx(0.8, abs=error)
        assert kept.mean() == pytest.approx(0.1 + 0.1 / 604, abs=error)
        drawn = inputs[positions][~masked & ~kept]
        counts = np.bincount(drawn, minlength=609)[5:]
        assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 604 + 5 * np.sqrt(2 * 604)


def test_the_first_and_last_tokens_are_masked_as_often_as_the_others():
    counts = np.zeros(60)
    settings = MaskSettings(fraction=0.3, span=4)
    for sample in range(6_000):
        _, positions, _ = mask_tokens(np.full(60, 9), seed=1, sample_key=(0, sample), vocab_size=20, settings=settings)
        counts[positions] += 1
    assert counts / 6_000 == pytest.approx(np.full(60, 0.3), abs=0.035)


@pytest.mark.parametrize("span", [2, 5])
def test_spans_are_whole_but_at_the_ends(span):
    for sample in range(300):
        ids = np.full(80, 7)
        _, positions, _ = mask_tokens(ids, seed=2, sample_key=(1, sample), vocab_size=20, settings=MaskSettings(fraction=0.1, span=span))
        runs = np.split(positions, np.flatnonzero(np.diff(positions) > 1) + 1)
        for run in runs:
            assert len(run) >= span or run[0] == 0 or run[-1] == 79


def test_samples_epochs_and_seeds_differ():
    def masks(seed, key):
        return mask_tokens(np.full(500, 7), seed=seed, sample_key=key, vocab_size=20, settings=MaskSettings())[1].tolist()

    found = [masks(1, (0, 0)), masks(1, (0, 1)), masks(1, (1, 0)), masks(2, (0, 0))]
    assert all(one != other for i, one in enumerate(found) for other in found[:i])


def test_lines_of_a_batch_are_masked_as_windows_alone():
    rng = np.random.default_rng(1)
    lengths = np.array([30, 1, 17])
    batch = np.zeros((3, 32), np.int64)
    windows = [rng.integers(5, 40, n) for n in lengths]
    for line, window in zip(batch, windows, strict=True):
        line[: len(window) + 2] = [2, *window, 3]
    settings = MaskSettings(fraction=0.2, span=2)
    epochs, samples = np.array([0, 3, 0]), np.array([8, 8, 9])
    index, labels = mask_lines(batch, lengths, epochs, samples, stream_key(4, MASKS), 40, start_threshold(settings), 2)
    expected_index, expected_labels = [], []
    for line, (window, epoch, sample) in enumerate(zip(windows, epochs, samples, strict=True)):
        inputs, positions, label = mask_tokens(window, seed=4, sample_key=(epoch, sample), vocab_size=40, settings=settings)
        assert batch[line].tolist() == [2, *inputs, 3, *[0] * (30 - len(window))]
        expected_index += (positions + 32 * line + 1).tolist()
        expected_labels += label.tolist()
    assert index.tolist() == expected_index
    assert labels.tolist() == expected_labels
