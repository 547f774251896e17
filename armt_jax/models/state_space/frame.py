"""A recurrent language model: L residual blocks, each with a state of its own.

All families differ in their block alone (``Block``): what it keeps and what it computes. Reading in
segments changes no value: what a text leaves, and says of every token, is the same however it is
cut, up to rounding. A query goes on from the state, as further text would, and leaves it alone.

Padding: a masked token leaves every state bit-identical, and no later token sees it, short
convolutions and token shifts included (``armt_jax.state_space.short_conv``). Its own hidden state
means nothing.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from armt_jax.config import ModelConfig
from armt_jax.models.layers import UNROLLED_LAYERS, layer_params
from armt_jax.models.precision import at_model_precision
from armt_jax.models.protocol import Params, Segment, State
from armt_jax.models.state_space import families
from armt_jax.models.state_space.parts import init_layer_norm, layer_norm, rms_norm
from armt_jax.state_space import Packing, packing


@dataclasses.dataclass(frozen=True)
class StateSpaceLM:
    """One of ``STATE_SPACE_FAMILIES`` as a ``SegmentModel`` whose layers have states of their own.

    The state is the family's named tuple (``MambaState``, ...) with leaves ``[l, b, ...]``.
    """

    config: ModelConfig

    @property
    def block(self) -> families.Block:
        """What the family computes."""
        return families.BLOCKS[self.config.family]

    def by_head(self) -> StateSpaceLM:
        """Itself: every matrix is one of heads or channels side by side."""
        return self

    def columns_by_head(self, params: Params) -> Params:
        """``params`` as they are."""
        return params

    def init(self, rng: jax.Array, dtype: jax.typing.DTypeLike | None = None) -> Params:
        """Parameters as the family's authors initialise them; layers are stacked along axis 0.

        The embedding is normal with ``config.initializer_range`` (RWKV's, which is normalised,
        uniform in +-1e-4).

        Args:
          rng: a key.
          dtype: of the parameters; by default JAX's float (float32 unless x64 is enabled).
        """
        cfg, block = self.config, self.block
        dtype = jnp.result_type(float) if dtype is None else dtype
        embed_rng, head_rng, layers_rng = jax.random.split(rng, 3)

        def init_layer(rng: jax.Array, index: jax.Array) -> Params:
            return block.init(cfg, rng, index, dtype)

        layers = jax.vmap(init_layer)(
            jax.random.split(layers_rng, cfg.n_layer), jnp.arange(cfg.n_layer)
        )
        shape = (cfg.vocab_size, cfg.d_model)
        if block.is_rwkv:
            return {
                "embed": {
                    "wte": jax.random.uniform(embed_rng, shape, dtype, -1e-4, 1e-4),
                    "norm": init_layer_norm(cfg.d_model, dtype),
                },
                "layers": layers,
                "head": {
                    "norm": init_layer_norm(cfg.d_model, dtype),
                    "embed_out": _orthogonal(head_rng, (cfg.d_model, cfg.vocab_size), dtype),
                },
            }
        return {
            "embed": {"wte": cfg.initializer_range * jax.random.normal(embed_rng, shape, dtype)},
            "layers": layers,
            "head": {"norm": {"scale": jnp.ones((cfg.d_model,), dtype)}},
        }

    def init_state(self, batch_size: int, dtype: jax.typing.DTypeLike | None = None) -> State:
        """Zeros: nothing has been read.

        Args:
          batch_size: number of texts.
          dtype: dtype the model computes in; by default ``config.dtype`` or JAX's float. States
            are never narrower than float32.
        """
        cfg = self.config
        dtype = jnp.dtype(dtype or cfg.dtype or jnp.result_type(float))
        one = self.block.state_shapes(cfg)
        kept = jnp.promote_types(dtype, jnp.float32)
        zeros = [jnp.zeros((cfg.n_layer, batch_size, *shape), kept) for shape in one]
        return type(one)(*zeros)

    def compute_dtype(self, params: Params) -> jnp.dtype:
        """Dtype of activations: ``config.dtype``, or the parameters'."""
        return jnp.dtype(self.config.dtype or params["embed"]["wte"].dtype)

    def embed(self, params: Params, segment: Segment) -> tuple[jax.Array, Packing]:
        """The first layer's input ``[b, t, d]`` and where its padding is.

        RWKV-7's layers also hand on the first one's values: ``[b, t, 2 d + 1]``, of which the first
        ``d`` are what every other family has.
        """
        mask = segment.mask
        if segment.length is not None:
            mask = mask & (jnp.arange(mask.shape[1])[None] < segment.length[:, None])
        return self._embed_tokens(params, segment.tokens), packing(mask)

    @at_model_precision
    def layer(
        self, params_l: Params, memory: State, x: jax.Array, context: Packing
    ) -> tuple[State, jax.Array, None]:
        """One layer of one segment: see ``LayerwiseModel``."""
        memory, x = self.block.apply(self.config, params_l, memory, context.pack(x), context.mask)
        return memory, context.unpack(x), None

    @at_model_precision
    def step(self, params: Params, state: State, segment: Segment) -> tuple[State, jax.Array]:
        """Read one segment. ``hidden [b, t, d]`` is the last block's output."""
        x, context = self.embed(params, segment)
        x = context.pack(x)

        def layer(x: jax.Array, scanned: Any) -> tuple[jax.Array, State]:
            params_l, memory = scanned
            memory, x = self.block.apply(self.config, params_l, memory, x, context.mask)
            return x, memory

        layers = params["layers"]
        if isinstance(layers, tuple) or self.config.n_layer <= UNROLLED_LAYERS:
            memories = []
            for index in range(self.config.n_layer):
                memory = jax.tree.map(lambda leaf, i=index: leaf[i], state)
                x, memory = layer(x, (layer_params(layers, index), memory))
                memories.append(memory)
            state = jax.tree.map(lambda *leaves: jnp.stack(leaves), *memories)
        else:
            x, state = lax.scan(layer, x, (layers, state))
        return state, context.unpack(x)

    def write(self, params: Params, state: State, segment: Segment) -> State:
        """As ``step``, without hidden states."""
        return self.step(params, state, segment)[0]

    def ask(self, params: Params, state: State, queries: Segment) -> jax.Array:
        """Hidden states ``[b, q, t, d]`` of queries ``[b, q, t]``, forked from one state."""
        x, context = self.embed_queries(params, queries)
        return self.ask_layers(params["layers"], state, x, context)

    def embed_queries(self, params: Params, queries: Segment) -> tuple[jax.Array, Packing]:
        """Queries ``[b, q, t]`` as the first layer's input ``[b, q, t, d]``; see ``ask``."""
        return self._embed_tokens(params, queries.tokens), jax.vmap(packing, 1, 1)(queries.mask)

    @at_model_precision
    def ask_layers(self, layers: Params, state: State, x: jax.Array, context: Packing) -> jax.Array:
        """``x [b, q, t, d]`` after stacked ``layers``, each query from their ``state``."""
        each = _in_turn if self.block.holds_states else _side_by_side

        def layer(x: jax.Array, scanned: Any) -> tuple[jax.Array, None]:
            params_l, memory = scanned
            apply = functools.partial(self.block.apply, self.config, params_l, memory)
            return each(lambda x, mask: apply(x, mask)[1])(x, context.mask), None

        depth = jax.tree.leaves(state)[0].shape[0]
        unroll = depth if depth <= UNROLLED_LAYERS else 1
        x = jax.vmap(Packing.pack, 1, 1)(context, x)
        x, _ = lax.scan(layer, x, (layers, state), unroll=unroll)
        return jax.vmap(Packing.unpack, 1, 1)(context, x)

    def prefill(
        self, params: Params, state: State, prompt: Segment, room: int
    ) -> tuple[State, jax.Array]:
        """Read a prompt that ends with a token: the state that ``decode`` takes, ``hidden [b, d]``.

        ``room`` for what follows is not needed.
        """
        del room
        state, hidden = self.step(params, state, prompt)
        return state, hidden[:, -1]

    def decode(
        self, params: Params, state: State, cache: State, token: jax.Array
    ) -> tuple[State, jax.Array]:
        """Read one more token ``[b]``: the new state and its hidden state ``[b, d]``."""
        del state
        one = Segment(token[:, None], jnp.ones((token.shape[0], 1), bool))
        cache, hidden = self.step(params, cache, one)
        return cache, hidden[:, 0]

    @at_model_precision
    def readout(self, params: Params, hidden: jax.Array) -> jax.Array:
        """Logits ``[..., v]``, float32 or wider: final norm and output matrix."""
        cfg, head = self.config, params["head"]
        hidden = hidden[..., : cfg.d_model]
        if self.block.is_rwkv:
            normed = layer_norm(head["norm"], hidden, cfg.layer_norm_eps)
            matrix = head["embed_out"]
        else:
            normed = rms_norm(head["norm"]["scale"], hidden, cfg.layer_norm_eps)
            matrix = params["embed"]["wte"].T
        kept = jnp.promote_types(hidden.dtype, jnp.float32)
        return jnp.matmul(normed, matrix.astype(hidden.dtype), preferred_element_type=kept)

    def _embed_tokens(self, params: Params, tokens: jax.Array) -> jax.Array:
        x = jnp.take(params["embed"]["wte"], tokens, axis=0).astype(self.compute_dtype(params))
        if self.block.is_rwkv:
            x = layer_norm(params["embed"]["norm"], x, self.config.layer_norm_eps)
        further = self.block.carried(self.config) - self.config.d_model
        return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, further)])


# What is computed of ``x [b, t, d]`` and ``mask [b, t]``.
Ask = Callable[[jax.Array, jax.Array], jax.Array]


def _side_by_side(ask: Ask) -> Ask:
    """``ask`` for queries along axis 1: what is read from one state is one product."""
    return jax.vmap(ask, 1, 1)


def _in_turn(ask: Ask) -> Ask:
    """``ask`` for queries along axis 1, one after another: one of them is held at a time."""

    def run(x: jax.Array, mask: jax.Array) -> jax.Array:
        found = lax.map(lambda one: ask(*one), (x.swapaxes(0, 1), mask.swapaxes(0, 1)))
        return found.swapaxes(0, 1)

    return run


def _orthogonal(rng: jax.Array, shape: tuple[int, int], dtype: Any) -> jax.Array:
    """Half an orthogonal matrix ``[d, v]``, the larger for more columns (RWKV's head)."""
    gain = 0.5 * max(1.0, shape[1] / shape[0]) ** 0.5
    return gain * jax.nn.initializers.orthogonal()(rng, shape, dtype)
