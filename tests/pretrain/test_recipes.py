"""The shipped recipes for the human genome, and what they set in motion."""

from dataclasses import replace
from pathlib import Path

import pytest

from grover_dist.config import MaskSettings, load_config
from grover_dist.corpus.corpus import Corpus
from grover_dist.corpus.windows import make_windows
from grover_dist.genome.split import split_blocks
from grover_dist.model.size import parameters
from grover_dist.pretrain.candidate import masked_batches
from grover_dist.training.schedule import Schedule
from tests.pretrain.small_run import CYCLES

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@pytest.mark.parametrize("name", ["human-hg19", "human-hg19-modern"])
def test_both_recipes_train_the_papers_model(name):
    config = load_config(CONFIGS / f"{name}.yaml")
    assert parameters(config.model, 600 + 9, pooler=True) == 87_101_793
    assert 600 in config.pretrain.candidates and config.engine.precision == "bf16"


def test_what_the_modern_recipe_does_otherwise():
    paper, modern = (load_config(CONFIGS / f"{name}.yaml").pretrain for name in ("human-hg19", "human-hg19-modern"))
    assert (paper.mask.fraction, paper.held_out_mask.fraction) == (0.022, 0.022)
    assert (modern.mask.fraction, modern.held_out_mask.fraction) == (0.3, 0.15)
    assert modern.packing and modern.micro_batch_windows == "auto"
    schedule = Schedule.of(modern.optimizer, 1_000)
    assert schedule.warmup_steps < schedule.decay_start < 1_000


def test_held_out_windows_are_masked_by_their_own_rate(config, corpus):
    opened = Corpus.open(corpus)
    windows = make_windows(opened.store, split_blocks(opened.store.contigs, config.split, config.seed), config.windows, CYCLES, config.seed)
    given = {"mask": MaskSettings(fraction=0.3), "evaluate_mask": MaskSettings(fraction=0.15)}
    both = masked_batches(config.model_copy(update={"pretrain": config.pretrain.model_copy(update=given)}), opened, windows, CYCLES, 1)

    def share(made):
        return sum(len(batch.labels) for batch in made) / sum(batch.n_tokens for batch in made)

    shown = [batch for step in range(30) for batch in both.step(step)]
    assert share(shown) == pytest.approx(0.3, abs=0.02)
    assert share(both.held_out(10**6)) == pytest.approx(0.15, abs=0.03)
    usual = replace(both, mask=MaskSettings(fraction=0.15), held_out_mask=None)
    assert [batch.labels.tolist() for batch in both.held_out(9)] == [batch.labels.tolist() for batch in usual.held_out(9)]
