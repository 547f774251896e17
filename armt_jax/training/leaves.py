"""Shapes and dtypes of a state's leaves, as a checkpoint describes them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

_LISTED = 6  # leaves that an error names, of more it says how many


def describe_leaves(state: Any) -> dict[str, str]:
    """Such as ``{"params.w": "float32[8, 4]"}``.

    Raises:
      TypeError: a leaf that is no array.
    """
    for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        # Orbax writes NumPy's scalars and cannot read them.
        if not isinstance(leaf, jax.Array | np.ndarray):
            kind = type(leaf).__name__
            raise TypeError(f"{_name(path)} is of type {kind}, must be an array of JAX or NumPy")
    return dict(_shapes(state))


def describe_difference(leaves: dict[str, str], template: Any) -> str:
    """For people: where saved ``leaves`` are not those of ``template``; empty where they are."""
    wanted = dict(_shapes(template))
    differing = [
        f"{name} is {leaves.get(name, 'missing')} there, must be {wanted.get(name, 'absent')}"
        for name in sorted(wanted.keys() | leaves.keys())
        if leaves.get(name) != wanted.get(name)
    ]
    more = len(differing) - _LISTED
    return "; ".join(differing[:_LISTED] + ([f"and {more} more"] if more > 0 else []))


def _shapes(tree: Any) -> Iterator[tuple[str, str]]:
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        yield _name(path), f"{leaf.dtype}{list(leaf.shape)}"


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")
