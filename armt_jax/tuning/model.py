"""The model and the scoring of a training that changes a part of the parameters."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from armt_jax.config import AnyExperiment, ModelConfig, TuningConfig
from armt_jax.evaluation.scoring import USUAL, Reading, Scores, Scoring
from armt_jax.models import create_model
from armt_jax.models.protocol import Params, SegmentModel
from armt_jax.tuning.groups import freeze
from armt_jax.tuning.lora import WithLora, merge_lora


def tuned_model(config: ModelConfig, tuning: TuningConfig) -> Any:
    """The model that ``config`` describes; of ``trains = 'lora'`` factors are parameters, too."""
    model = create_model(config)
    return WithLora(model, tuning) if tuning.trains == "lora" else model


def plain_params(config: AnyExperiment, params: Params) -> Params:
    """Trained parameters as those of ``create_model(config.model)``: what is exported."""
    return merge_lora(config.tuning, params) if config.tuning.trains == "lora" else params


@dataclasses.dataclass(frozen=True)
class TunedScoring:
    """A ``Scoring`` of parameters of which some are frozen and some are factors."""

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
        params = freeze(self.tuning, params)
        if isinstance(model, WithLora):
            model, params = model.model, merge_lora(self.tuning, params)
        return self.scoring.score(model, params, batch, reading, stages)


def tuned_scoring(scoring: Scoring, tuning: TuningConfig) -> Scoring:
    """``scoring`` itself where all parameters are trained as they are."""
    return scoring if tuning.is_plain else TunedScoring(scoring, tuning)
