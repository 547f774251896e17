"""Scoring a model's answers: on one batch, and on a whole frozen set in bounded memory."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from armt_jax.evaluation.exact_match import (
    MatchCount,
    answer_length,
    count_matches,
    predicted_tokens,
)
from armt_jax.models.protocol import Params, Segment, SegmentModel
from armt_jax.processes import global_batch, on_mesh, share_of
from armt_jax.recurrence import run_segments
from armt_jax.sharding import DATA, batched, data_mesh, replicated
from armt_jax.tasks.associative_retrieval import Batch


class Scores(NamedTuple):
    """What a batch's answers are worth.

    Attributes:
      loss: sum of the cross-entropies of the scored tokens, in nats.
      matches: exact answers and queries.
    """

    loss: jax.Array
    matches: MatchCount


def score_batch(model: SegmentModel, params: Params, batch: Batch, value_size: int) -> Scores:
    """Read the contexts ``[b, n, t]`` segment by segment, then ask the queries ``[b, q, t]``.

    Each answer (``value_size`` digits and the separator) is predicted with the right tokens before
    it; logits exist at those positions only. A pair that is padding leaves the memory alone, and a
    query that is padding counts for nothing. Without a gradient the memory needed does not grow
    with ``n``: the scan keeps one state.
    """
    tokens = jnp.swapaxes(batch.context, 0, 1)
    mask = jnp.broadcast_to(batch.context_mask.T[:, :, None], tokens.shape)
    state = model.init_state(batch.context.shape[0])
    segments = Segment(tokens, mask)
    state, _ = run_segments(model, params, state, segments, schedule="auto", need_hidden=False)
    asked = Segment(jnp.asarray(batch.queries), jnp.ones(batch.queries.shape, bool))
    start = batch.queries.shape[-1] - answer_length(value_size)
    hidden = model.ask(params, state, asked)[:, :, start - 1 : -1]
    logits = model.readout(params, hidden)
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    targets = batch.queries[:, :, start:]
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    right = jnp.all(predicted_tokens(logits) == targets, axis=-1)
    loss = jnp.sum(jnp.where(batch.query_mask[:, :, None], losses, 0.0))
    return Scores(loss, count_matches(right, batch.query_mask))


class Evaluator:
    """Exact match of a model on frozen sets; compiled once per shape of a batch."""

    def __init__(
        self, model: SegmentModel, value_size: int, batch_size: int, mesh: Mesh | None = None
    ) -> None:
        """Answers of ``value_size`` digits, about ``batch_size`` contexts at a time.

        A batch is shared out over the ``data`` axis of ``mesh`` (by default, of all devices), and
        made a little larger where it does not divide.
        """
        mesh = data_mesh(jax.device_count()) if mesh is None else mesh
        devices = mesh.shape[DATA]
        self.batch_size = -(-batch_size // devices) * devices

        def count(params: Params, batch: Batch) -> MatchCount:
            return lax.psum(score_batch(model, params, batch, value_size).matches, DATA)

        shared = jax.shard_map(
            count, mesh=mesh, in_specs=(P(), P(DATA)), out_specs=P(), check_vma=False
        )
        self._everywhere, self._batched = replicated(mesh), batched(mesh)
        shardings = (self._everywhere, self._batched)
        self._count = jax.jit(shared, in_shardings=shardings, out_shardings=self._everywhere)

    def __call__(self, params: Params, samples: Batch) -> tuple[int, int]:
        """Right answers and queries over all ``samples`` (leading axis: contexts).

        Every process has all samples, scores its share of each batch and gets the sums over all.
        """
        params = on_mesh(params, self._everywhere)
        share, shares = share_of(self._batched, self.batch_size)
        rows = self.batch_size // shares
        correct = total = 0
        for start in range(0, samples.context.shape[0], self.batch_size):
            first = start + share * rows
            own = jax.tree.map(lambda x, i=first: x[i : i + rows], samples)
            batch = global_batch(fill_up(own, rows), self._batched, self.batch_size)
            counts = self._count(params, batch)
            correct, total = correct + int(counts.correct), total + int(counts.total)
        return correct, total


def fill_up(batch: Batch, size: int) -> Batch:
    """``batch`` with rows of padding (no pair, no query) up to ``size`` contexts."""
    missing = size - batch.context.shape[0]
    if missing <= 0:
        return batch
    return jax.tree.map(
        lambda x: np.concatenate([x, np.zeros((missing, *x.shape[1:]), x.dtype)]), batch
    )
