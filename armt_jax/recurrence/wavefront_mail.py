"""The message that devices of a wavefront exchange: keys and values, and what is written.

It is kept as one flat array, into which both sides put what they have and from which they cut what
they need: putting a message together of many arrays took as long as the layers did (XLA's CPU
backend asks of every element which array it comes from). The changes stand in front, so that a slot
of one layer sends a shorter piece of it.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from armt_jax.memory.associative import MemoryWrite
from armt_jax.models.armt import ARMT


class Written(NamedTuple):
    """What one segment writes into one layer, or into several with an axis in front.

    Attributes:
      phi: features of the keys ``[b, m, k]``.
      rows: ``[b, m, d]``, see ``MemoryWrite``.
      gamma: ``[b, m]``, or ``[b, 0]`` for a rule without ``z``.
      write: ``[b]``, 1 where something is written.
    """

    phi: jax.Array
    rows: jax.Array
    gamma: jax.Array
    write: jax.Array

    @classmethod
    def of(cls, phi: jax.Array, change: MemoryWrite, write: jax.Array | None) -> Written:
        """From what ``ArmtLayer.memory_change`` gives; ``write`` None: everywhere."""
        gamma = jnp.zeros((phi.shape[0], 0), phi.dtype) if change.gamma is None else change.gamma
        done = jnp.ones(phi.shape[:1], phi.dtype) if write is None else write.astype(phi.dtype)
        return cls(phi, change.rows, gamma, done)

    @property
    def change(self) -> MemoryWrite:
        """As ``apply_write`` takes it."""
        return MemoryWrite(self.rows, self.gamma if self.gamma.shape[-1] else None)


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where everything stands in the message.

    Attributes:
      layers: of the largest slot.
      written: shapes of the leaves of one layer's ``Written``.
      keys: shape of one layer's keys and values, ``[2, b, n, h, e]``.
      dtype: of the message: the state's, since nothing may lose precision on its way.
    """

    layers: int
    written: tuple[tuple[int, ...], ...]
    keys: tuple[int, ...]
    dtype: jnp.dtype

    @classmethod
    def of(cls, model: ARMT, layers: int, batch: int, before: int, dtype: jnp.dtype) -> Layout:
        """For ``batch`` texts and ``before`` positions in front of the last share."""
        cfg = model.config
        m = cfg.num_mem_tokens
        gammas = m if model.rule.has_normaliser else 0
        written = tuple(
            (batch, *shape) for shape in ((m, model.features), (m, cfg.d_model), (gammas,), ())
        )
        keys = (2, batch, before, cfg.kv_heads, cfg.head_dim)
        return cls(layers, written, keys, dtype)

    def length(self, layers: int) -> int:
        """Elements of a message with keys and values of ``layers`` layers."""
        changes = sum(math.prod(shape) for shape in self.written)
        return self.layers * changes + layers * math.prod(self.keys)

    def empty(self) -> jax.Array:
        """Nothing written, and no keys."""
        return jnp.zeros((self.length(self.layers),), self.dtype)

    def keys_of(self, mail: jax.Array, place: int) -> jax.Array:
        """Keys and values of the layer at ``place`` of a slot."""
        start = self.length(place)
        return mail[start : self.length(place + 1)].reshape(self.keys)

    def with_keys(self, mail: jax.Array, place: int, own: jax.Array, start: int) -> jax.Array:
        """``own [2, b, t, h, e]`` at the positions from ``start`` on."""
        if own.shape != self.keys:
            keys = self.keys_of(mail, place)
            own = lax.dynamic_update_slice_in_dim(keys, own.astype(mail.dtype), start, axis=2)
        return _put(mail, own, self.length(place))

    def written_of(self, mail: jax.Array) -> Written:
        """What has been written, with an axis of ``layers`` in front."""
        parts, start = [], 0
        for shape in self.written:
            stop = start + self.layers * math.prod(shape)
            parts.append(mail[start:stop].reshape((self.layers, *shape)))
            start = stop
        return Written(*parts)

    def with_written(self, mail: jax.Array, changes: list[Written]) -> jax.Array:
        """``changes`` of the first layers, and nothing for the others."""
        start = 0
        for number, shape in enumerate(self.written):
            for place in range(self.layers):
                blank = jnp.zeros(shape, self.dtype)
                value = changes[place][number] if place < len(changes) else blank
                mail = _put(mail, value, start)
                start += math.prod(shape)
        return mail


def _put(mail: jax.Array, value: jax.Array, start: int) -> jax.Array:
    return lax.dynamic_update_slice_in_dim(mail, value.astype(mail.dtype).ravel(), start, axis=0)
