"""Mamba's recurrence token by token, for a few tokens, with a derivative written by hand.

What a step costs is how often it goes through the state, ``i n`` floats a text. The derivative that
JAX derives goes through it for every factor of every product. Here what is summed over the state is
a matrix product each, and the decays of a token are computed once (``BUILD_NOTES.md``, "Recurrent
families").
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp


class _Inputs(NamedTuple):
    x: jax.Array
    dt: jax.Array
    A: jax.Array
    B: jax.Array
    C: jax.Array
    state: jax.Array

    @property
    def tokens(self) -> int:
        return self.x.shape[1]

    def decay(self, t: int) -> jax.Array:
        """``exp(dt_t A)``, ``[b, i, n]``."""
        return jnp.exp(self.dt[:, t, :, None] * self.A[None])

    def drive(self, t: int) -> jax.Array:
        """``dt_t B_t x_t``, ``[b, i, n]``."""
        return (self.dt[:, t] * self.x[:, t])[..., None] * self.B[:, t, None, :]


@jax.custom_vjp
def selective_steps(
    x: jax.Array,
    dt: jax.Array,
    A: jax.Array,
    B: jax.Array,
    C: jax.Array,
    state: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """``selective_scan`` of a few tokens: the state after them, and ``y [b, t, i]``.

    The states between are kept for nobody: the backward pass computes them again.
    """
    return _forward(x, dt, A, B, C, state)[0]


def _forward(*arguments: jax.Array) -> tuple[tuple[jax.Array, jax.Array], _Inputs]:
    inputs = _Inputs(*arguments)
    h, outputs = inputs.state, []
    for t in range(inputs.tokens):
        h = inputs.decay(t) * h + inputs.drive(t)
        outputs.append(jnp.einsum("bin,bn->bi", h, inputs.C[:, t]))
    return (h, jnp.stack(outputs, axis=1)), inputs


def _backward(inputs: _Inputs, cotangents: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, ...]:
    x, dt, A, B, C, h = inputs
    d_h, d_y = cotangents
    decays, states = [], [h]
    for t in range(inputs.tokens):
        decays.append(inputs.decay(t))
        states.append(decays[t] * states[t] + inputs.drive(t))
    d_A = jnp.zeros_like(A)
    # Of dt x, of dt in the exponent, of B and of C, the last token's first.
    of_tokens: list[tuple[jax.Array, ...]] = []
    for t in reversed(range(inputs.tokens)):
        of_C = jnp.einsum("bin,bi->bn", states[t + 1], d_y[:, t])
        d_h = d_h + d_y[:, t, :, None] * C[:, t, None, :]
        of_B = jnp.einsum("bin,bi->bn", d_h, dt[:, t] * x[:, t])
        of_drive = jnp.einsum("bin,bn->bi", d_h, B[:, t])
        d_h = d_h * decays[t]
        exponent = d_h * states[t]
        of_exponent = jnp.einsum("bin,in->bi", exponent, A)
        d_A = d_A + jnp.einsum("bin,bi->in", exponent, dt[:, t])
        of_tokens.append((of_drive, of_exponent, of_B, of_C))
    d_drive, d_exponent, d_B, d_C = (
        jnp.stack(leaves[::-1], axis=1) for leaves in zip(*of_tokens, strict=True)
    )
    return d_drive * dt, d_exponent + d_drive * x, d_A, d_B, d_C, d_h


selective_steps.defvjp(_forward, _backward)
