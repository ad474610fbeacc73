"""The learner against the oracle: any partitions, cuts, strips, threads and memory mode give the same merges, counts and levels."""

from __future__ import annotations

import random
from itertools import chain, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grover_dist.bpe.encode import encode_codes
from grover_dist.bpe.learn import WorkerGroup, WorkerLost, call_local, learn
from grover_dist.bpe.merge_log import MergeLog
from grover_dist.bpe.reference import encode_reference, learn_reference
from grover_dist.errors import UserError
from tests.bpe.hostile_cases import hostile_case, hostile_options, learn_levels, make_partitions, merges_of

contigs_strategy = st.lists(
    st.one_of(
        st.builds(lambda base, n: [base] * n, st.integers(0, 3), st.integers(1, 60)),
        st.builds(lambda word, n: (word * n)[:n], st.lists(st.integers(0, 3), min_size=2, max_size=3), st.integers(1, 60)),
        st.lists(st.integers(0, 3), min_size=1, max_size=60),
        st.lists(st.integers(0, 1), min_size=1, max_size=60),
    ),
    min_size=1,
    max_size=4,
)


def check(contigs, cuts, **options) -> None:
    merges, levels = learn_reference(contigs, 40)
    if not merges:
        with pytest.raises(UserError, match="larger than the genome supports"):
            learn_levels(contigs, cuts, 1, **options)
        return
    vocabulary, found = learn_levels(contigs, cuts, len(merges), **options)
    assert merges_of(vocabulary) == merges, (contigs, cuts, options)
    assert found.tolist() == [level for contig in levels for level in contig], (contigs, cuts, options)


def check_random(seeds: range) -> None:
    for seed in seeds:
        rng = random.Random(seed)
        contigs, cuts = hostile_case(rng)
        check(contigs, cuts, **hostile_options(rng))


@settings(max_examples=100, deadline=None)
@given(contigs_strategy, st.sampled_from([1, 2, 3, 7]), st.data())
def test_merges_and_levels_equal_the_oracle(contigs, partitions, data):
    n = sum(map(len, contigs))
    cuts = sorted(data.draw(st.lists(st.integers(0, n), min_size=partitions - 1, max_size=partitions - 1)))
    check(contigs, cuts, memory=data.draw(st.sampled_from(["fast", "lean"])))


def test_hostile_cases():
    check_random(range(200))


@pytest.mark.slow
def test_many_hostile_cases():
    check_random(range(1_000, 11_000))


def test_partitions_of_one_token():
    contig = [0, 0, 0, 1, 0, 0, 0, 0, 1, 1, 0, 1, 0, 1, 0, 1, 0, 0, 0]
    check([contig], list(range(1, len(contig))))
    check([[3] * 64], list(range(1, 64)))


def test_contigs_of_one_base_support_no_merge():
    with pytest.raises(UserError, match="every contig may be a single base"):
        learn_levels([[0], [0], [1], [3]], [], 1)


def test_cycles_beyond_the_genome_name_what_is_possible():
    merges, _ = learn_reference([[0, 1, 0, 1, 0, 1, 2]], 9)
    with pytest.raises(UserError, match=f"at most {len(merges)}"):
        learn_levels([[0, 1, 0, 1, 0, 1, 2]], [], 9)


@pytest.fixture(scope="module")
def repeat_rich() -> np.ndarray:
    """59,200 bases: 40 diverged copies of three words in a random background, and tandem repeats."""
    rng = np.random.default_rng(5)
    words = [rng.integers(0, 4, 300, dtype=np.uint8) for _ in range(3)]
    parts = []
    for copy in range(40):
        word = words[copy % 3].copy()
        changed = rng.random(300) < 0.05
        word[changed] = rng.integers(0, 4, int(changed.sum()), dtype=np.uint8)
        parts += [rng.integers(0, 4, 1_000, dtype=np.uint8), word, np.tile(rng.integers(0, 4, 3, dtype=np.uint8), 60)]
    return np.concatenate(parts)


@pytest.fixture(scope="module")
def whole(repeat_rich):
    contigs = [repeat_rich[:25_000], repeat_rich[25_000:25_001], repeat_rich[25_001:]]
    return contigs, *learn_levels(contigs, [], 600)


def test_equals_the_oracle_on_a_longer_genome(whole):
    contigs, vocabulary, levels = whole
    short = [contig[:3_000].tolist() for contig in contigs]
    merges, expected = learn_reference(short, 150)
    found, found_levels = learn_levels(short, [1_000, 3_100], 150)
    assert merges_of(found) == merges
    assert found_levels.tolist() == list(chain.from_iterable(expected))
    assert vocabulary.cycles == 600 and len(levels) == sum(map(len, contigs))


@pytest.mark.parametrize(
    ("cuts", "options"),
    [
        ([7, 20_000, 25_000, 25_001, 40_000, 59_000], {}),
        ([30_000], {"threads": 2, "strips": 5}),
        ([], {"memory": "lean", "strips": 4}),
        ([100, 100, 45_000], {"memory": "lean", "threads": 2}),
        ([], {"threads": 4}),
        ([], {"threads": 2, "memory": "lean"}),
    ],
)
def test_cuts_threads_and_memory_do_not_matter(whole, cuts, options):
    contigs, vocabulary, levels = whole
    found, found_levels = learn_levels(contigs, cuts, 600, **options)
    assert found == vocabulary
    assert np.array_equal(found_levels, levels)


@pytest.mark.parametrize("cycles", [0, 1, 17, 100, 599, 600])
def test_levels_give_the_tokens_of_every_vocabulary(whole, cycles):
    contigs, vocabulary, levels = whole
    starts = np.cumsum([0, *map(len, contigs)])
    for contig, begin in zip(contigs, starts[:-1], strict=True):
        ids = encode_codes(contig, vocabulary, cycles)
        lengths = vocabulary.lengths()[ids]
        assert lengths.sum() == len(contig)
        expected = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        assert np.array_equal(np.flatnonzero(levels[begin : begin + len(contig)] > cycles), expected)
    head = contigs[0][:2_000].tolist()
    assert [token + 5 for token in encode_reference(head, merges_of(vocabulary)[:cycles])] == encode_codes(
        contigs[0][:2_000], vocabulary, cycles
    ).tolist()


def test_vocabularies_are_nested(whole):
    contigs, vocabulary, _ = whole
    assert learn_levels(contigs, [], 80)[0] == vocabulary.at(80)


class Mortal:
    """A caller whose workers die at chosen calls: before their round, or after it with the reply lost."""

    def __init__(self, contigs, cuts, deaths):
        self.contigs, self.cuts, self.deaths = contigs, cuts, list(deaths)
        self.workers = make_partitions(contigs, cuts)
        self.calls = self.revived = 0

    def call(self, workers, method, args):
        self.calls += 1
        dying = [index for at, index, _ in self.deaths if at == self.calls]
        if not dying:
            return call_local(workers, method, args)
        if any(at == self.calls and done for at, _, done in self.deaths):
            call_local(workers, method, args)
        raise WorkerLost(*(index for index in dying if index < len(workers)))

    def revive(self, index):
        self.revived += 1
        return make_partitions(self.contigs, self.cuts)[index]


@pytest.mark.parametrize(
    "deaths",
    [
        [(1, 0, False)],
        [(4, 1, False), (4, 2, False)],  # two at once
        [(6, 2, True)],  # the others have done the round already
        [(5, 0, True), (6, 0, False), (9, 1, True)],  # the second strikes during the replay
    ],
)
def test_a_lost_worker_is_rebuilt_and_the_result_is_the_same(whole, deaths):
    contigs, vocabulary, levels = whole
    said = []
    mortal = Mortal(contigs, [20_000, 41_000], deaths)
    group = WorkerGroup(mortal.workers, call=mortal.call, revive=mortal.revive, say=said.append)
    assert learn(group, 300, say=said.append) == vocabulary.at(300)
    found = np.concatenate(group.call("levels", [()] * 3))
    assert np.array_equal(found, np.where((levels > 300) & (levels != 65_535), 65_535, levels))
    assert mortal.revived >= len(deaths) - 1 and any("lost worker" in line for line in said)


def test_any_worker_may_be_lost_in_any_round():
    rng = random.Random(3)
    contigs = [[0] * 40 + [0, 3] * 20 + [rng.randrange(4) for _ in range(120)], [2], [rng.randrange(2) for _ in range(60)]]
    cuts = [25, 90]
    merges, levels = learn_reference(contigs, 25)
    calls = 0

    def count(workers, method, args):
        nonlocal calls
        calls += 1
        return call_local(workers, method, args)

    learn(make_partitions(contigs, cuts), 25, call=count)
    for at, index, done in product(range(1, calls + 1), range(3), (False, True)):
        mortal = Mortal(contigs, cuts, [(at, index, done)])
        group = WorkerGroup(mortal.workers, call=mortal.call, revive=mortal.revive, say=lambda text: None)
        assert merges_of(learn(group, 25, say=lambda text: None)) == merges, (at, index, done)
        found = np.concatenate(group.call("levels", [()] * 3))
        assert found.tolist() == list(chain.from_iterable(levels)), (at, index, done)
        assert mortal.revived == 1


def test_without_revive_a_lost_worker_is_an_error(whole):
    mortal = Mortal(whole[0], [20_000], [(3, 1, False)])
    with pytest.raises(WorkerLost):
        learn(mortal.workers, 50, call=mortal.call, say=lambda text: None)


def test_the_coordinator_resumes_from_its_log(whole, tmp_path):
    contigs, vocabulary, _ = whole

    class Killed(Exception):
        pass

    def die(number, learned):
        if learned > 100:
            raise Killed

    said = []
    path = tmp_path / "merges.log"
    with MergeLog.open(path, "digest", say=said.append) as log, pytest.raises(Killed):
        learn(make_partitions(contigs, [9_000]), 300, log=log, say=said.append, on_round=die)
    with MergeLog.open(path, "digest", say=said.append) as log:
        kept = len(log.merges)
        assert kept > 100
        assert learn(make_partitions(contigs, [30_000, 31_000]), 300, log=log, say=said.append) == vocabulary.at(300)
        assert len(log.merges) == 300
    assert any(f"{kept} of 300 merges are in the log" in line for line in said)


def test_a_corrupt_log_is_cut_back_and_learning_ends_the_same(whole, tmp_path):
    contigs, vocabulary, _ = whole
    path = tmp_path / "merges.log"
    with MergeLog.open(path, "digest", say=lambda text: None) as log:
        learn(make_partitions(contigs, []), 200, log=log, say=lambda text: None)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    said = []
    with MergeLog.open(path, "digest", say=said.append) as log:
        assert 0 < len(log.merges) < 200
        assert learn(make_partitions(contigs, [9_000]), 200, log=log, say=said.append) == vocabulary.at(200)
    assert "damaged after" in said[0]
    with MergeLog.open(path, "digest") as log:
        assert np.array_equal(log.merges, np.column_stack([vocabulary.left, vocabulary.right, vocabulary.count])[:200])


def test_a_log_of_other_merges_is_refused(whole, tmp_path):
    contigs = whole[0]
    with MergeLog.open(tmp_path / "merges.log", "digest") as log:
        log.append(0, np.array([[5, 6, 1]]))
        with pytest.raises(UserError, match="does not agree with the genome"):
            learn(make_partitions(contigs, []), 5, log=log, say=lambda text: None)
