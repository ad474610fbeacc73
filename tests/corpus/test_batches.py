"""The same global batches and masks for any number of ranks, resumed anywhere."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest

from grover_dist.bpe.encode import encode_codes
from grover_dist.config import MaskSettings
from grover_dist.corpus.batches import MaskedBatches, MicroBatch
from grover_dist.corpus.windows import make_windows
from grover_dist.errors import UserError
from grover_dist.genome.split import split_blocks


@pytest.fixture(scope="module")
def batches(learned) -> MaskedBatches:
    config = learned.config
    split = split_blocks(learned.store.contigs, config.split, config.seed)
    windows = make_windows(learned.store, split, config.windows, 60, config.seed)
    return MaskedBatches(learned.corpus, windows, 60, 11, batch_windows=24, micro_batch_windows=4, mask=MaskSettings(fraction=0.15))


def lines(micro_batches: list[MicroBatch]) -> list[str]:
    """One hash a window: its inputs, masked places and labels, whatever batch it stands in."""
    return sorted(hashlib.sha256(repr(content).encode()).hexdigest() for content in contents(micro_batches))


def contents(micro_batches: list[MicroBatch]) -> list[tuple[list[int], list[int], list[int]]]:
    """Inputs, masked places and labels of each window."""
    found = []
    for batch in micro_batches:
        length = batch.input_ids.shape[1]
        if batch.window_lengths is None:
            starts, lengths = np.arange(len(batch.input_ids)) * length, batch.attention_mask.sum(1)
        else:
            lengths = batch.window_lengths
            starts = np.cumsum(lengths) - lengths
        for start, stop in zip(starts, starts + lengths, strict=True):
            here = (batch.masked_index >= start) & (batch.masked_index < stop)
            found.append(
                (batch.input_ids.ravel()[start:stop].tolist(), (batch.masked_index[here] - start).tolist(), batch.labels[here].tolist())
            )
    return found


def n_windows(micro_batches: list[MicroBatch]) -> list[int]:
    return [len(batch.input_ids if batch.window_lengths is None else batch.window_lengths) for batch in micro_batches]


@pytest.mark.parametrize("options", [{}, {"reverse_complement": True, "soft_mask_weight": 0.5}])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_packing_shows_the_same_windows_and_masks_without_padding(batches, world, options):
    plain, packed = replace(batches, **options), replace(batches, packing=True, **options)
    for step in (0, 5, 9):
        padded_parts = [batch for rank in range(world) for batch in plain.step(step, rank, world)]
        packed_parts = [batch for rank in range(world) for batch in packed.step(step, rank, world)]
        assert lines(packed_parts) == lines(padded_parts)
        assert sum(batch.n_padding for batch in packed_parts) == 0 < sum(batch.n_padding for batch in padded_parts)
        assert {batch.input_ids.shape[0] for batch in packed_parts} == {1}
        assert set(n_windows(packed_parts)) == {4} == set(n_windows(padded_parts))
        for name in ("n_tokens", "n_bases"):
            assert sum(getattr(batch, name) for batch in packed_parts) == sum(getattr(batch, name) for batch in padded_parts)
        if options:
            weights = [np.sort(np.concatenate([batch.weights for batch in parts])) for parts in (padded_parts, packed_parts)]
            assert np.array_equal(*weights)
    assert lines(packed.held_out(20)) == lines(plain.held_out(20))


def test_packed_micro_batches_and_ranks_have_about_as_many_tokens(batches):
    """Dealt to and fro by length, none has more than another by as much as a window."""
    longest, world = int(batches.windows.train.n_tokens.max()), 3
    wide = replace(batches, batch_windows=72, packing=True)
    for step in range(8):
        ranks = [wide.step(step, rank, world) for rank in range(world)]
        tokens = [[batch.n_tokens for batch in part] for part in ranks]
        assert max(map(max, tokens)) - min(map(min, tokens)) < 2 * longest
        assert max(map(sum, tokens)) - min(map(sum, tokens)) < longest


@pytest.mark.parametrize("world", [2, 3, 8])
def test_any_number_of_ranks_sees_the_same_global_batches(batches, world):
    last = 2 * len(batches.windows.train) // batches.batch_windows  # the end of the second epoch
    for step in (0, 1, last // 2, last // 2 + 1, last):
        alone = lines(batches.step(step))
        assert len(alone) == 24
        parts = [batches.step(step, rank, world) for rank in range(world)]
        assert sorted(chain.from_iterable(map(lines, parts))) == alone
        assert len({len(part) for part in parts}) == 1


def test_ranks_that_do_not_divide_the_batch(batches):
    uneven = replace(batches, batch_windows=25, micro_batch_windows=3)
    for world in (2, 3, 8):
        parts = [uneven.step(5, rank, world) for rank in range(world)]
        assert sorted(chain.from_iterable(map(lines, parts))) == lines(uneven.step(5))
        assert len({len(part) for part in parts}) == 1
        assert all(0 < count <= 3 for part in parts for count in n_windows(part))


@pytest.mark.parametrize(("batch_windows", "micro", "world"), [(3, 4, 4), (9, 1, 2)])
def test_a_batch_that_cannot_be_dealt(batches, batch_windows, micro, world):
    with pytest.raises(UserError, match=f"multiple of {world}"):
        replace(batches, batch_windows=batch_windows, micro_batch_windows=micro).step(0, 0, world)


def test_micro_batches_change_nothing(batches):
    assert (
        lines(replace(batches, micro_batch_windows=24).step(3))
        == lines(batches.step(3))
        == lines(replace(batches, micro_batch_windows=1).step(3))
    )


def test_two_epochs_show_each_window_twice_with_other_masks(batches):
    n = len(batches.windows.train)
    steps = -(-2 * n // 24)
    samples = [batches.samples(step) for step in range(steps)]
    epochs, indices = (np.concatenate(parts) for parts in zip(*samples, strict=True))
    first, second = indices[epochs == 0].tolist(), indices[epochs == 1].tolist()
    assert sorted(first) == sorted(second) == list(range(n))
    assert first != second
    assert {len(set(part.tolist())) for part, _ in samples[: n // 24]} == {1}  # an epoch ends before the next begins


def test_a_batch_holds_its_windows(batches, learned):
    """Unmasked, every line is [CLS], the window's tokens, [SEP], padding."""
    table = batches.windows.train
    _, indices = batches.samples(7, rank=1, world=2)
    n_tokens = n_bases = 0
    found = []
    for batch in batches.step(7, rank=1, world=2):
        ids = batch.input_ids.copy()
        ids.reshape(-1)[batch.masked_index] = batch.labels
        assert batch.input_ids.dtype == batch.attention_mask.dtype == batch.masked_index.dtype == batch.labels.dtype == np.int64
        assert (batch.attention_mask.sum(1) == (ids != 0).sum(1)).all()
        assert (np.diff(batch.attention_mask, axis=1) <= 0).all()
        assert (ids[:, 0] == 2).all()
        assert batch.padding_share == pytest.approx((ids == 0).mean())
        found += [line[line != 0].tolist() for line in ids]
        n_tokens, n_bases = n_tokens + batch.n_tokens, n_bases + batch.n_bases
    expected = [
        [2, *learned.corpus.ids_of_rows(a, b, 60).tolist(), 3]
        for a, b in zip(table.row_start[indices], table.row_stop[indices], strict=True)
    ]
    assert sorted(found) == sorted(expected)
    assert n_tokens == table.n_tokens[indices].sum()
    assert n_bases == (table.row_stop - table.row_start)[indices].sum()


def test_held_out_windows_have_fixed_masks(batches):
    whole = batches.held_out(50)
    assert lines(whole) == lines(batches.held_out(50))
    assert sum(len(batch.input_ids) for batch in whole) == 50
    assert sorted(lines(batches.held_out(50, 0, 2)) + lines(batches.held_out(50, 1, 2))) == lines(whole)
    n = len(batches.windows.held_out)
    everything = batches.held_out(10**9)
    assert sum(len(batch.input_ids) for batch in everything) == n
    assert not set(lines(everything)) & set(lines(batches.step(0)))


@pytest.fixture(scope="module")
def both_strands(batches) -> MaskedBatches:
    return replace(batches, reverse_complement=True, soft_mask_weight=0.25)


def shown_windows(batches: MaskedBatches, learned) -> list[tuple[str, list[int]]]:
    """Text and ids of each window of some steps, unmasked, in the order of the forward windows' lengths."""
    strings, found = learned.corpus.vocabulary.strings(), []
    for step in range(6):
        for batch in replace(batches, micro_batch_windows=1).step(step):
            ids = batch.input_ids.copy()
            ids.reshape(-1)[batch.masked_index] = batch.labels
            tokens = ids[ids >= 5].tolist()
            found.append(("".join(strings[token] for token in tokens), tokens))
            assert batch.n_tokens == len(tokens)
            assert batch.n_bases == len(found[-1][0])
    return found


def test_half_of_the_samples_show_their_other_strand_tokenized_anew(batches, both_strands, learned):
    longest = int(batches.windows.train.n_tokens.max())
    forward, shown = shown_windows(batches, learned), shown_windows(both_strands, learned)
    turned = 0
    for (plain, plain_tokens), (text, tokens) in zip(forward, shown, strict=True):
        if text == plain:
            assert tokens == plain_tokens
            continue
        turned += 1
        other = plain[::-1].translate(str.maketrans("ACGT", "TGCA"))
        assert text == other or (other.startswith(text) and len(tokens) == longest)
        assert (
            tokens
            == encode_codes(np.array(["ACGT".index(letter) for letter in other], np.uint8), learned.corpus.vocabulary, 60)[
                :longest
            ].tolist()
        )
    assert turned / len(shown) == pytest.approx(0.5, abs=5 * np.sqrt(0.25 / len(shown)))


def test_strands_do_not_depend_on_ranks(both_strands):
    parts = [both_strands.step(4, rank, 3) for rank in range(3)]
    assert sorted(chain.from_iterable(map(lines, parts))) == lines(both_strands.step(4))
    assert lines(both_strands.held_out(30)) == lines(replace(both_strands, reverse_complement=False).held_out(30))


def test_soft_masked_bases_weigh_less(both_strands, learned):
    """Each window by itself, the bases of its tokens one by one."""
    made = replace(both_strands, micro_batch_windows=1, reverse_complement=False)
    assert replace(made, soft_mask_weight=1.0).step(0)[0].weights is None
    table, lengths = made.windows.train, learned.corpus.vocabulary.lengths(60)
    seen = []
    for step in range(8):
        _, indices = made.samples(step)
        order = np.argsort(-table.n_tokens[indices], kind="stable")
        for index, batch in zip(indices[order], made.step(step), strict=True):
            ids = batch.input_ids[0].copy()
            ids[batch.masked_index] = batch.labels
            ends = np.cumsum(lengths[ids].astype(int))
            soft = learned.store.masked(int(table.row_start[index]), int(table.row_stop[index]))
            expected = [np.where(soft[ends[at] - lengths[ids[at]] : ends[at]], 0.25, 1.0).mean() for at in batch.masked_index]
            assert batch.weights == pytest.approx(np.array(expected))
            seen += expected
    assert {0.25, 1.0} <= set(seen)


def test_weights_of_the_other_strand_lie_on_the_same_bases(both_strands):
    """Nearly everything is masked, so a window's weights add up to the same on both strands."""
    made = replace(both_strands, mask=MaskSettings(fraction=0.9999999), micro_batch_windows=1)
    lengths = made.corpus.vocabulary.lengths(60)
    for turned, plain in zip(made.step(1), replace(made, reverse_complement=False).step(1), strict=True):
        if turned.n_bases == plain.n_bases:
            assert (turned.weights * lengths[turned.labels]).sum() == pytest.approx((plain.weights * lengths[plain.labels]).sum(), rel=1e-5)


def test_special_ids_are_never_masked_or_drawn(batches):
    for batch in batches.step(2):
        assert (batch.labels >= 5).all()
        drawn = batch.input_ids.ravel()[batch.masked_index]
        assert (drawn >= 4).all()
        assert (drawn < 69).all()


def test_the_longest_windows_for_a_probe_of_memory(batches):
    longest = int(batches.windows.train.n_tokens.max()) + 2
    assert batches.longest(3).input_ids.shape == (3, longest)
    assert replace(batches, packing=True).longest(3).input_ids.size == pytest.approx(3 * longest, rel=0.1)
    assert len(batches.longest(2 * len(batches.windows.train)).input_ids) == 2 * len(batches.windows.train)
