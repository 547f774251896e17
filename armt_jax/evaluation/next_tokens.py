"""Scoring the prediction of every token of a text that is read in segments.

Axis legend: ``b`` context, ``s`` segment, ``t`` token of a segment, ``v`` vocabulary.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from armt_jax.config import ConfigError
from armt_jax.evaluation.distillation import Teacher
from armt_jax.evaluation.exact_match import count_matches, predicted_tokens
from armt_jax.evaluation.scoring import USUAL, Reading, Scores
from armt_jax.models.protocol import Params, Segment, SegmentModel
from armt_jax.recurrence import run_segments


class TokenScores(NamedTuple):
    """Of every token of a batch; 0 and False at padding.

    Attributes:
      losses: ``[b, s, t]`` cross-entropies in nats, float32 or wider.
      right: ``[b, s, t]`` bool, whether the target is the likeliest token.
    """

    losses: jax.Array
    right: jax.Array


def token_scores(
    model: SegmentModel,
    params: Params,
    batch: Any,
    *,
    reset: bool = False,
    reading: Reading = USUAL,
    teacher: Teacher | None = None,
) -> TokenScores:
    """Read contexts ``[b, s, t]`` and score the prediction of each ``targets [b, s, t]``.

    The last position of a segment predicts the first token of the next, without knowing anything
    that the others do not. Logits exist for one segment of all contexts at a time.

    Args:
      model, params: as always.
      batch: with ``context``, ``context_mask`` and ``targets``.
      reset: forget everything in front of every segment: each is a text of its own.
      reading: how contexts are read.
      teacher: has a share of the losses; it reads a context from its beginning to its end.
    """
    tokens, mask, targets = (
        jnp.swapaxes(leaf, 0, 1) for leaf in (batch.context, batch.context_mask, batch.targets)
    )
    hidden = _hidden(model, params, Segment(tokens, mask), reset, reading)
    taught = None if teacher is None else teacher.read(Segment(tokens, mask))

    @jax.checkpoint
    def score(
        piece: tuple[jax.Array, jax.Array, jax.Array, jax.Array | None],
    ) -> TokenScores:
        hidden, targets, mask, taught = piece
        logits = model.readout(params, hidden)
        logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
        if teacher is not None and taught is not None:
            losses = teacher.mix(losses, logits, taught)
        return TokenScores(jnp.where(mask, losses, 0), (predicted_tokens(logits) == targets) & mask)

    scores = lax.map(score, (hidden, targets, mask, taught))
    return TokenScores(*(jnp.swapaxes(leaf, 0, 1) for leaf in scores))


def _hidden(
    model: SegmentModel, params: Params, segments: Segment, reset: bool, reading: Reading
) -> jax.Array:
    """Hidden states ``[s, b, t, d]`` of ``segments [s, b, t]``."""
    count, batch, length = segments.tokens.shape
    options = reading._asdict()
    if reset:
        # One segment of s b texts: nothing to scan over, and nothing to carry.
        segments = Segment(*(leaf.reshape(1, -1, length) for leaf in segments[:2]))
        options |= {"schedule": "sequential", "bptt": 0}
    state = model.init_state(segments.tokens.shape[1])
    _, hidden = run_segments(model, params, state, segments, **options)
    if hidden is None:
        raise RuntimeError("run_segments gave no hidden states")
    return hidden.reshape(count, batch, length, -1)


@dataclasses.dataclass(frozen=True)
class NextTokens:
    """Language modelling as a ``Scoring``: every token is asked, an exact match is a right token.

    With ``reset`` the memory is emptied in front of every segment.
    """

    reset: bool = False

    def count(self, batch: Any) -> jax.Array:
        """See ``Scoring``."""
        return jnp.sum(batch.context_mask, dtype=jnp.float32)

    def score(
        self,
        model: SegmentModel,
        params: Params,
        batch: Any,
        reading: Reading = USUAL,
        stages: int = 1,
        teacher: Teacher | None = None,
    ) -> Scores:
        """See ``Scoring``: contexts ``[b, s, t]``; and ``token_scores`` for ``teacher``.

        Raises:
          ConfigError: more stages than one.
        """
        if stages > 1:
            raise ConfigError(f"mesh.stage = {stages}: must be 1 for language modelling")
        scores = token_scores(
            model, params, batch, reset=self.reset, reading=reading, teacher=teacher
        )
        return Scores(jnp.sum(scores.losses), count_matches(scores.right, batch.context_mask))
