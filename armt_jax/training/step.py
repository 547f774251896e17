"""One optimizer step: read the contexts, ask the queries, update the parameters."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from armt_jax.config import ConfigError
from armt_jax.evaluation.scoring import USUAL, Reading, Scores, Scoring
from armt_jax.models.frozen import without_frozen
from armt_jax.models.protocol import Params, SegmentModel
from armt_jax.sharding import STAGE, batched, replicated
from armt_jax.sharding.placement import Placement
from armt_jax.training.optimizer import apply_updates
from armt_jax.training.state import TrainState, abstract_state


class StepMetrics(NamedTuple):
    """Scalars of one training step, of the parameters before it.

    Attributes:
      loss: mean cross-entropy of the scored tokens, in nats.
      exact_match: share of queries answered exactly.
      grad_norm: global norm of the gradient, before clipping.
      finite: ``[leaves]`` bool, per parameter whether its gradient is finite.
    """

    loss: jax.Array
    exact_match: jax.Array
    grad_norm: jax.Array
    finite: jax.Array


def accumulate_gradients(
    model: SegmentModel,
    params: Params,
    batch: Any,
    scoring: Scoring,
    pieces: int,
    placement: Placement | None = None,
    reading: Reading = USUAL,
) -> tuple[Scores, Params]:
    """Scores and the gradient of the batch's mean loss, ``b / pieces`` contexts at a time.

    Every piece is divided by the scored tokens of the whole batch, so pieces with fewer real
    queries weigh less and the sum is the gradient of the undivided batch. In ``Placement.run``
    ``batch`` is one device's share, and so are the results; only the scored tokens are everyone's.
    """
    scored = scoring.count(batch)
    stages = 1
    if placement is not None:
        scored, stages = placement.sum_over_batch(scored), placement.stages

    def mean_loss(params: Params, piece: Any) -> tuple[jax.Array, Scores]:
        scores = scoring.score(model, params, piece, reading, stages)
        return scores.loss / jnp.maximum(scored, 1.0), scores

    gradient = jax.grad(mean_loss, has_aux=True)
    if pieces == 1:
        grads, scores = gradient(params, batch)
        return scores, grads

    def add(total: tuple[Scores, Params], piece: Any) -> tuple[tuple[Scores, Params], None]:
        grads, scores = gradient(params, piece)
        return jax.tree.map(jnp.add, total, (scores, grads)), None

    split = jax.tree.map(lambda x: x.reshape(pieces, -1, *x.shape[1:]), batch)
    grads, scores = jax.eval_shape(gradient, params, jax.tree.map(lambda x: x[0], split))
    start = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (scores, grads))
    (scores, grads), _ = lax.scan(add, start, split)
    return scores, grads


def sharded_gradients(
    model: SegmentModel,
    params: Params,
    batch: Any,
    scoring: Scoring,
    pieces: int,
    mesh: Mesh,
    reading: Reading = USUAL,
) -> tuple[Scores, Params]:
    """``accumulate_gradients`` over a mesh: gradients lie as the parameters do.

    Raises:
      ConfigError: a schedule named beside a mesh that is a pipeline.
    """
    placement = Placement(model, mesh)
    if placement.stages > 1 and reading.schedule != "auto":
        raise ConfigError(
            f"train.schedule = {reading.schedule!r}: must be 'auto' with mesh.{STAGE} = "
            f"{placement.stages}, which makes it a pipeline"
        )

    def work(params: Params, batch: Any) -> tuple[Scores, Params]:
        whole, leave = jax.vjp(placement.enter, params)
        scores, grads = accumulate_gradients(
            placement.model, whole, batch, scoring, pieces, placement, reading
        )
        return placement.total(scores), placement.sum_gradients(leave(grads)[0])

    scores, grads = placement.run(work, (P(), placement.by_hand))(params, batch)
    return scores, placement.place(grads)


def train_step(
    model: SegmentModel,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    batch: Any,
    rate: jax.Array,
    *,
    scoring: Scoring,
    grad_accum: int = 1,
    mesh: Mesh | None = None,
    reading: Reading = USUAL,
) -> tuple[TrainState, StepMetrics]:
    """The state after one step on ``batch`` with learning rate ``rate``, and the step's metrics.

    Args:
      model, optimizer: see ``create_model`` and ``create_optimizer``.
      state: before the step.
      batch: ``b`` contexts with their queries.
      rate: float32 scalar.
      scoring: what is predicted of a batch.
      grad_accum: number of pieces the batch (of one device) is worked on in; must divide it.
      mesh: of the axes of ``armt_jax.sharding``; None: one device.
      reading: how contexts are read, and what is kept of them for the backward pass.
    """
    sizes = {"scoring": scoring, "pieces": grad_accum, "reading": reading}
    if mesh is None:
        scores, grads = accumulate_gradients(model, state.params, batch, **sizes)
    else:
        scores, grads = sharded_gradients(model, state.params, batch, mesh=mesh, **sizes)
    grads = without_frozen(model.config, grads)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = apply_updates(state.params, updates, rate)
    leaves = jax.tree.leaves(grads)
    tokens = jnp.maximum(scoring.count(batch), 1.0)
    queries = jnp.maximum(scores.matches.total, 1).astype(jnp.float32)
    metrics = StepMetrics(
        loss=scores.loss / tokens,
        exact_match=scores.matches.correct / queries,
        grad_norm=jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in leaves)),
        finite=jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]),
    )
    return TrainState(params, opt_state, state.step + 1), metrics


def jit_train_step(
    model: SegmentModel,
    optimizer: optax.GradientTransformation,
    scoring: Scoring,
    grad_accum: int,
    mesh: Mesh,
    reading: Reading = USUAL,
) -> Callable[[TrainState, Any, Any], tuple[TrainState, StepMetrics]]:
    """``train_step`` compiled; the state given to it is donated and must not be used again.

    Raises:
      ConfigError: a mesh over which the model cannot be split.
    """
    Placement(model, mesh)  # what it refuses is refused here, not when the first batch is there
    options = {"scoring": scoring, "grad_accum": grad_accum}
    step = functools.partial(train_step, model, optimizer, mesh=mesh, reading=reading, **options)
    template = abstract_state(model, optimizer, mesh)
    state = jax.tree.map(lambda leaf: leaf.sharding, template)
    everywhere = replicated(mesh)
    return jax.jit(
        step,
        donate_argnums=0,
        in_shardings=(state, batched(mesh), everywhere),
        out_shardings=(state, everywhere),
    )
