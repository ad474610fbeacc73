"""What a launcher starts on each rank: `python -m grover_dist.pretrain CONFIG --cycles 600 [key=value ...]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from grover_dist.config import load_config
from grover_dist.errors import UserError
from grover_dist.pretrain.candidate import corpus_of, pretrain_candidate
from grover_dist.run_dir import RunDir
from grover_dist.training.loop import Preempted
from grover_dist.training.ranks import Ranks

EXIT_FAILED, EXIT_USER_ERROR = 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m grover_dist.pretrain", description="Pretrain one candidate; start it under any launcher."
    )
    parser.add_argument("config", help="settings file")
    parser.add_argument("--cycles", type=int, required=True, help="which vocabulary: the number of merges")
    parser.add_argument("--budget-bases", type=int, help="bases to show; by default pretrain.budget_bases")
    parser.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)  # the deepspeed launcher adds it; the environment says the same
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that replace those of the file")
    given = parser.parse_intermixed_args(arguments)
    try:
        config = load_config(given.config, given.overrides)
        resources = config.resources
        ranks = Ranks.join(
            resources.rank_timeout_seconds, start_timeout_seconds=resources.start_timeout_seconds, threads=int(resources.cpus_per_rank)
        )
        run = ranks.on_main(lambda: RunDir.open(config))
        corpus = run.here(ranks.on_main(lambda: corpus_of(run)))
        budget_bases = given.budget_bases or config.pretrain.budget_bases
        artifact = pretrain_candidate(config, run, corpus, given.cycles, budget_bases=budget_bases, ranks=ranks)
        if ranks.is_main:
            print(run.address_of(artifact))
        return 0
    except UserError as error:
        print(f"grover-dist: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except Preempted as stopped:
        print(f"grover-dist: {stopped}", file=sys.stderr)
        return EXIT_FAILED


if __name__ == "__main__":
    Ranks.end_process(main())
