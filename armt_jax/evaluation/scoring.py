"""Scoring a model's answers: contexts are read, queries asked, and the answer's tokens predicted.

A ``Scoring`` says where the answers of a task stand. Everything else, the trainer included, is
written against it.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from armt_jax.config import ConfigError
from armt_jax.evaluation.exact_match import (
    MatchCount,
    answer_length,
    count_matches,
    predicted_tokens,
)
from armt_jax.models.protocol import Params, Segment, SegmentModel
from armt_jax.recurrence import run_segments
from armt_jax.recurrence.gates import open_gates
from armt_jax.recurrence.passing import read_with_passages
from armt_jax.recurrence.stages import read_and_ask
from armt_jax.sharding import STAGE
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


class Scoring(Protocol):
    """What is predicted of a batch. An immutable value: it is static under ``jax.jit``."""

    def count(self, batch: Any) -> jax.Array:
        """Scored tokens of ``batch``, float32 scalar."""
        ...

    def score(
        self,
        model: SegmentModel,
        params: Params,
        batch: Any,
        reading: Reading = USUAL,
        stages: int = 1,
    ) -> Scores:
        """Read ``batch`` and score what it asks for.

        Without a gradient the memory needed does not grow with the number of segments: the scan
        keeps one state. With ``stages`` above 1 this is what one device of a pipeline does
        (``recurrence.pipeline``), whose ``layers`` are a group; only the last stage counts
        anything.
        """
        ...


@dataclasses.dataclass(frozen=True)
class AnswerAtEnd:
    """Associative retrieval: a query's last ``value_size + 1`` tokens are its answer."""

    value_size: int

    def count(self, batch: Batch) -> jax.Array:
        """See ``Scoring``."""
        return jnp.sum(batch.query_mask, dtype=jnp.float32) * answer_length(self.value_size)

    def score(
        self,
        model: SegmentModel,
        params: Params,
        batch: Batch,
        reading: Reading = USUAL,
        stages: int = 1,
    ) -> Scores:
        """See ``Scoring``: contexts ``[b, n, t]``, queries ``[b, q, t]``."""
        hidden, counted, _ = _ask(model, params, batch, reading, stages)
        start = batch.queries.shape[-1] - answer_length(self.value_size)
        targets = batch.queries[:, :, start:]
        scored = jnp.broadcast_to(counted[:, :, None], targets.shape)
        return _scores(model, params, hidden[:, :, start - 1 : -1], targets, scored)


@dataclasses.dataclass(frozen=True)
class MarkedAnswer:
    """Queries of unequal length: ``loss_mask [b, q, u]`` marks what predicts the answer.

    The marked positions stand together; what they predict is the answer and its end. ``longest`` is
    the most of them that a query has: logits exist at so many positions of each. ``query_mask``
    ``[b, q, u]`` has no token in a row that is no query. The first ``before`` and the last
    ``behind`` segments of every context are read without a gradient (``recurrence.passing``), and
    ``drift_weight`` times the change that these last ones make in the memory, and ``gate_weight``
    times how far they open its gates, is added to the loss of every scored token.
    """

    longest: int
    before: int = 0
    behind: int = 0
    drift_weight: float = 0.0
    gate_weight: float = 0.0

    def count(self, batch: Any) -> jax.Array:
        """See ``Scoring``."""
        return jnp.sum(batch.loss_mask & batch.query_mask, dtype=jnp.float32)

    def score(
        self,
        model: SegmentModel,
        params: Params,
        batch: Any,
        reading: Reading = USUAL,
        stages: int = 1,
    ) -> Scores:
        """See ``Scoring``: contexts ``[b, n, t]``, queries ``[b, q, u]``."""
        passages = _Passages(self.before, self.behind, self.drift_weight, self.gate_weight)
        hidden, counted, unrest = _ask(model, params, batch, reading, stages, passages)
        last = batch.queries.shape[-1] - 2  # the last position that predicts a token
        first = jnp.argmax(batch.loss_mask, axis=-1)[:, :, None]
        wanted = first + jnp.arange(self.longest)[None, None]
        place = jnp.minimum(wanted, last)
        marked = jnp.take_along_axis(batch.loss_mask, place, axis=-1) & (wanted <= last)
        targets = jnp.take_along_axis(batch.queries, place + 1, axis=-1)
        at_place = jnp.take_along_axis(hidden, place[..., None], axis=2)
        scores = _scores(model, params, at_place, targets, marked & counted[:, :, None])
        extra = unrest * self.count(batch)
        return scores._replace(loss=scores.loss + extra.astype(scores.loss.dtype))


class _Passages(NamedTuple):
    """Segments before and behind those that give a gradient; what counts of the latter."""

    before: int = 0
    behind: int = 0
    drift_weight: float = 0.0
    gate_weight: float = 0.0


@dataclasses.dataclass(frozen=True)
class AnswersInText:
    """Answers while the text is read: after ``places [b, n]`` follows ``queries [b, n, 1]``."""

    def count(self, batch: Any) -> jax.Array:
        """See ``Scoring``."""
        return jnp.sum(batch.query_mask, dtype=jnp.float32)

    def score(
        self,
        model: SegmentModel,
        params: Params,
        batch: Any,
        reading: Reading = USUAL,
        stages: int = 1,
    ) -> Scores:
        """See ``Scoring``: contexts ``[b, s, t]``.

        Raises:
          ConfigError: a pipeline, whose stages keep no hidden states of the text.
        """
        if stages > 1:
            raise ConfigError(f"mesh.{STAGE} = {stages}: must be 1 where a text is asked within")
        segments = Segment(
            jnp.swapaxes(batch.context, 0, 1), jnp.swapaxes(batch.context_mask, 0, 1)
        )
        state = model.init_state(batch.context.shape[0])
        _, hidden = run_segments(model, params, state, segments, **reading._asdict())
        assert hidden is not None  # they are needed, by default
        whole = jnp.swapaxes(hidden, 0, 1)
        whole = whole.reshape(whole.shape[0], -1, whole.shape[-1])
        at_place = jnp.take_along_axis(whole, batch.places[:, :, None], axis=1)
        scored = batch.query_mask[:, :, None]
        return _scores(model, params, at_place[:, :, None], batch.queries, scored)


def _ask(
    model: SegmentModel,
    params: Params,
    batch: Any,
    reading: Reading,
    stages: int,
    passages: _Passages = _Passages(),  # noqa: B008 (a value that nobody can change)
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Hidden states ``[b, q, t, d]`` of the queries, which queries count, and the passages' loss.

    ``context_mask`` is of segments ``[b, n]`` or of tokens ``[b, n, t]``: what is padding leaves
    the memory alone. So is ``query_mask``, of queries or of their tokens: a query that is padding
    counts for nothing, and what fills up a query stands behind it, where nothing sees it.
    """
    tokens = jnp.swapaxes(batch.context, 0, 1)
    mask = jnp.swapaxes(batch.context_mask, 0, 1)
    if mask.ndim == 2:
        mask = jnp.broadcast_to(mask[:, :, None], tokens.shape)
    segments = Segment(tokens, mask)
    asked = Segment(jnp.asarray(batch.queries), jnp.ones(batch.queries.shape, bool))
    counted = batch.query_mask
    if counted.ndim == asked.tokens.ndim:
        counted = jnp.any(counted, axis=-1)
    if stages > 1:
        if passages.before or passages.behind:
            raise ConfigError(
                f"mesh.stage = {stages}: must be 1 with passages that give no gradient "
                "(curriculum.noise_before, noise_behind)"
            )
        how = (reading.remat, reading.bptt)
        hidden = read_and_ask(model, stages, params, segments, asked, *how)
        return hidden, counted & (lax.axis_index(STAGE) == stages - 1), jnp.zeros(())
    state = model.init_state(batch.context.shape[0])
    state, unrest = read_with_passages(
        model,
        params,
        state,
        segments,
        passages.before,
        passages.behind,
        need_drift=passages.drift_weight > 0,
        **reading._asdict(),
    )
    unrest *= passages.drift_weight
    if passages.gate_weight:
        noise = jax.tree.map(lambda leaf: leaf[-passages.behind :], segments)
        gates = open_gates(model, params, lax.stop_gradient(state), noise)
        unrest += passages.gate_weight * gates
    return model.ask(params, state, asked), counted, unrest


def _scores(
    model: SegmentModel,
    params: Params,
    hidden: jax.Array,
    targets: jax.Array | np.ndarray,
    scored: jax.Array,
) -> Scores:
    """Predict ``targets [b, q, a]`` from ``hidden [b, q, a, d]``, each with the right ones before.

    Only tokens with ``scored`` count, and queries that have any.
    """
    logits = model.readout(params, hidden)
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    right = jnp.all((predicted_tokens(logits) == targets) | ~scored, axis=-1)
    loss = jnp.sum(jnp.where(scored, losses, 0.0))
    return Scores(loss, count_matches(right, jnp.any(scored, axis=-1)))
