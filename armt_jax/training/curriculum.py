"""The curriculum: which task is trained on, and when the next one begins.

Everything here is a value or a pure function. ``Position`` says where a run stands; it is what
a checkpoint keeps, so that a run continued from it makes the same decisions.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from armt_jax.config import CurriculumConfig
from armt_jax.tasks.associative_retrieval import AssociativeRetrieval
from armt_jax.tasks.stage_data import RetrievalData, StageData


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage: what it reads, and when it ends (see ``CurriculumConfig``)."""

    index: int
    data: StageData
    max_steps: int
    target: float

    @property
    def label(self) -> str:
        """For people, such as ``remember, 50 pairs of key size 2``."""
        return self.data.label


@dataclasses.dataclass(frozen=True)
class StageResult:
    """How a stage ended: after ``steps``, at ``exact_match`` of its validation set.

    ``seconds`` is the time the stage took, compilation and evaluations included. It is all that
    differs between two runs of the same experiment.
    """

    stage: int
    steps: int
    exact_match: float
    reached: bool
    seconds: float


@dataclasses.dataclass(frozen=True)
class Position:
    """Where a run stands.

    Attributes:
      stage: index of the stage; the number of stages once the run is finished.
      step_in_stage: finished steps of that stage.
      step: finished steps of the run.
      history: the stages that have ended.
    """

    stage: int = 0
    step_in_stage: int = 0
    step: int = 0
    history: tuple[StageResult, ...] = ()

    def stepped(self) -> Position:
        """After one more step."""
        return dataclasses.replace(self, step_in_stage=self.step_in_stage + 1, step=self.step + 1)

    def advanced(self, exact_match: float, reached: bool, seconds: float) -> Position:
        """At the start of the next stage; ``seconds`` are those this one took."""
        result = StageResult(self.stage, self.step_in_stage, exact_match, reached, seconds)
        return Position(self.stage + 1, 0, self.step, (*self.history, result))

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Position:
        """The inverse of ``to_json``."""
        history = tuple(StageResult(**result) for result in values["history"])
        return cls(values["stage"], values["step_in_stage"], values["step"], history)


def retrieval_stages(curriculum: CurriculumConfig, value_size: int) -> tuple[Stage, ...]:
    """The stages of associative retrieval that a configuration describes."""
    return tuple(
        Stage(
            index=index,
            data=RetrievalData(
                AssociativeRetrieval(
                    variant=curriculum.variant[index],
                    num_pairs=curriculum.num_pairs[index],
                    key_size=curriculum.key_size[index],
                    value_size=value_size,
                    num_queries=curriculum.num_queries,
                    random_num_pairs=curriculum.random_num_pairs,
                    key_symbols=curriculum.key_symbols[index],
                    random_symbols=curriculum.random_symbols[index],
                )
            ),
            max_steps=curriculum.max_steps[index],
            target=curriculum.target[index],
        )
        for index in range(curriculum.num_stages)
    )


def evaluation_due(stage: Stage, step_in_stage: int, eval_every: int) -> bool:
    """Whether the stage is evaluated after this many of its steps: regularly, and at its end."""
    return step_in_stage % eval_every == 0 or step_in_stage >= stage.max_steps


def stage_ends(stage: Stage, step_in_stage: int, exact_match: float) -> bool:
    """Whether the stage is over: its target is reached, or its steps are used up."""
    return exact_match >= stage.target or step_in_stage >= stage.max_steps


def score(stage: int, exact_match: float) -> float:
    """What the best checkpoint is best at: a later stage first, then exact match within it."""
    return 2.0 * stage + exact_match
