"""Called in Ray workers by the tests of gangs: plain functions with the signature that a gang or a task calls."""

from __future__ import annotations

import os
import signal

from grover_dist.errors import UserError
from grover_dist.pretrain.candidate import pretrain_candidate


def pretrain(config, run, *, corpus, cycles, ranks, say):
    artifact = pretrain_candidate(config, run, corpus, cycles, budget_bases=config.pretrain.budget_bases, ranks=ranks, say=say)
    return {"pretrain": artifact}


def fail_as_user(config, run, *, ranks, say):
    with open(run.logs / "starts", "a") as handle:
        handle.write("start\n")
    raise UserError("the motif matches nowhere", where="motif.meme", hint="give another")


def die_once(config, run, *, corpus, cycles, ranks, say):
    """Kill this rank, as the system does when memory runs out, the first time that a checkpoint is whole; then train to the end."""
    mark = run.logs / "died"
    if ranks.rank == ranks.world - 1 and not mark.exists():

        def killer():
            import time

            while not list((run.path / "pretrain").glob(".*.partial/checkpoints/step-*/checkpoint.json")):
                time.sleep(0.01)
            mark.write_text("x")
            os.kill(os.getpid(), signal.SIGKILL)

        import threading

        threading.Thread(target=killer, daemon=True).start()
    return pretrain(config, run, corpus=corpus, cycles=cycles, ranks=ranks, say=say)


def double(config, run, *, number, say):
    say(f"doubling {number}")
    return 2 * number
