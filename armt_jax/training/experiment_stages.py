"""From an experiment's configuration to the stages that the trainer goes through."""

from __future__ import annotations

import math

from armt_jax.config import (
    AnyExperiment,
    BabilongExperiment,
    ExperimentConfig,
    LanguageModellingExperiment,
)
from armt_jax.tasks.babilong.stage_data import babilong_data
from armt_jax.tasks.language_modelling.stage_data import language_modelling_data
from armt_jax.tasks.recall_experiments import recall_tasks
from armt_jax.tasks.recall_stages import RecallData
from armt_jax.training.curriculum import Stage, retrieval_stages


def create_stages(config: AnyExperiment) -> tuple[Stage, ...]:
    """The stages of ``config``, whatever its task."""
    if isinstance(config, ExperimentConfig):
        return retrieval_stages(config.curriculum, config.task.value_size)
    if isinstance(config, LanguageModellingExperiment):
        # No share of right tokens is an end: a stage uses all its steps.
        steps = config.curriculum.max_steps
        return tuple(
            Stage(index, stage, steps[index], math.inf)
            for index, stage in enumerate(language_modelling_data(config))
        )
    curriculum = config.curriculum
    if isinstance(config, BabilongExperiment):
        data = babilong_data(config)
    else:
        data = tuple(RecallData(task) for task in recall_tasks(config))
    return tuple(
        Stage(index, data[index], curriculum.max_steps[index], curriculum.target[index])
        for index in range(curriculum.num_stages)
    )
