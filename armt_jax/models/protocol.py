"""The one protocol of everything that reads a long text in segments.

A model is a frozen object of pure functions; parameters and state are pytrees that it is given
and returns. Scanning, training, evaluating, streaming and generating are written against this.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax

from armt_jax.config import ModelConfig

Params = Any
State = Any


class Segment(NamedTuple):
    """One segment of a text, or a stack of them along a leading axis.

    Attributes:
      tokens: ``[b, t]`` int32.
      mask: ``[b, t]`` bool, False at padding. A row without any token leaves its memory as it is.
      length: ``[b]`` int32 where a segment's end, behind ``length`` of its ``t`` tokens, is a value
        and not a shape: what comes later is padding, and memory tokens take the positions that
        they would have in a segment of ``length`` tokens. None: all ``t``.
    """

    tokens: jax.Array
    mask: jax.Array
    length: jax.Array | None = None


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


@runtime_checkable
class LayerwiseModel(SegmentModel, Protocol):
    """A model each of whose layers keeps a memory of its own, which no other layer sees.

    So a layer can begin a segment when the layer below has finished it, whatever the layers above
    are at: what the schedules ``diagonal`` and ``pipeline`` need. All layers are alike:
    ``params["layers"]`` and the state have leaves ``[l, ...]`` and ``[l, b, ...]``, and empty
    memories are the same in every layer.
    """

    def embed(self, params: Params, segment: Segment) -> tuple[jax.Array, Any]:
        """The first layer's input ``[b, n, d]``, tokens first, and what all layers know of it.

        Of the parameters only ``params["embed"]`` is read.
        """
        ...

    def layer(
        self, params_l: Params, memory: State, x: jax.Array, context: Any
    ) -> tuple[State, jax.Array, Any]:
        """One layer of one segment.

        Args:
          params_l: of this layer.
          memory: of this layer, before the segment; the state's leaves ``[b, ...]``.
          x: ``[b, n, d]``.
          context: from ``embed``.

        Returns:
          The memory after the segment, with leaves in the state's order; the output ``[b, n, d]``;
          and something that only the model itself uses.
        """
        ...


@runtime_checkable
class AskedByLayer(LayerwiseModel, Protocol):
    """A model whose queries go through its layers as segments do: a pipeline can train it."""

    def embed_queries(self, params: Params, queries: Segment) -> tuple[jax.Array, Any]:
        """The first layer's input ``[b, q, t, d]``, and what all layers know of it.

        Of the parameters only ``params["embed"]`` is read.
        """
        ...

    def ask_layers(self, layers: Params, state: State, x: jax.Array, context: Any) -> jax.Array:
        """Queries ``x [b, q, t, d]`` after some layers, whose parameters and memories are given."""
        ...


@runtime_checkable
class Continues(SegmentModel, Protocol):
    """A model that continues a text token by token in its own way (see ``armt_jax.generation``)."""

    def prefill(
        self, params: Params, state: State, prompt: Segment, room: int
    ) -> tuple[Any, jax.Array]:
        """Read a prompt ``[b, t]`` with room for more: a cache, and the last hidden ``[b, d]``."""
        ...

    def decode(
        self, params: Params, state: State, cache: Any, token: jax.Array
    ) -> tuple[Any, jax.Array]:
        """Read one more token ``[b]``: the new cache, and its hidden state ``[b, d]``."""
        ...


@runtime_checkable
class SplitByHead(SegmentModel, Protocol):
    """A model that devices can split by heads: each computes some heads, and all sum the result."""

    def by_head(self) -> SegmentModel:
        """The same model for parameters of ``columns_by_head``."""
        ...

    def columns_by_head(self, params: Params) -> Params:
        """``params`` with the columns of one head's queries, keys and values side by side."""
        ...


def why_not_layerwise(model: SegmentModel, state: State) -> str | None:
    """The reason why ``model`` cannot read layer by layer from ``state``; None if it can."""
    if not isinstance(model, LayerwiseModel):
        name = type(model).__name__
        return f"needs a memory in each layer; {name}'s goes from the top layer to the bottom"
    if getattr(state, "window", None) is not None:
        return "needs a memory in each layer; a sliding window is one segment's, for all layers"
    return None
