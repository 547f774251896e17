"""AdamW, Muon, clipping and the learning-rate schedule.

The optimizer is a transformation without a learning rate: the rate of every step is computed on
the host by ``learning_rate`` and given to the training step. So a stage that ends early changes
no compiled program, and the rate is a function of the position alone, nothing to be restored.
"""

from __future__ import annotations

from typing import Any

import jax
import optax
from optax import contrib

from armt_jax.config import AnyCurriculum, OptimizerConfig
from armt_jax.models.protocol import Params


def create_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """AdamW (Loshchilov & Hutter 2019) or Muon behind clipping: all but the learning rate.

    Weight decay applies to every parameter, as in the authors' code. ``apply_updates`` multiplies
    by the rate.

    Muon (Jordan et al. 2024; scaled as in arXiv 2502.16982) moves all directions of a weight
    matrix alike; it learns to look up in a fraction of AdamW's steps (``BUILD_NOTES.md``). What is
    not a weight matrix takes AdamW with Nesterov momentum.
    """
    clip = {
        "norm": optax.clip_by_global_norm,
        "value": optax.clip,
        "none": lambda _: optax.identity(),
    }[config.clip](config.clip_threshold)
    if config.name == "muon":
        muon = contrib.muon(
            learning_rate=config.muon_learning_rate / config.learning_rate,
            adam_learning_rate=1.0,
            adam_b1=config.b1,
            adam_b2=config.b2,
            eps=config.eps,
            weight_decay=config.weight_decay,
            adam_weight_decay=config.weight_decay,
            consistent_rms=0.2,
            muon_weight_dimension_numbers=_matrices,
        )
        # Optax's finished optimizers return what to add; apply_updates subtracts.
        return optax.chain(clip, muon, optax.scale(-1.0))
    return optax.chain(
        clip,
        optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps),
        optax.add_decayed_weights(config.weight_decay),
    )


def _matrices(params: Params) -> Any:
    """The last two axes of each weight matrix; None for embeddings, norms, biases and vectors.

    Axes in front (stacked layers) hold matrices of their own.
    """

    def axes(path: tuple[Any, ...], leaf: jax.Array) -> contrib.MuonDimensionNumbers | None:
        if not is_muon_matrix(getattr(path[-1], "key", None), leaf.shape):
            return None
        return contrib.MuonDimensionNumbers(leaf.ndim - 2, leaf.ndim - 1)

    return jax.tree_util.tree_map_with_path(axes, params)


def is_muon_matrix(name: object, shape: tuple[int, ...]) -> bool:
    """Whether Muon moves a parameter, whose own name is ``name``: weight matrices, no vectors."""
    return name == "kernel" and len(shape) >= 2 and min(shape[-2:]) > 1


def apply_updates(params: Params, updates: Params, rate: jax.Array) -> Params:
    """``params - rate * updates``, each leaf in its own dtype."""
    return jax.tree.map(lambda p, u: (p - rate * u).astype(p.dtype), params, updates)


def learning_rate(
    config: OptimizerConfig,
    curriculum: AnyCurriculum,
    stage: int,
    step_in_stage: int,
) -> float:
    """Rate of the step that follows ``step_in_stage`` finished steps of ``stage`` (both from 0).

    That of the schedule, times the stage's ``learning_rate_factor`` where the curriculum has one.

    Linear warm-up, ``(i + 1) / warmup_steps`` at step i, so that no step has rate 0; then, with
    the ``linear`` schedule, a straight line from 1 at the end of the warm-up to
    ``final_fraction`` where the scope ends. Steps are counted by ``scope``:

    - ``stage``: every stage warms up and decays over its own ``max_steps``;
    - ``last_stage``: the run warms up once, holds, and decays over the last stage;
    - ``run``: one schedule over the sum of all ``max_steps``. A stage that ends early skips its
      remaining steps of the schedule: the rate of a stage does not depend on those before it.
    """
    factors = getattr(curriculum, "learning_rate_factor", None)
    factor = 1.0 if factors is None else factors[stage]
    return config.learning_rate * factor * _scheduled(config, curriculum, stage, step_in_stage)


def _scheduled(
    config: OptimizerConfig, curriculum: AnyCurriculum, stage: int, step_in_stage: int
) -> float:
    """Share of the rate: the schedule of ``learning_rate``."""
    before = sum(curriculum.max_steps[:stage])
    if config.scope == "stage":
        step, warmed, start, total = step_in_stage, step_in_stage, 0, curriculum.max_steps[stage]
    elif config.scope == "run":
        step = warmed = before + step_in_stage
        start, total = 0, sum(curriculum.max_steps)
    else:
        warmed = before + step_in_stage
        start = sum(curriculum.max_steps[:-1])
        step, total = warmed, start + curriculum.max_steps[-1]
    if warmed < config.warmup_steps:
        return (warmed + 1) / config.warmup_steps
    if config.schedule == "constant":
        return 1.0
    start = max(start, config.warmup_steps)
    passed = min(1.0, max(0.0, (step - start) / max(1, total - start)))
    return 1.0 - (1.0 - config.final_fraction) * passed
