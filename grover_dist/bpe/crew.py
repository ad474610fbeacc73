"""Strips side by side: one thread each, which waits for the next round inside compiled code.

A round of a small genome takes less than a thread's way through Python and the kernel. So a helper polls its strip's mail for a moment
before it falls asleep, and the caller works on the first strip itself. Mail is an int64 vector of one strip; ASKED counts the rounds asked
for, DONE those made. All stores to them and to ASLEEP are sequentially consistent, so that either the helper sees the new round before it
sleeps, or the caller sees that it sleeps and wakes it.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from grover_dist.bpe.kernels import run_round

ASKED, DONE, ASLEEP, STOP, MERGES, DROP, TAKE, CYCLES, SIZE = range(9)
MAIL_SIZE = 16  # two cache lines
POLLS = 3_000_000  # about a millisecond: longer than the coordinator takes between two rounds
NAP_MICROSECONDS = 50

_usleep = types.ExternalFunction("usleep", types.int32(types.uint32))


def _pointer(context, builder, signature, arguments):
    view = context.make_array(signature.args[0])(context, builder, arguments[0])
    return builder.gep(view.data, [context.cast(builder, arguments[1], signature.args[1], types.intp)])


@intrinsic
def _load(typing_context, mail, index):
    def generate(context, builder, signature, arguments):
        return builder.load_atomic(_pointer(context, builder, signature, arguments), "seq_cst", 8)

    return types.int64(mail, index), generate


@intrinsic
def _store(typing_context, mail, index, value):
    def generate(context, builder, signature, arguments):
        word = context.cast(builder, arguments[2], signature.args[2], types.int64)
        builder.store_atomic(word, _pointer(context, builder, signature, arguments), "seq_cst", 8)
        return ir.Constant(ir.IntType(64), 0)

    return types.int64(mail, index, value), generate


@njit(cache=True, nogil=True)
def serve(mail, merges, stay, slots, state, lengths, pool, tables, scratch, edges, out):
    """Make the rounds that are asked for: one, or with `stay` all until none has come for a while."""
    polls = 0
    while True:
        asked = _load(mail, ASKED)
        if asked != mail[DONE]:
            rarity = (merges[0, 2] + 12) / (4 * mail[CYCLES])
            mail[SIZE] = run_round(
                slots, state, lengths, merges[: mail[MERGES]], mail[DROP], mail[TAKE], pool, tables, scratch, rarity, edges, out
            )
            _store(mail, DONE, asked)
            polls = 0
            if not stay:
                return
        elif polls < POLLS:
            polls += 1
        else:
            _store(mail, ASLEEP, 1)
            if _load(mail, ASKED) == asked:
                return
            _store(mail, ASLEEP, 0)
            polls = 0


@njit(cache=True, nogil=True)
def ask(mail, n_merges, drop, take, cycles):
    """Ask for a round. Returns whether the helper has to be woken."""
    mail[MERGES], mail[DROP], mail[TAKE], mail[CYCLES] = n_merges, drop, take, cycles
    _store(mail, ASKED, mail[ASKED] + 1)
    if _load(mail, ASLEEP) == 0:
        return False
    _store(mail, ASLEEP, 0)
    return True


@njit(cache=True, nogil=True)
def _await(mail):
    polls = 0
    while _load(mail, DONE) != mail[ASKED]:
        if polls < POLLS:
            polls += 1
        else:
            _usleep(np.uint32(NAP_MICROSECONDS))


class Crew:
    """A helper thread for each of some strips. `close` it, or drop it: the threads end."""

    def __init__(self, works: Sequence[tuple]) -> None:
        """works: what `serve` takes, one a strip; its first is the mail."""
        self._mails = [work[0] for work in works]
        self._wakes = [threading.Semaphore(0) for _ in works]
        for mail in self._mails:
            mail[ASLEEP] = 1
        self._threads = [
            threading.Thread(target=_help, args=pair, name=f"strip-{number}", daemon=True)
            for number, pair in enumerate(zip(works, self._wakes, strict=True), start=1)
        ]
        for thread in self._threads:
            thread.start()
        self.close = weakref.finalize(self, _end, self._mails, self._wakes, self._threads)

    def ask(self, n_merges: int, drop: np.ndarray, take: np.ndarray, cycles: int) -> None:
        for mail, wake, d, t in zip(self._mails, self._wakes, drop.tolist(), take.tolist(), strict=True):
            if ask(mail, n_merges, d, t, cycles):
                wake.release()

    def wait(self) -> None:
        for mail in self._mails:
            _await(mail)


def _help(work: tuple, wake: threading.Semaphore) -> None:
    while True:
        wake.acquire()
        if work[0][STOP]:
            return
        serve(*work)


def _end(mails: list[np.ndarray], wakes: list[threading.Semaphore], threads: list[threading.Thread]) -> None:
    for mail, wake in zip(mails, wakes, strict=True):
        mail[STOP] = 1
        wake.release()
    for thread in threads:
        thread.join()
