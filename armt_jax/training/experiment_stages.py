"""From an experiment's configuration to the stages that the trainer goes through."""

from __future__ import annotations

from armt_jax.config import AnyExperiment, ExperimentConfig
from armt_jax.tasks.babilong.stage_data import babilong_data
from armt_jax.training.curriculum import Stage, retrieval_stages


def create_stages(config: AnyExperiment) -> tuple[Stage, ...]:
    """The stages of ``config``, whatever its task."""
    if isinstance(config, ExperimentConfig):
        return retrieval_stages(config.curriculum, config.task.value_size)
    curriculum = config.curriculum
    data = babilong_data(config)
    return tuple(
        Stage(index, data[index], curriculum.max_steps[index], curriculum.target[index])
        for index in range(curriculum.num_stages)
    )
