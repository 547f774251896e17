"""Feature maps phi of the associative memory: non-negative, so that z . phi(q) stays positive.

Axis letters: ``d`` width before the map, ``k`` features.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp


def dpfp(x: jax.Array, nu: int = 3) -> jax.Array:
    """Deterministic parameter-free projection DPFP-nu (Schlag et al. 2021, Section 5).

    ``r = [relu(x); relu(-x)]``, ``phi(x) = [r * roll(r, 1); ...; r * roll(r, nu)]``.

    Args:
      x: ``[..., d]``.
      nu: number of shifts, ``1 <= nu < 2 d``.

    Returns:
      ``[..., 2 * nu * d]``.
    """
    r = jax.nn.relu(jnp.concatenate([x, -x], axis=-1))
    return jnp.concatenate([r * jnp.roll(r, shift, axis=-1) for shift in range(1, nu + 1)], -1)


def elu_plus_one(x: jax.Array, nu: int = 1) -> jax.Array:
    """``elu(x) + 1`` (Katharopoulos et al. 2020): ``[..., d] -> [..., d]``; ``nu`` is not used."""
    del nu
    return jax.nn.elu(x) + 1


def relu(x: jax.Array, nu: int = 1) -> jax.Array:
    """``relu(x)``: ``[..., d] -> [..., d]``; ``nu`` is not used."""
    del nu
    return jax.nn.relu(x)


def signed_relu(x: jax.Array, nu: int = 1) -> jax.Array:
    """``[relu(x); relu(-x)]``, DPFP's inner map: ``[..., d] -> [..., 2 d]``; ``nu`` is not used."""
    del nu
    return jax.nn.relu(jnp.concatenate([x, -x], axis=-1))


FEATURE_MAPS: dict[str, Callable[[jax.Array, int], jax.Array]] = {
    "dpfp": dpfp,
    "elu_plus_one": elu_plus_one,
    "relu": relu,
    "signed_relu": signed_relu,
}


def feature_dim(name: str, d_mem: int, nu: int) -> int:
    """Number of features ``k`` that map ``name`` makes of ``d_mem`` inputs."""
    return {"dpfp": 2 * nu * d_mem, "elu_plus_one": d_mem, "relu": d_mem, "signed_relu": 2 * d_mem}[
        name
    ]
