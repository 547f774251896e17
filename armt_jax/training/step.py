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

from armt_jax.evaluation.evaluate import USUAL, Reading, Scores, score_batch
from armt_jax.evaluation.exact_match import answer_length
from armt_jax.models.protocol import Params, SegmentModel
from armt_jax.sharding import DATA, batched, replicated
from armt_jax.tasks.associative_retrieval import Batch
from armt_jax.training.optimizer import apply_updates
from armt_jax.training.state import TrainState


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
    batch: Batch,
    value_size: int,
    pieces: int,
    axis: str | None = None,
    reading: Reading = USUAL,
) -> tuple[Scores, Params]:
    """Scores and the gradient of the batch's mean loss, ``b / pieces`` contexts at a time.

    Every piece is divided by the scored tokens of the whole batch, so pieces with fewer real
    queries weigh less and the sum is the gradient of the undivided batch. Under ``shard_map``,
    ``batch`` is one device's share and ``axis`` the mesh axis over which everything is summed.
    """
    scored = jnp.sum(batch.query_mask, dtype=jnp.float32) * answer_length(value_size)
    if axis is not None:
        scored = lax.psum(scored, axis)

    def mean_loss(params: Params, piece: Batch) -> tuple[jax.Array, Scores]:
        scores = score_batch(model, params, piece, value_size, reading)
        return scores.loss / jnp.maximum(scored, 1.0), scores

    gradient = jax.grad(mean_loss, has_aux=True)

    def over_devices(scores: Scores, grads: Params) -> tuple[Scores, Params]:
        return (scores, grads) if axis is None else lax.psum((scores, grads), axis)

    if pieces == 1:
        grads, scores = gradient(params, batch)
        return over_devices(scores, grads)

    def add(total: tuple[Scores, Params], piece: Any) -> tuple[tuple[Scores, Params], None]:
        grads, scores = gradient(params, piece)
        return jax.tree.map(jnp.add, total, (scores, grads)), None

    split = jax.tree.map(lambda x: x.reshape(pieces, -1, *x.shape[1:]), batch)
    grads, scores = jax.eval_shape(gradient, params, jax.tree.map(lambda x: x[0], split))
    start = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (scores, grads))
    (scores, grads), _ = lax.scan(add, start, split)
    return over_devices(scores, grads)


def train_step(
    model: SegmentModel,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    batch: Batch,
    rate: jax.Array,
    *,
    value_size: int,
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
      value_size: digits of a value.
      grad_accum: number of pieces the batch (of one device) is worked on in; must divide it.
      mesh: the batch is shared out over its ``data`` axis; None: one device.
      reading: how contexts are read, and what is kept of them for the backward pass.
    """
    gradient = functools.partial(
        accumulate_gradients, model, value_size=value_size, pieces=grad_accum, reading=reading
    )
    if mesh is not None:
        # By hand and not by the compiler, which would sum gradients over devices in every segment.
        gradient = jax.shard_map(
            functools.partial(gradient, axis=DATA),
            mesh=mesh,
            in_specs=(P(), P(DATA)),
            out_specs=P(),
            check_vma=False,
        )
    scores, grads = gradient(state.params, batch)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = apply_updates(state.params, updates, rate)
    leaves = jax.tree.leaves(grads)
    queries = jnp.maximum(scores.matches.total, 1).astype(jnp.float32)
    metrics = StepMetrics(
        loss=scores.loss / (queries * answer_length(value_size)),
        exact_match=scores.matches.correct / queries,
        grad_norm=jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in leaves)),
        finite=jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]),
    )
    return TrainState(params, opt_state, state.step + 1), metrics


def jit_train_step(
    model: SegmentModel,
    optimizer: optax.GradientTransformation,
    value_size: int,
    grad_accum: int,
    mesh: Mesh,
    reading: Reading = USUAL,
) -> Callable[[TrainState, Batch, Any], tuple[TrainState, StepMetrics]]:
    """``train_step`` compiled; the state given to it is donated and must not be used again."""
    options = {"value_size": value_size, "grad_accum": grad_accum}
    step = functools.partial(train_step, model, optimizer, mesh=mesh, reading=reading, **options)
    everywhere = replicated(mesh)
    return jax.jit(
        step,
        donate_argnums=0,
        in_shardings=(everywhere, batched(mesh), everywhere),
        out_shardings=everywhere,
    )
