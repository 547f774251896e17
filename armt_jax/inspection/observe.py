"""Reading segments and looking at what is written: gates, gamma, keys, sizes of A and z.

The states are those of a plain reading: the model's own layers make them, one after the other.
Beside each layer what it writes is computed a second time, from its output at the memory tokens and
the memory that it met, by the functions that the layer itself uses.

Axis letters: ``s`` segment, ``l`` layer, ``b`` batch, ``m`` memory token, ``k`` feature.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from armt_jax.config import ConfigError
from armt_jax.memory import associative
from armt_jax.models import ARMT
from armt_jax.models.armt import ArmtState
from armt_jax.models.layers import layer_params
from armt_jax.models.protocol import Params, Segment, SegmentModel


class Observation(NamedTuple):
    """What each layer wrote in each segment.

    Attributes:
      keys: ``phi(W_K m) [s, l, b, m, k]``, the features that are written to.
      beta: ``[s, l, b, m]``, the write gates.
      gamma: ``[s, l, b, m]``, how much of a key is new to z; None for a rule without z.
      rows: ``[s, l, b, m]``, the length of the row ``u`` that is added along the key.
      A: ``[s, l, b]``, Frobenius norm of A after the segment.
      z: ``[s, l, b]``, length of z after the segment; None for a rule without it.
    """

    keys: jax.Array
    beta: jax.Array
    gamma: jax.Array | None
    rows: jax.Array
    A: jax.Array
    z: jax.Array | None


def observe(
    model: SegmentModel, params: Params, state: ArmtState, segments: Segment
) -> tuple[ArmtState, Observation]:
    """Read segments, leaves ``[s, b, t]``, from ``state``.

    Returns:
      The state after the last one, as ``run_segments`` gives it, and what was seen.

    Raises:
      ConfigError: a model without associative memories, or with a sliding window.
    """
    if not isinstance(model, ARMT):
        raise ConfigError(
            f"model.family = {model.config.family!r}: must be 'armt', whose memory can be looked at"
        )
    if state.window is not None:
        raise ConfigError("sliding_window = True: must be False, its layers are not observed")
    return _observe(model, params, state, segments)


@functools.partial(jax.jit, static_argnums=0)
def _observe(
    model: ARMT, params: Params, state: ArmtState, segments: Segment
) -> tuple[ArmtState, Observation]:
    return lax.scan(functools.partial(_segment, model, params), state, segments)


def _segment(
    model: ARMT, params: Params, state: ArmtState, segment: Segment
) -> tuple[ArmtState, Observation]:
    x, context = model.embed(params, segment)
    memories, seen = [], []
    for index in range(model.config.n_layer):
        params_l = layer_params(params["layers"], index)
        before = associative.MemoryState(state.A[index], state.z[index], state.written[index])
        after, x, _ = model.layer(params_l, before, x, context)
        memories.append(after)
        seen.append(_seen(model, params_l, before, after, x, context.write))
    memory = jax.tree.map(lambda *leaves: jnp.stack(leaves), *memories)
    return ArmtState(*memory), jax.tree.map(lambda *leaves: jnp.stack(leaves), *seen)


def _seen(
    model: ARMT,
    params_l: Params,
    before: associative.MemoryState,
    after: associative.MemoryState,
    x: jax.Array,
    write: jax.Array | None,
) -> Observation:
    """Of one layer, whose output is ``x [b, t + m, d]``."""
    rule = model.rule
    k, v, beta = model.key_value_gate(params_l, x[:, -model.config.num_mem_tokens :])
    phi_k = associative.features(rule, k, model.config.nu)
    old = associative.read(rule, before, phi_k)
    change = associative.memory_write(rule, old, before.written, phi_k, v, beta, write)
    return Observation(
        keys=phi_k,
        beta=beta,
        gamma=change.gamma,
        rows=_norm(change.rows, (2,)),
        A=_norm(after.A, (1, 2)),
        z=_norm(after.z, (1,)) if rule.has_normaliser else None,
    )


def _norm(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    return jnp.sqrt(jnp.sum(x * x, axis=axes))
