"""Experiments as values, and their way from and to plain dicts."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from armt_jax.config import babilong, language_modelling
from armt_jax.config.babilong import (
    INVENTED_DIFFICULTIES,
    BabilongConfig,
    BabilongCurriculum,
    BabilongEvaluation,
    fewest_names,
)
from armt_jax.config.checks import ConfigError, one_of, require
from armt_jax.config.language_modelling import (
    LanguageModellingConfig,
    LanguageModellingCurriculum,
    LanguageModellingEvaluation,
)
from armt_jax.config.model import ModelConfig
from armt_jax.config.recall_tasks import (
    ENTITY_EVENTS_NAME,
    MQAR_NAME,
    EntityEventsConfig,
    EntityEventsCurriculum,
    EntityEventsEvaluation,
    MqarConfig,
    MqarCurriculum,
    MqarEvaluation,
)
from armt_jax.config.task import CurriculumConfig, TaskConfig, check_pairs
from armt_jax.config.training import EvaluationConfig, MeshConfig, OptimizerConfig, TrainConfig
from armt_jax.config.tuning import TuningConfig

if TYPE_CHECKING:
    from ml_collections import ConfigDict


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What every training has: what is trained, how, and where it is kept."""

    name: str
    seed: int
    workdir: str
    model: ModelConfig
    optimizer: OptimizerConfig
    train: TrainConfig
    mesh: MeshConfig
    tuning: TuningConfig = dataclasses.field(default=TuningConfig(), kw_only=True)

    def __post_init__(self) -> None:
        require(bool(self.name), "name", self.name, "must not be empty")
        require(bool(self.workdir), "workdir", self.workdir, "must name a folder")
        require(0 <= self.seed < 2**31, "seed", self.seed, "must be in [0, 2**31)")
        require(
            self.tuning.trains != "lora" or self.mesh.tensor == 1,
            "mesh.tensor",
            self.mesh.tensor,
            "must be 1 with tuning.trains = 'lora', whose products are not split",
        )
        require(
            self.tuning.teacher is None or self.mesh.tensor == 1,
            "mesh.tensor",
            self.mesh.tensor,
            "must be 1 with tuning.teacher, whose products are not split",
        )
        require(
            self.tuning.teacher is None or isinstance(self, LanguageModellingExperiment),
            "tuning.teacher",
            self.tuning.teacher,
            "must be None but for language modelling",
        )


@dataclasses.dataclass(frozen=True)
class ExperimentConfig(Experiment):
    """An experiment of associative retrieval: what ``experiments.main`` needs and nothing else."""

    task: TaskConfig
    curriculum: CurriculumConfig
    evaluation: EvaluationConfig

    def __post_init__(self) -> None:
        super().__post_init__()
        longest_key = max((self.task.key_size, *self.curriculum.key_size))
        longest_pair = longest_key + self.task.value_size + 2
        self.model.check_segment(longest_pair)
        most_pairs = max((*self.curriculum.num_pairs, *self.evaluation.num_pairs))
        # The pairs, and a query as long as one of them.
        self.model.check_text((most_pairs + 1) * longest_pair)
        require(
            self.model.vocab_size > 102,
            "model.vocab_size",
            self.model.vocab_size,
            "must be at least 103: the separators of associative retrieval are tokens 100 to 102",
        )
        for index, value in enumerate(self.evaluation.num_pairs):
            check_pairs(
                f"evaluation.num_pairs[{index}]", self.task.variant, value, self.task.key_size
            )


@dataclasses.dataclass(frozen=True)
class BabilongExperiment(Experiment):
    """An experiment of BABILong."""

    task: BabilongConfig
    curriculum: BabilongCurriculum
    evaluation: BabilongEvaluation

    def __post_init__(self) -> None:
        super().__post_init__()
        for size in (self.task.segment_size, *self.curriculum.segment_size):
            self.model.check_segment(size)
        accepted = f"must be all 0 with model.family = {self.model.family!r}: no write gates"
        for name in ("gate_weight", "noise_mined"):
            values = getattr(self.curriculum, name)
            right = self.model.family == "armt" or not any(values)
            require(right, f"curriculum.{name}", values, accepted)
        task, stages = self.task.task, self.curriculum
        most = INVENTED_DIFFICULTIES.get(task, 1)
        for stage, difficulty in enumerate(stages.difficulty):
            message = f"must be at most {most}, what {task} has"
            require(difficulty <= most, f"curriculum.difficulty[{stage}]", difficulty, message)
        for stage, names in enumerate(stages.names):
            facts = stages.max_facts[stage]
            fewest = fewest_names(task, facts, stages.difficulty[stage])
            message = f"must be 0, or at least {fewest} for {facts} facts of {task} (max_facts)"
            require(names == 0 or names >= fewest, f"curriculum.names[{stage}]", names, message)

    @property
    def trained_tokens(self) -> int:
        """Tokens of the longest context of the training."""
        overlap, segments = self.task.segment_overlap, self.curriculum.num_segments
        return max(
            count * (self.segment_size(stage) - overlap) + overlap
            for stage, count in enumerate(segments)
        )

    def segment_size(self, stage: int) -> int:
        """Tokens of a segment in a stage of the curriculum."""
        return self.curriculum.segment_size[stage] or self.task.segment_size


@dataclasses.dataclass(frozen=True)
class MqarExperiment(Experiment):
    """An experiment of multi-query associative recall."""

    task: MqarConfig
    curriculum: MqarCurriculum
    evaluation: MqarEvaluation

    def __post_init__(self) -> None:
        super().__post_init__()
        self.model.check_segment(self.task.segment_size)
        self.model.check_text(max((*self.curriculum.length, *self.evaluation.length)))
        _check_vocabulary(self.model, self.task.vocab_size)


@dataclasses.dataclass(frozen=True)
class EntityEventsExperiment(Experiment):
    """An experiment of events on mutable entities."""

    task: EntityEventsConfig
    curriculum: EntityEventsCurriculum
    evaluation: EntityEventsEvaluation

    def __post_init__(self) -> None:
        super().__post_init__()
        length = self.task.value_size + 5
        self.model.check_segment(length)
        most = max((*self.curriculum.num_events, *self.evaluation.num_events))
        self.model.check_text((most + 1) * length)
        _check_vocabulary(self.model, 106)


def _check_vocabulary(model: ModelConfig, needed: int) -> None:
    accepted = f"must be at least {needed}, the task's tokens"
    require(model.vocab_size >= needed, "model.vocab_size", model.vocab_size, accepted)


@dataclasses.dataclass(frozen=True)
class LanguageModellingExperiment(Experiment):
    """An experiment of language modelling."""

    task: LanguageModellingConfig
    curriculum: LanguageModellingCurriculum
    evaluation: LanguageModellingEvaluation

    def __post_init__(self) -> None:
        super().__post_init__()
        own = self.task.segment_size
        for size in (own, *self.curriculum.segment_size):
            self.model.check_segment(size)
        last = self.curriculum.segment_size[-1]
        message = f"must be 0 or task.segment_size = {own}: the last stage is what is evaluated"
        require(last in (0, own), "curriculum.segment_size[-1]", last, message)
        if self.task.memory == "kept":
            trained = (
                count * self.segment_size(stage)
                for stage, count in enumerate(self.curriculum.num_segments)
            )
            self.model.check_text(max(*trained, own * self.evaluation.num_segments))
        require(
            self.mesh.stage == 1,
            "mesh.stage",
            self.mesh.stage,
            "must be 1: a pipeline trains on queries, and language modelling has none",
        )

    def segment_size(self, stage: int) -> int:
        """Tokens of a segment in a stage of the curriculum."""
        return self.curriculum.segment_size[stage] or self.task.segment_size

    @property
    def trained_segments(self) -> int:
        """Segments of the longest context of the training, of those of the task's own size."""
        counts = enumerate(self.curriculum.num_segments)
        own = self.task.segment_size
        return max(count for stage, count in counts if self.segment_size(stage) == own)


RecallExperiment = MqarExperiment | EntityEventsExperiment
AnyExperiment = (
    ExperimentConfig | BabilongExperiment | RecallExperiment | LanguageModellingExperiment
)
AnyCurriculum = (
    CurriculumConfig
    | BabilongCurriculum
    | MqarCurriculum
    | EntityEventsCurriculum
    | LanguageModellingCurriculum
)
# By ``task.name``; associative retrieval has none.
KINDS: dict[str, type[Experiment]] = {
    babilong.TASK_NAME: BabilongExperiment,
    MQAR_NAME: MqarExperiment,
    ENTITY_EVENTS_NAME: EntityEventsExperiment,
    language_modelling.TASK_NAME: LanguageModellingExperiment,
}


def from_config_dict(config: Mapping[str, Any] | ConfigDict) -> AnyExperiment:
    """The checked experiment of a ``ConfigDict`` (or any nested mapping).

    ``task.name`` says which kind it is; without one it is associative retrieval.

    Raises:
      ConfigError: unknown or missing key, wrong type, impossible value.
    """
    to_dict = getattr(config, "to_dict", None)
    plain = to_dict() if callable(to_dict) else config
    kind: type[Experiment] = ExperimentConfig
    task = plain.get("task") if isinstance(plain, Mapping) else None
    if isinstance(task, Mapping) and "name" in task:
        one_of("task.name", task["name"], tuple(KINDS))
        kind = KINDS[task["name"]]
    return typing.cast(AnyExperiment, _build(kind, plain, ""))


def to_dict(config: Experiment) -> dict[str, Any]:
    """The experiment as nested plain dicts and lists: what is written as ``config.json``."""
    return typing.cast(dict[str, Any], _plain(dataclasses.asdict(config)))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _build(cls: type, values: Any, prefix: str) -> Any:
    where = prefix.rstrip(".") or "config"
    require(isinstance(values, Mapping), where, values, "must be a group of settings")
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for key in values:
        require(
            key in fields,
            f"{prefix}{key}",
            values[key],
            f"unknown key; {where} has {', '.join(fields)}",
        )
    hints = typing.get_type_hints(cls)
    built = {}
    for name, field in fields.items():
        if name not in values:
            if field.default is dataclasses.MISSING:
                raise ConfigError(f"{prefix}{name} is missing from {where}")
            continue
        built[name] = _convert(hints[name], values[name], f"{prefix}{name}")
    return cls(**built)


def _convert(hint: Any, value: Any, name: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _build(typing.cast(type, hint), value, f"{name}.")
    origin = typing.get_origin(hint)
    if origin is types.UnionType:
        options = typing.get_args(hint)
        if value is None and types.NoneType in options:
            return None
        return _convert(next(o for o in options if o is not types.NoneType), value, name)
    if origin is tuple:
        require(isinstance(value, list | tuple), name, value, "must be a list or tuple")
        item = typing.get_args(hint)[0]
        return tuple(_convert(item, entry, f"{name}[{i}]") for i, entry in enumerate(value))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    right = isinstance(value, hint) and not (hint is int and isinstance(value, bool))
    require(right, name, value, f"must be of type {hint.__name__}")
    return value
