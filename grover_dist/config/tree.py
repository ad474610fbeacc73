"""All sections together."""

from __future__ import annotations

import yaml
from pydantic import Field, model_validator

from grover_dist.config.analysis import AnalysisSettings, GrammarSettings
from grover_dist.config.genome import BpeSettings, GenomeSettings, SplitSettings, WindowSettings
from grover_dist.config.machine import ResourceSettings, RunSettings, TrackingSettings
from grover_dist.config.section import Section, absolute
from grover_dist.config.tasks import FinetuneSettings, SelectionSettings
from grover_dist.config.training import EngineSettings, ModelSettings, PretrainSettings


class Config(Section):
    seed: int = Field(1, ge=0)
    run: RunSettings = RunSettings()
    genome: GenomeSettings
    bpe: BpeSettings = BpeSettings()
    split: SplitSettings = SplitSettings()
    windows: WindowSettings = WindowSettings()
    model: ModelSettings = ModelSettings()
    engine: EngineSettings = EngineSettings()
    pretrain: PretrainSettings = PretrainSettings()
    selection: SelectionSettings = SelectionSettings()
    finetune: FinetuneSettings = FinetuneSettings()
    analysis: AnalysisSettings = AnalysisSettings()
    grammar: GrammarSettings = GrammarSettings()
    resources: ResourceSettings = ResourceSettings()
    tracking: TrackingSettings = TrackingSettings()

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        too_large = [cycles for cycles in self.pretrain.candidates if cycles > self.bpe.cycles]
        if too_large:
            raise ValueError(f"pretrain.candidates {too_large} are above bpe.cycles {self.bpe.cycles}; raise bpe.cycles or drop them")
        if self.windows.max_tokens + 2 > self.model.positions:
            raise ValueError(
                f"windows.max_tokens {self.windows.max_tokens} plus [CLS] and [SEP] exceeds model.positions {self.model.positions}"
            )
        if self.selection.input_bp + 2 > self.model.positions:
            raise ValueError(f"selection.input_bp {self.selection.input_bp} may exceed model.positions {self.model.positions}")
        if any(task.planted for task in self.finetune.tasks) and self.genome.synthetic is None:
            raise ValueError("finetune.tasks with 'planted' need genome.synthetic")
        return self

    def with_absolute_paths(self) -> Config:
        """Relative paths mean the working folder of the command; workers and jobs have another."""
        return absolute(self)

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
