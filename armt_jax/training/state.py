"""What a training step carries: parameters, the optimizer's state, the number of steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from armt_jax.models.protocol import Params, SegmentModel
from armt_jax.sharding.rules import state_shardings


class TrainState(NamedTuple):
    """Attributes: parameters, optimizer state, and finished steps of the run (int32 scalar)."""

    params: Params
    opt_state: optax.OptState
    step: jax.Array


def create_state(
    model: SegmentModel,
    optimizer: optax.GradientTransformation,
    seed: int,
    mesh: Mesh | None = None,
) -> TrainState:
    """The state before the first step; parameters are a function of ``seed`` alone."""
    # One program instead of hundreds of small ones: a second at start-up instead of several. And
    # every device computes its own part: none ever holds a large model whole.
    template = abstract_state(model, optimizer, mesh)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, template)
    create = jax.jit(_creator(model, optimizer), out_shardings=shardings)
    return create(jax.random.key(seed))


def abstract_state(
    model: SegmentModel, optimizer: optax.GradientTransformation, mesh: Mesh | None = None
) -> TrainState:
    """Shapes, dtypes and devices of the state, without computing it: what a restore needs.

    Raises:
      ConfigError: an axis of the mesh that does not divide what it splits.
      RuleError: a leaf without a rule (``armt_jax/sharding/rules.py``).
    """
    state = jax.eval_shape(_creator(model, optimizer), jax.random.key(0))
    if mesh is None:
        device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        shardings = jax.tree.map(lambda _: device, state)
    else:
        shardings = state_shardings(state, mesh)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        state,
        shardings,
    )


def _creator(
    model: SegmentModel, optimizer: optax.GradientTransformation
) -> Callable[[jax.Array], TrainState]:
    def create(rng: jax.Array) -> TrainState:
        params = model.init(rng)
        return TrainState(params, optimizer.init(params), jnp.zeros((), jnp.int32))

    return create


def reset_optimizer(state: TrainState, optimizer: optax.GradientTransformation) -> TrainState:
    """The same parameters and step with fresh moments, which lie where the old ones did."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state.opt_state)
    fresh = jax.jit(optimizer.init, out_shardings=shardings)(state.params)
    return state._replace(opt_state=fresh)


def parameter_names(params: Params) -> list[str]:
    """Names such as ``layers.block.attn.c_attn.kernel``, in the order of the leaves."""
    paths = jax.tree_util.tree_flatten_with_path(params)[0]
    return [".".join(str(getattr(key, "key", key)) for key in path) for path, _ in paths]


def count_parameters(params: Params) -> int:
    """Number of parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
