"""One rank of a gang that a test starts: `python -m tests.training.gang_worker JOBS OUT`. Does a list of jobs, rank 0 writes what came out.

A job: {"stage": 1, "folder": checkpoints or null, "objective": {...}, "plan": {...}, "only_rank": whose kill_step or spoil_step it is,
"plans": what the plan of each rank differs in}
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

from grover_dist.config import EngineSettings
from grover_dist.errors import UserError
from grover_dist.training.loop import train
from grover_dist.training.ranks import Ranks
from tests.training.toy_objective import Stopped, ToyObjective, toy_plan


def do(job, ranks: Ranks) -> dict:
    settings = dict(job.get("objective", {}))
    if job.get("only_rank", ranks.rank) != ranks.rank:
        settings = {name: value for name, value in settings.items() if name not in ("kill_step", "spoil_step")}
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
        "samples": samples,
    }


def weights_digest(weights) -> str:
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode() + weights[name].numpy().tobytes())
    return digest.hexdigest()


def main() -> None:
    ranks = Ranks.join(timeout_seconds=60)
    done = [do(job, ranks) for job in json.loads(sys.argv[1])]
    if ranks.is_main:
        Path(sys.argv[2]).write_text(json.dumps(done))
    Ranks.end_process()


if __name__ == "__main__":
    main()
