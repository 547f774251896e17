"""The one protocol of everything that reads a long text in segments.

A model is a frozen object of pure functions; parameters and state are pytrees that it is given
and returns. Scanning, training, evaluating, streaming and generating are written against this.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import jax

from armt_jax.config import ModelConfig

Params = Any
State = Any


class Segment(NamedTuple):
    """One segment of a text, or a stack of them along a leading axis.

    Attributes:
      tokens: ``[b, t]`` int32.
      mask: ``[b, t]`` bool, False at padding. A row without any token leaves its memory as it is.
    """

    tokens: jax.Array
    mask: jax.Array


class SegmentModel(Protocol):
    """What ``run_segments``, ``answer``, ``generate`` and the trainer need of a model."""

    @property
    def config(self) -> ModelConfig:
        """The model's shape."""
        ...

    def init(self, rng: jax.Array) -> Params:
        """Fresh parameters."""
        ...

    def init_state(self, batch_size: int, dtype: jax.typing.DTypeLike | None = None) -> State:
        """The state before anything is read."""
        ...

    def step(self, params: Params, state: State, segment: Segment) -> tuple[State, jax.Array]:
        """Read one segment: the new state, and ``hidden [b, t, d]`` of its tokens."""
        ...

    def write(self, params: Params, state: State, segment: Segment) -> State:
        """Read one segment of which nobody needs the hidden states: the state ``step`` gives."""
        ...

    def ask(self, params: Params, state: State, queries: Segment) -> jax.Array:
        """Read queries ``[b, q, t]``, each from the same state, none writing: ``[b, q, t, d]``."""
        ...

    def readout(self, params: Params, hidden: jax.Array) -> jax.Array:
        """Logits ``[..., v]`` of hidden states ``[..., d]``."""
        ...
