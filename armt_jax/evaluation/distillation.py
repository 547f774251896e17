"""What a teacher expects of a text, as a part of the loss of the model that learns from it.

Hinton, Vinyals and Dean 2015 (arXiv 1503.02531): with logits divided by a temperature ``T``, the
divergence ``KL(teacher || model)`` times ``T^2``, by which its gradient keeps its size.

Axis legend: ``b`` context, ``s`` segment, ``t`` token of a segment, ``v`` vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from armt_jax.models.protocol import Params, Segment, SegmentModel
from armt_jax.recurrence import run_segments


class Teacher(NamedTuple):
    """A model that gets no gradient; its share of the loss, above 0, at most 1; temperature."""

    model: SegmentModel
    params: Params
    weight: float
    temperature: float

    def read(self, segments: Segment) -> jax.Array:
        """Hidden states ``[s, b, t, d]`` of ``segments [s, b, t]``.

        Raises:
          ConfigError: more tokens than the teacher can read at once.
        """
        count, batch, length = segments.tokens.shape
        self.model.config.check_text(count * length)
        state = self.model.init_state(batch)
        _, hidden = run_segments(self.model, self.params, state, segments)
        if hidden is None:
            raise RuntimeError("run_segments gave no hidden states")
        return lax.stop_gradient(hidden)

    def mix(self, losses: jax.Array, logits: jax.Array, hidden: jax.Array) -> jax.Array:
        """``losses [...]`` of a model with ``logits [..., v]``, with the teacher's share of them.

        ``hidden [..., d]`` is what ``read`` gave for the same tokens.
        """
        own = lax.stop_gradient(self.model.readout(self.params, hidden)).astype(logits.dtype)
        return (1 - self.weight) * losses + self.weight * divergence(logits, own, self.temperature)


def divergence(logits: jax.Array, teacher: jax.Array, temperature: float) -> jax.Array:
    """``T^2 KL(softmax(teacher / T) || softmax(logits / T))`` over the last axis, in nats."""
    wanted = jax.nn.log_softmax(teacher / temperature)
    said = jax.nn.log_softmax(logits / temperature)
    return temperature**2 * jnp.sum(jnp.exp(wanted) * (wanted - said), axis=-1)
