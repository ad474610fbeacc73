"""Called in Ray workers by the tests of gangs: plain functions with the signature that a gang or a task calls."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from grover_dist.errors import UserError
from grover_dist.pretrain.candidate import pretrain_candidate
from grover_dist.run_dir import RunDir

ELASTIC_STEPS = 90


def pretrain(config, run, *, corpus, cycles, ranks, say):
    artifact = pretrain_candidate(config, run, corpus, cycles, budget_bases=config.pretrain.budget_bases, ranks=ranks, say=say)
    return {"pretrain": artifact}


def pretrain_again(config, run, *, used, corpus, cycles, ranks, say):
    """In a process that has done the same before, in another run's folder."""
    pretrain(config, RunDir(Path(used)), corpus=corpus, cycles=cycles, ranks=ranks, say=say)
    return pretrain(config, run, corpus=corpus, cycles=cycles, ranks=ranks, say=say)


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


def toy(config, run, *, ranks, say):
    """The toy of tests/training for a minute; each rank writes down which samples it is shown, in which step, among how many ranks."""
    from grover_dist.training.loop import train
    from grover_dist.training.metrics import MetricsWriter
    from tests.training.toy_objective import ToyObjective, toy_plan

    class Noted(ToyObjective):
        def loss(self, model, batch, device):
            step, made = batch
            with open(run.logs / "shown", "a") as handle:
                handle.write(f"{step} {ranks.world} {' '.join(str(sample) for sample, _, _ in made)}\n")
            return super().loss(model, batch, device)

    plan = toy_plan(total_steps=ELASTIC_STEPS, checkpoint_every_steps=3, micro_batch=8, log_every_steps=1)
    metrics = MetricsWriter(run.path / "metrics.jsonl")
    train(Noted(pause_seconds=0.5, micro_batch=8), ranks, plan, checkpoints=run.path / "checkpoints", metrics=metrics, say=say)
    return {}


def every_stage(config, run, *, ranks, say):
    """The toy at each ZeRO stage; the losses of all."""
    from grover_dist.config import EngineSettings
    from grover_dist.training.loop import train
    from tests.training.toy_objective import ToyObjective, toy_plan

    found = [train(ToyObjective(), ranks, toy_plan(engine=EngineSettings(zero_stage=stage)), say=say).losses for stage in range(4)]
    if ranks.is_main:
        (run.logs / "losses.json").write_text(json.dumps(found))
    return {}


def die_always(config, run, *, ranks, say):
    """As a candidate that is too large for its node."""
    with open(run.logs / "starts", "a") as handle:
        handle.write("start\n")
    os.kill(os.getpid(), signal.SIGKILL)


def report_progress(config, run, *, ranks, say):
    """Write a line of progress as a candidate does, and stay until the test has read the node's metrics."""
    import time

    (run.logs / "pretrain-gauge.jsonl").write_text(json.dumps({"step": 7, "steps": 9, "bases": 70_000, "loss": 4.25}) + "\n")
    while not (run.logs / "seen").exists():
        time.sleep(0.05)
    return {}
