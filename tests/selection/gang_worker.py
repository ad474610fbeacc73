"""One rank of a gang that a test starts: `python -m tests.selection.gang_worker RUN CYCLES OUT`. Evaluates and fine-tunes one candidate."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from grover_dist.config import TaskHeadSettings, TaskSettings, load_config
from grover_dist.finetune.stage import finetune_in_gang
from grover_dist.run_dir import RunDir
from grover_dist.selection.evaluate import evaluate_candidate
from grover_dist.training.ranks import Ranks


def work(folder: Path, cycles: int, ranks: Ranks) -> list[str]:
    """Paths of the "kmer" and "finetune" artefacts."""
    run, config = RunDir.existing(folder), load_config(folder / "config.yaml")
    corpus, task, pretrained = run.latest("learn"), run.latest("kmer-task"), run.latest("pretrain", f"c{cycles}")
    kmer = evaluate_candidate(config, run, corpus, task, pretrained, cycles=cycles, ranks=ranks, say=lambda text: None)
    table = TaskSettings(name="table", train=folder / "table.csv", head=TaskHeadSettings(**config.selection.head.model_dump()))
    arguments = {"corpus": corpus, "pretrained": pretrained, "task_settings": table, "cycles": cycles}
    tuned = finetune_in_gang(config, run, ranks=ranks, say=lambda text: None, **arguments)
    return [str(kmer.path), str(tuned["finetune"].path)]


def main() -> None:
    ranks = Ranks.join(timeout_seconds=60)
    seen = ranks.gather(work(Path(sys.argv[1]), int(sys.argv[2]), ranks))
    if ranks.is_main:
        Path(sys.argv[3]).write_text(json.dumps(seen))
    Ranks.end_process()


if __name__ == "__main__":
    main()
