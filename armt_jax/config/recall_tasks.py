"""MQAR and events on entities: what is asked, the stages of learning it, and the evaluation."""

from __future__ import annotations

import dataclasses
from typing import Any

from armt_jax.config.checks import one_of, require

MQAR_NAME = "mqar"
ENTITY_EVENTS_NAME = "entity_events"


def check_mqar(prefix: str, sizes: Any) -> None:
    """Raise ``ConfigError`` unless ``sizes`` (``Mqar`` or ``MqarConfig``) fit each other."""
    for name in ("num_pairs", "segment_size"):
        require(getattr(sizes, name) >= 1, f"{prefix}.{name}", getattr(sizes, name), "must be >= 1")
    pairs, vocabulary = sizes.num_pairs, sizes.vocab_size
    most = vocabulary // 2 - 1
    require(pairs <= most, f"{prefix}.num_pairs", pairs, f"must be at most {most}, the keys")
    # Every pair takes two tokens, and its question two places more.
    accepted = f"must be at least {4 * pairs}, for {pairs} pairs and their questions"
    require(sizes.length >= 4 * pairs, f"{prefix}.length", sizes.length, accepted)
    require(sizes.power > 0, f"{prefix}.power", sizes.power, "must be positive")


def check_entity_events(prefix: str, sizes: Any) -> None:
    """Raise ``ConfigError`` unless ``sizes`` (``EntityEvents`` or its config) fit each other."""
    limits = {"num_entities": 256, "num_attributes": 16}
    for name in ("num_events", "num_entities", "num_attributes", "value_size"):
        value, most = getattr(sizes, name), limits.get(name)
        accepted = "must be at least 1" if most is None else f"must be 1 to {most}"
        require(1 <= value <= (most or value), f"{prefix}.{name}", value, accepted)
    numeric, attributes = sizes.numeric_attributes, sizes.num_attributes
    accepted = f"must be 0 to {prefix}.num_attributes = {attributes}"
    require(0 <= numeric <= attributes, f"{prefix}.numeric_attributes", numeric, accepted)
    share = sizes.delete_share
    require(0 <= share < 1, f"{prefix}.delete_share", share, "must be in [0, 1)")
    asked = getattr(sizes, "num_queries", 0)
    require(asked >= 0, f"{prefix}.num_queries", asked, "must be 0 (all) or more")


@dataclasses.dataclass(frozen=True)
class MqarConfig:
    """See ``armt_jax.tasks.mqar.Mqar``."""

    name: str
    num_pairs: int
    length: int
    vocab_size: int
    power: float
    random_filler: bool
    segment_size: int

    def __post_init__(self) -> None:
        one_of("task.name", self.name, (MQAR_NAME,))
        check_mqar("task", self)


@dataclasses.dataclass(frozen=True)
class EntityEventsConfig:
    """See ``armt_jax.tasks.entity_events.EntityEvents``; training has sizes of its own."""

    name: str
    num_events: int
    num_entities: int
    num_attributes: int
    numeric_attributes: int
    value_size: int
    delete_share: float

    def __post_init__(self) -> None:
        one_of("task.name", self.name, (ENTITY_EVENTS_NAME,))
        check_entity_events("task", self)


class _Stages:
    """A curriculum whose tuples have an entry a stage."""

    max_steps: tuple[int, ...]
    target: tuple[float, ...]

    def _check_stages(self) -> None:
        stages = len(self.max_steps)
        require(stages >= 1, "curriculum.max_steps", self.max_steps, "needs a stage at least")
        for name, values in vars(self).items():
            if isinstance(values, tuple):
                accepted = f"needs {stages} entries, one for each of curriculum.max_steps"
                require(len(values) == stages, f"curriculum.{name}", values, accepted)
        for index in range(stages):
            steps, target = self.max_steps[index], self.target[index]
            require(steps >= 1, f"curriculum.max_steps[{index}]", steps, "must be at least 1")
            require(target > 0, f"curriculum.target[{index}]", target, "must be positive")

    @property
    def num_stages(self) -> int:
        """Number of stages."""
        return len(self.max_steps)


@dataclasses.dataclass(frozen=True)
class MqarCurriculum(_Stages):
    """Pairs and tokens of each stage; a stage ends as in retrieval's."""

    num_pairs: tuple[int, ...]
    length: tuple[int, ...]
    max_steps: tuple[int, ...]
    target: tuple[float, ...]

    def __post_init__(self) -> None:
        self._check_stages()


@dataclasses.dataclass(frozen=True)
class EntityEventsCurriculum(_Stages):
    """Sizes of each stage; ``num_queries`` are asked per context, 0 for every attribute named."""

    num_events: tuple[int, ...]
    num_entities: tuple[int, ...]
    num_attributes: tuple[int, ...]
    numeric_attributes: tuple[int, ...]
    delete_share: tuple[float, ...]
    max_steps: tuple[int, ...]
    target: tuple[float, ...]
    num_queries: int

    def __post_init__(self) -> None:
        self._check_stages()
        asked = self.num_queries
        require(asked >= 0, "curriculum.num_queries", asked, "must be 0 (all) or more")


@dataclasses.dataclass(frozen=True)
class MqarEvaluation:
    """Texts of ``length[i]`` tokens with ``num_pairs[i]`` pairs; every key is asked."""

    num_pairs: tuple[int, ...]
    length: tuple[int, ...]
    samples: int
    batch_size: int

    def __post_init__(self) -> None:
        require(len(self.num_pairs) >= 1, "evaluation.num_pairs", self.num_pairs, "needs one")
        accepted = "needs as many entries as evaluation.num_pairs"
        require(len(self.length) == len(self.num_pairs), "evaluation.length", self.length, accepted)
        for name in ("samples", "batch_size"):
            value = getattr(self, name)
            require(value >= 1, f"evaluation.{name}", value, "must be at least 1")


@dataclasses.dataclass(frozen=True)
class EntityEventsEvaluation:
    """Contexts of so many events, on the task's entities; one query each."""

    num_events: tuple[int, ...]
    samples: int
    batch_size: int

    def __post_init__(self) -> None:
        require(len(self.num_events) >= 1, "evaluation.num_events", self.num_events, "needs one")
        for index, value in enumerate(self.num_events):
            require(value >= 1, f"evaluation.num_events[{index}]", value, "must be at least 1")
        for name in ("samples", "batch_size"):
            value = getattr(self, name)
            require(value >= 1, f"evaluation.{name}", value, "must be at least 1")
