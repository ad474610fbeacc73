"""The whole settings tree. One YAML file, `extends:` another, dotted overrides; every default stands here and nowhere else.

Two sections never change a result and stay out of every hash: `resources` (where and how wide) and `tracking` (who watches).
"""

from grover_dist.config.analysis import AnalysisSettings, AnchorSettings, AnnotationFormat, GrammarSettings, TrackSettings
from grover_dist.config.files import config_from, load_config
from grover_dist.config.genome import (
    MAX_CYCLES,
    BpeSettings,
    GenomeSettings,
    SplitSettings,
    SyntheticSettings,
    TransposonSettings,
    WindowSettings,
)
from grover_dist.config.machine import DEFAULT_CACHE, ResourceSettings, RunSettings, S3Url, TrackingSettings
from grover_dist.config.section import Section, settings_hash, to_plain
from grover_dist.config.tasks import FinetuneSettings, HeadSettings, LadderSettings, SelectionSettings, TaskHeadSettings, TaskSettings
from grover_dist.config.training import EngineSettings, MaskSettings, ModelSettings, OptimizerSettings, PretrainSettings
from grover_dist.config.tree import Config

__all__ = [
    "DEFAULT_CACHE",
    "MAX_CYCLES",
    "AnalysisSettings",
    "AnchorSettings",
    "AnnotationFormat",
    "BpeSettings",
    "Config",
    "EngineSettings",
    "FinetuneSettings",
    "GenomeSettings",
    "GrammarSettings",
    "HeadSettings",
    "LadderSettings",
    "MaskSettings",
    "ModelSettings",
    "OptimizerSettings",
    "PretrainSettings",
    "ResourceSettings",
    "RunSettings",
    "S3Url",
    "Section",
    "SelectionSettings",
    "SplitSettings",
    "SyntheticSettings",
    "TaskHeadSettings",
    "TaskSettings",
    "TrackSettings",
    "TrackingSettings",
    "TransposonSettings",
    "WindowSettings",
    "config_from",
    "load_config",
    "settings_hash",
    "to_plain",
]
