"""Every setting of an experiment, as frozen dataclasses that check themselves.

A config file returns an ``ml_collections.ConfigDict``; ``from_config_dict`` turns it into
an ``Experiment`` once. An unknown key, a missing key, a wrong type or an impossible
value is a ``ConfigError`` of one line: the field, the value, and what would be accepted.
"""

from armt_jax.config.babilong import (
    BabilongConfig,
    BabilongCurriculum,
    BabilongEvaluation,
)
from armt_jax.config.checks import ConfigError
from armt_jax.config.experiment import (
    AnyCurriculum,
    AnyExperiment,
    BabilongExperiment,
    EntityEventsExperiment,
    Experiment,
    ExperimentConfig,
    LanguageModellingExperiment,
    MqarExperiment,
    RecallExperiment,
    from_config_dict,
    to_dict,
)
from armt_jax.config.families import BACKBONES, DTYPES, FAMILIES, STATE_SPACE_FAMILIES
from armt_jax.config.language_modelling import (
    LanguageModellingConfig,
    LanguageModellingCurriculum,
    LanguageModellingEvaluation,
)
from armt_jax.config.model import ModelConfig
from armt_jax.config.task import VARIANTS, CurriculumConfig, TaskConfig, check_pairs
from armt_jax.config.training import (
    REMATS,
    TRAIN_SCHEDULES,
    EvaluationConfig,
    MeshConfig,
    OptimizerConfig,
    TrainConfig,
)
from armt_jax.config.tuning import TuningConfig

__all__ = [
    "BACKBONES",
    "DTYPES",
    "FAMILIES",
    "REMATS",
    "STATE_SPACE_FAMILIES",
    "TRAIN_SCHEDULES",
    "VARIANTS",
    "AnyCurriculum",
    "AnyExperiment",
    "BabilongConfig",
    "BabilongCurriculum",
    "BabilongEvaluation",
    "BabilongExperiment",
    "ConfigError",
    "CurriculumConfig",
    "EntityEventsExperiment",
    "EvaluationConfig",
    "Experiment",
    "ExperimentConfig",
    "LanguageModellingConfig",
    "LanguageModellingCurriculum",
    "LanguageModellingEvaluation",
    "LanguageModellingExperiment",
    "MeshConfig",
    "ModelConfig",
    "MqarExperiment",
    "OptimizerConfig",
    "RecallExperiment",
    "TaskConfig",
    "TrainConfig",
    "TuningConfig",
    "check_pairs",
    "from_config_dict",
    "to_dict",
]
