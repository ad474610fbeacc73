"""One rank of a gang that a test starts: `python -m tests.training.gang_worker JOBS OUT`. Does a list of jobs, rank 0 writes what came out.

A job: {"stage": 1, "folder": checkpoints or null, "objective": {...}, "plan": {...}, "only_rank": the only one to be killed, to hang or
to spoil its loss, "plans": what the plan of each rank differs in}; or {"inputs": the artefact that each rank sees}.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

from grover_dist.config import EngineSettings
from grover_dist.errors import UserError
from grover_dist.run_dir import RunDir, read_artifact
from grover_dist.training.gang_stage import once_in_gang
from grover_dist.training.loop import train
from grover_dist.training.ranks import Ranks
from tests.training.toy_objective import Stopped, ToyObjective, plain_torch, toy_plan


def do(job, ranks: Ranks) -> dict:
    if "inputs" in job:
        return {"errors": ranks.gather(_stage_on(job["inputs"][ranks.rank], ranks))}
    settings = dict(job.get("objective", {}))
    if job.get("only_rank", ranks.rank) != ranks.rank:
        settings = {name: value for name, value in settings.items() if name not in ("kill_step", "hang_step", "spoil_step")}
    objective, said = ToyObjective(**settings), []
    changes = {**job.get("plan", {}), **(job["plans"][ranks.rank] if "plans" in job else {})}
    plan = toy_plan(engine=EngineSettings(zero_stage=job["stage"]), **changes)
    outcome = {"stage": job["stage"], "said": said}
    try:
        result = train(objective, ranks, plan, checkpoints=Path(job["folder"]) if job.get("folder") else None, say=said.append)
    except Stopped:
        return outcome
    except UserError as error:
        return outcome | {"errors": ranks.gather(str(error))}
    samples = sorted(sample for shown in ranks.gather(objective.shown) for sample in shown)
    return outcome | {
        "first_step": result.first_step,
        "losses": result.losses,
        "evaluation": result.evaluation,
        "weights": weights_digest(result.weights),
        "from_oracle": _from_oracle(plan, settings, result) if ranks.is_main else 0.0,
        "samples": samples,
    }


def weights_digest(weights) -> str:
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode() + weights[name].numpy().tobytes())
    return digest.hexdigest()


def _from_oracle(plan, settings, result) -> float:
    """Largest difference of a weight from plain torch's, in one process and without an engine."""
    if settings.get("dropout"):
        return 0.0
    _, weights = plain_torch(plan)
    return max((result.weights[name] - value).abs().max().item() for name, value in weights.items())


def _stage_on(path: str, ranks: Ranks) -> str:
    artifact = read_artifact(Path(path))
    try:
        once_in_gang(RunDir(Path(path).parents[1]), ranks, "next", "n", print, settings={}, inputs={"learn": artifact}, say=print)
    except UserError as error:
        return str(error)
    return "no error"


def main() -> None:
    sys.argv = [word for word in sys.argv if not word.startswith("--local_rank")]  # the deepspeed launcher adds it
    ranks = Ranks.join(timeout_seconds=60)
    Path(f"{sys.argv[2]}.pid-{ranks.rank}").write_text(str(os.getpid()))
    done = [do(job, ranks) for job in json.loads(sys.argv[1])]
    if ranks.is_main:
        Path(sys.argv[2]).write_text(json.dumps(done))
    Ranks.end_process()


if __name__ == "__main__":
    main()
