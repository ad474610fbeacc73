"""The coordinator: keeps the counts, chooses the merges, tells the workers; one message down and one up per round."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from grover_dist.bpe import kernels
from grover_dist.bpe.counts import PairCounts
from grover_dist.bpe.junctions import find_junctions, plan_straddles
from grover_dist.bpe.merge_log import MergeLog
from grover_dist.bpe.messages import Reply, pack_rounds
from grover_dist.bpe.symmetric import SymmetricCounts
from grover_dist.bpe.vocabulary import FIRST_BASE_ID, Vocabulary
from grover_dist.errors import UserError

Call = Callable[[Sequence[Any], str, Sequence[tuple]], list[bytes]]


class WorkerLost(Exception):
    """Raised by `call` when workers died: their places in the list that was called."""

    def __init__(self, *indices: int) -> None:
        self.indices = indices
        super().__init__(*indices)


def call_local(workers: Sequence[Any], method: str, args: Sequence[tuple]) -> list[Any]:
    """Call `method` of every worker in this process, each with its own arguments; replies in the order of the workers."""
    return [getattr(worker, method)(*arguments) for worker, arguments in zip(workers, args, strict=True)]


def learn(
    workers: Sequence[Any] | WorkerGroup,
    cycles: int,
    *,
    strand: Literal["forward", "symmetric"] = "forward",
    call: Call = call_local,
    revive: Callable[[int], Any] | None = None,
    log: MergeLog | None = None,
    say: Callable[[str], None] = print,
    on_round: Callable[[int, int], None] | None = None,
) -> Vocabulary:
    """Learn `cycles` merges over workers that hold the genome in row order: Partition, or anything with its start, round and replay.

    strand: the rule of choice, see symmetric.py. call: calls a method of all workers and returns the replies in order; raises WorkerLost
    for dead ones. revive(index): makes a fresh worker of the same rows for a lost one, which replaces it in `workers` and is brought up
    to date by replay. Give a WorkerGroup in the place of workers, call and revive to go on calling them afterwards with the same
    protection. log: an open merge log; the merges in it are made again and must come out the same. on_round(round, merges so far) is
    called after every round.
    Raises UserError when the genome supports fewer cycles, or when the log is not of this genome.
    """
    group = workers if isinstance(workers, WorkerGroup) else WorkerGroup(workers, call=call, revive=revive, say=say)
    replies = [Reply.unpack(reply) for reply in group.start()]
    geometry = np.concatenate([reply.payloads[0].view("<i8")[16:].reshape(-1, 3) for reply in replies])
    soft_left, single = geometry[:, 1] != 0, geometry[:, 2] != 0
    edges = np.concatenate([reply.edges for reply in replies])
    strips_before = np.cumsum([0, *(len(reply.edges) for reply in replies)]).tolist()
    strips, pairs = find_junctions(edges, soft_left, single)
    counts = (SymmetricCounts if strand == "symmetric" else PairCounts)(
        np.sum([reply.payloads[0].view("<i8")[:16] for reply in replies], axis=0), cycles + 4, pairs
    )
    drop, take = np.full(len(edges), -1, np.int64), np.full(len(edges), -1, np.int64)
    merges: list[np.ndarray] = []
    learned, number = 0, 0
    if log is not None and len(log.merges):
        say(f"learning: {len(log.merges)} of {cycles} merges are in the log and are made again")
    while learned < cycles:
        chosen, chosen_counts = counts.choose(cycles - learned)
        if len(chosen) == 0:
            raise UserError(
                "cycles larger than the genome supports: no pair of tokens occurs twice any more",
                where="bpe.cycles",
                got=cycles,
                expected=f"at most {learned}" if learned else "a genome in which some pair of bases occurs twice inside a contig",
                hint=f"set bpe.cycles={learned} or less" if learned else "check the FASTA: every contig may be a single base",
            )
        number += 1
        message = np.column_stack([chosen, np.arange(len(chosen)) + 4 + learned])
        rows = np.column_stack([chosen + FIRST_BASE_ID, chosen_counts])
        if log is not None:
            log.append(learned, rows)
        plan_straddles(edges, strips, pairs, message, drop, take)
        replies = [Reply.unpack(reply) for reply in group.round(pack_rounds(number, cycles, message, drop, take, strips_before))]
        assert all(reply.number == number for reply in replies)
        edges = np.concatenate([reply.edges for reply in replies])
        dropped = np.flatnonzero((drop >= 0) & (edges[:, kernels.E_AFTER_DROP] >= 0))
        before = pairs
        strips, pairs = find_junctions(edges, soft_left, single)
        payloads = [payload for reply in replies for payload in reply.payloads]
        counts.apply(message, payloads, np.column_stack([drop[dropped], edges[dropped, kernels.E_AFTER_DROP]]), before, pairs)
        merges.append(rows)
        learned += len(chosen)
        if on_round is not None:
            on_round(number, learned)
    if log is not None:
        log.flush()
    return Vocabulary.from_rows(np.concatenate(merges) if merges else [])


class WorkerGroup:
    """The workers, and what each was told, so that a lost one can be brought up to date at any time."""

    def __init__(
        self,
        workers: Sequence[Any],
        *,
        call: Call = call_local,
        revive: Callable[[int], Any] | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        self.workers = workers if isinstance(workers, list) else list(workers)
        self._call, self._revive, self._say = call, revive, say
        self._told: list[list[bytes]] = [[] for _ in self.workers]

    def call(self, method: str, args: Sequence[tuple]) -> list[Any]:
        """Ask every worker, again until all have answered. A worker that did a round already answers it from memory."""
        while True:
            try:
                return self._call(self.workers, method, args)
            except WorkerLost as lost:
                self._replace(list(lost.indices))

    def start(self) -> list[bytes]:
        return self.call("start", [()] * len(self.workers))

    def round(self, messages: list[bytes]) -> list[bytes]:
        replies = self.call("round", [(message,) for message in messages])
        for told, message in zip(self._told, messages, strict=True):
            told.append(message)
        return replies

    def _replace(self, lost: list[int]) -> None:
        while lost:
            if self._revive is None:
                raise WorkerLost(*lost)
            names = f"worker{'s' if len(lost) > 1 else ''} {', '.join(map(str, lost))}"
            self._say(f"learning: lost {names}; rebuilding from the bases and {len(self._told[0])} rounds")
            for index in lost:
                self.workers[index] = self._revive(index)
            try:
                self._call([self.workers[i] for i in lost], "replay", [(self._told[i],) for i in lost])
                return
            except WorkerLost as again:
                lost = [lost[i] for i in again.indices]
