"""The compiled programs of a training: a step and an evaluation for every way of scoring."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import optax
from jax.sharding import Mesh

from armt_jax.config import AnyExperiment
from armt_jax.evaluation.evaluate import Evaluator
from armt_jax.evaluation.scoring import Reading, Scoring
from armt_jax.models.protocol import SegmentModel
from armt_jax.training.curriculum import Stage
from armt_jax.training.step import jit_train_step
from armt_jax.tuning import tuned_scoring


class Programs(NamedTuple):
    """Attributes: ``jit_train_step``'s function, and the evaluation of a validation set."""

    step: Callable[..., Any]
    evaluate: Evaluator


class StagePrograms:
    """Programs by stage; stages that score alike share them, so nothing is compiled twice."""

    def __init__(
        self,
        config: AnyExperiment,
        model: SegmentModel,
        optimizer: optax.GradientTransformation,
        mesh: Mesh,
    ) -> None:
        self._config, self._model, self._optimizer, self._mesh = config, model, optimizer, mesh
        self._made: dict[Scoring, Programs] = {}

    def of(self, stage: Stage) -> Programs:
        """Those of a stage."""
        scoring = tuned_scoring(stage.data.scoring, self._config.tuning)
        if scoring not in self._made:
            self._made[scoring] = self._make(scoring)
        return self._made[scoring]

    def _make(self, scoring: Scoring) -> Programs:
        train = self._config.train
        reading = Reading(train.schedule, train.remat, train.bptt)
        step = jit_train_step(
            self._model, self._optimizer, scoring, train.grad_accum, self._mesh, reading
        )
        batch_size = min(self._config.evaluation.batch_size, train.eval_samples)
        return Programs(step, Evaluator(self._model, scoring, batch_size, self._mesh))
