"""From the settings of MQAR and of events on entities to the tasks that they describe."""

from __future__ import annotations

from armt_jax.config import EntityEventsExperiment, MqarExperiment, RecallExperiment
from armt_jax.tasks.entity_events import EntityEvents
from armt_jax.tasks.mqar import Mqar
from armt_jax.tasks.recall_stages import RecallTask


def recall_tasks(config: RecallExperiment) -> tuple[RecallTask, ...]:
    """The task of each stage.

    Raises:
      ConfigError: sizes of a stage that do not fit each other.
    """
    if isinstance(config, MqarExperiment):
        curriculum = config.curriculum
        sizes = zip(curriculum.num_pairs, curriculum.length, strict=True)
        return tuple(_mqar(config, pairs, length) for pairs, length in sizes)
    stages = config.curriculum
    return tuple(
        EntityEvents(
            num_events=stages.num_events[index],
            num_entities=stages.num_entities[index],
            num_attributes=stages.num_attributes[index],
            numeric_attributes=stages.numeric_attributes[index],
            value_size=config.task.value_size,
            delete_share=stages.delete_share[index],
            num_queries=stages.num_queries,
        )
        for index in range(stages.num_stages)
    )


def evaluation_tasks(config: RecallExperiment) -> tuple[RecallTask, ...]:
    """The task at each length of the evaluation.

    Raises:
      ConfigError: sizes that do not fit each other.
    """
    if isinstance(config, MqarExperiment):
        sizes = zip(config.evaluation.num_pairs, config.evaluation.length, strict=True)
        return tuple(_mqar(config, pairs, length) for pairs, length in sizes)
    return tuple(_events(config, events) for events in config.evaluation.num_events)


def _mqar(config: MqarExperiment, num_pairs: int, length: int) -> Mqar:
    task = config.task
    return Mqar(
        num_pairs, length, task.vocab_size, task.power, task.random_filler, task.segment_size
    )


def _events(config: EntityEventsExperiment, num_events: int) -> EntityEvents:
    task = config.task
    return EntityEvents(
        num_events=num_events,
        num_entities=task.num_entities,
        num_attributes=task.num_attributes,
        numeric_attributes=task.numeric_attributes,
        value_size=task.value_size,
        delete_share=task.delete_share,
        num_queries=1,
    )
