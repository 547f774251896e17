"""The model and the scoring of a training that changes a part of the parameters."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax

from armt_jax.config import AnyExperiment, ModelConfig, TuningConfig
from armt_jax.evaluation.distillation import Teacher
from armt_jax.evaluation.next_tokens import NextTokens
from armt_jax.evaluation.scoring import USUAL, Reading, Scores, Scoring
from armt_jax.models import create_model
from armt_jax.models.protocol import Params, SegmentModel
from armt_jax.tuning.groups import freeze
from armt_jax.tuning.lora import WithLora, merge_lora
from armt_jax.tuning.teacher import KEY, WithTeacher, with_teacher, without_teacher


def tuned_model(config: ModelConfig, tuning: TuningConfig) -> Any:
    """The model that ``config`` describes; low-rank factors and a teacher are parameters, too.

    Raises:
      ConfigError: a teacher that is not there or has another vocabulary.
    """
    model = create_model(config)
    if tuning.trains == "lora":
        model = WithLora(model, tuning)
    return with_teacher(model, config, tuning)


def plain_params(config: AnyExperiment, params: Params) -> Params:
    """Trained parameters as those of ``create_model(config.model)``: what is exported."""
    params = without_teacher(params)
    return merge_lora(config.tuning, params) if config.tuning.trains == "lora" else params


@dataclasses.dataclass(frozen=True)
class TunedScoring:
    """A ``Scoring`` of parameters of which some are frozen, factors, or a teacher's."""

    scoring: Scoring
    tuning: TuningConfig

    def count(self, batch: Any) -> jax.Array:
        """See ``Scoring``."""
        return self.scoring.count(batch)

    def score(
        self,
        model: SegmentModel,
        params: Params,
        batch: Any,
        reading: Reading = USUAL,
        stages: int = 1,
    ) -> Scores:
        """See ``Scoring``; ``params`` are those of ``tuned_model``."""
        params, score = freeze(self.tuning, params), self.scoring.score
        if isinstance(model, WithTeacher):
            assert isinstance(self.scoring, NextTokens)  # the experiment is language modelling
            weight, temperature = self.tuning.distill_weight, self.tuning.temperature
            teacher = Teacher(model.teacher, params[KEY], weight, temperature)
            score = functools.partial(self.scoring.score, teacher=teacher)
            model, params = model.model, without_teacher(params)
        if isinstance(model, WithLora):
            model, params = model.model, merge_lora(self.tuning, params)
        return score(model, params, batch, reading, stages)


def tuned_scoring(scoring: Scoring, tuning: TuningConfig) -> Scoring:
    """``scoring`` itself where all parameters are trained as they are."""
    return scoring if tuning.is_plain else TunedScoring(scoring, tuning)
