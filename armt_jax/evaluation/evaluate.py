"""Scoring a model's answers: on one batch, and on a whole frozen set in bounded memory."""

from __future__ import annotations

import math
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
from armt_jax.recurrence.stages import read_and_ask
from armt_jax.sharding import STAGE, batched, data_mesh, replicated
from armt_jax.sharding.placement import Placement
from armt_jax.tasks.associative_retrieval import Batch


class Scores(NamedTuple):
    """What a batch's answers are worth.

    Attributes:
      loss: sum of the cross-entropies of the scored tokens, in nats.
      matches: exact answers and queries.
    """

    loss: jax.Array
    matches: MatchCount


class Reading(NamedTuple):
    """How contexts are read: ``schedule``, ``remat`` and ``bptt`` of ``run_segments``."""

    schedule: str = "auto"
    remat: str = "none"
    bptt: int = 0


USUAL = Reading()


def score_batch(
    model: SegmentModel,
    params: Params,
    batch: Batch,
    value_size: int,
    reading: Reading = USUAL,
    stages: int = 1,
) -> Scores:
    """Read the contexts ``[b, n, t]`` segment by segment, then ask the queries ``[b, q, t]``.

    Each answer (``value_size`` digits and the separator) is predicted with the right tokens before
    it; logits exist at those positions only. A pair that is padding leaves the memory alone, and a
    query that is padding counts for nothing. Without a gradient the memory needed does not grow
    with ``n``: the scan keeps one state.

    With ``stages`` above 1 this is what one device of a pipeline does (``recurrence.pipeline``),
    whose ``layers`` are a group; only the last stage counts anything.
    """
    tokens = jnp.swapaxes(batch.context, 0, 1)
    mask = jnp.broadcast_to(batch.context_mask.T[:, :, None], tokens.shape)
    segments = Segment(tokens, mask)
    asked = Segment(jnp.asarray(batch.queries), jnp.ones(batch.queries.shape, bool))
    counted = batch.query_mask
    if stages > 1:
        how = (reading.remat, reading.bptt)
        hidden = read_and_ask(model, stages, params, segments, asked, *how)
        counted = counted & (lax.axis_index(STAGE) == stages - 1)
    else:
        state = model.init_state(batch.context.shape[0])
        options = {**reading._asdict(), "need_hidden": False}
        state, _ = run_segments(model, params, state, segments, **options)
        hidden = model.ask(params, state, asked)
    start = batch.queries.shape[-1] - answer_length(value_size)
    logits = model.readout(params, hidden[:, :, start - 1 : -1])
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    targets = batch.queries[:, :, start:]
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    right = jnp.all(predicted_tokens(logits) == targets, axis=-1)
    loss = jnp.sum(jnp.where(counted[:, :, None], losses, 0.0))
    return Scores(loss, count_matches(right, counted))


class Evaluator:
    """Exact match of a model on frozen sets; compiled once per shape of a batch."""

    def __init__(
        self, model: SegmentModel, value_size: int, batch_size: int, mesh: Mesh | None = None
    ) -> None:
        """Answers of ``value_size`` digits, about ``batch_size`` contexts at a time.

        A batch is shared out over the axes ``data`` and ``fsdp`` of ``mesh`` (by default, over all
        devices), and made a little larger where it does not divide.

        Raises:
          ConfigError: a mesh over which the model cannot be split.
        """
        mesh = data_mesh(jax.device_count()) if mesh is None else mesh
        placement = Placement(model, mesh)
        shares = math.prod(mesh.shape[axis] for axis in placement.batch_axes)
        self.batch_size = -(-batch_size // shares) * shares

        def count(params: Params, batch: Batch) -> MatchCount:
            whole = placement.enter(params)
            scores = score_batch(placement.model, whole, batch, value_size, stages=placement.stages)
            return placement.total(scores.matches)

        self._shardings = placement.shardings
        self._count = jax.jit(
            placement.run(count, P()),
            in_shardings=(self._shardings, batched(mesh)),
            out_shardings=replicated(mesh),
        )
        self._batched = batched(mesh)

    def __call__(self, params: Params, samples: Batch) -> tuple[int, int]:
        """Right answers and queries over all ``samples`` (leading axis: contexts).

        Every process has all samples, scores its share of each batch and gets the sums over all.
        """
        params = on_mesh(params, self._shardings)
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
