"""Stage "health": what every candidate vocabulary looks like in its genome, before any model is trained."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from grover_dist.bpe.health import vocabulary_health
from grover_dist.config import Config
from grover_dist.corpus.corpus import Corpus
from grover_dist.run_dir import Artifact, RunDir, Work


def measure_health(config: Config, run: RunDir, corpus: Artifact, say: Callable[[str], None] = print) -> Artifact:
    """Stage "health": `health.json`, the figures of grover_dist.bpe.health by cycles as text.

    An artefact of its own and not a part of vocabulary.json: it depends on the list of candidates, and the vocabulary does not.
    """
    cycles = sorted(config.pretrain.candidates)

    def write(work: Work) -> None:
        opened = Corpus.open(corpus)
        store = opened.store

        def read(start: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            return store.base(start, stop), store.level(start, stop), store.masked(start, stop)

        found = vocabulary_health(opened.vocabulary, cycles, read, store.contigs.row_start, seed=config.seed)
        work.write_json("health.json", found)
        for each in cycles:
            figures = found[str(each)]
            work.counts[f"bases_per_token_{each}"] = round(figures["bases_per_token"], 4)
            say(
                f"vocabulary of {each:,} cycles: {figures['bases_per_token']:.2f} bases a token, {figures['dead_tokens']} dead, "
                f"closed under reverse complement to {figures['reverse_complement_closure']:.1%}"
            )

    return run.once("health", "vocabulary", write, settings={"seed": config.seed, "cycles": cycles}, inputs={"learn": corpus}, say=say)
