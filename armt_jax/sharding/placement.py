"""A model on a mesh: what each device holds, and what the devices tell each other.

``data``, ``fsdp`` and ``stage`` are by hand (``jax.shard_map``): the compiler would sum gradients
over devices in every segment. Parameters are put together over ``fsdp`` once, in front of the scan
over segments, and the derivative of that deals the gradient out in shares; no collective of these
axes stands inside the scan but the pipeline's own. ``tensor`` is left to the compiler, which
follows the shardings of the parameters through every layer.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from armt_jax.config import ConfigError
from armt_jax.models.protocol import Params, SegmentModel, SplitByHead
from armt_jax.sharding.mesh import (
    BATCH,
    DATA,
    FSDP,
    STAGE,
    TENSOR,
    axis_size,
    batch_spec,
    check_model,
    wide_axes,
)
from armt_jax.sharding.rules import parameter_shardings, parameter_specs


class Placement:
    """How ``model`` lies on ``mesh``.

    Attributes:
      mesh: with any of the axes ``data``, ``fsdp``, ``stage`` and ``tensor``.
      model: the one to compute with inside ``run``.
      stages: groups of layers.
      batch_axes: axes along which devices have different rows of the batch.
      specs: a ``PartitionSpec`` for every parameter.
      shardings: the same with the mesh.
    """

    def __init__(self, model: SegmentModel, mesh: Mesh) -> None:
        """Rules applied to the model's parameters.

        Raises:
          ConfigError: an axis that does not divide the model, or that it cannot be split over.
          RuleError: a parameter without a rule.
        """
        check_model(mesh, model.config)
        self.mesh = mesh
        self.stages = axis_size(mesh, STAGE)
        self.batch_axes = wide_axes(mesh, *BATCH)
        params = _shapes(model)
        self.specs = parameter_specs(params, mesh)
        self.shardings = parameter_shardings(params, mesh)
        self._split = model if isinstance(model, SplitByHead) else None
        self._tensor = axis_size(mesh, TENSOR) > 1
        if self._tensor and self._split is None:
            raise ConfigError(
                f"mesh.{TENSOR} = {axis_size(mesh, TENSOR)}: must be 1, {type(model).__name__} "
                "cannot be split by heads"
            )
        self.model = self._split.by_head() if self._tensor and self._split else model

    def run(self, work: Callable[..., Any], out_specs: Any) -> Callable[..., Any]:
        """``work(params, batch)`` on every device, of its own parameters and share of a batch.

        Args:
          work: uses ``enter``, ``total`` and ``sum_gradients`` for all that crosses devices.
          out_specs: of what it returns, axis ``tensor`` left out (``by_hand``).
        """
        names = set(self.mesh.axis_names)
        if self._tensor:
            names -= {TENSOR}
        return jax.shard_map(
            work,
            mesh=self.mesh,
            in_specs=(self.by_hand, batch_spec(self.mesh)),
            out_specs=out_specs,
            axis_names=names,
            check_vma=False,
        )

    @functools.cached_property
    def by_hand(self) -> Any:
        """``specs`` as ``run`` needs them: without ``tensor``."""
        return self._map(lambda spec: P(*(None if axis == TENSOR else axis for axis in spec)))

    def enter(self, params: Params) -> Params:
        """A device's parameters, made whole along ``fsdp``, for ``self.model``."""
        params = self._map(self._gather, params)
        if not self._tensor or self._split is None:
            return params
        params = self._split.columns_by_head(params)
        return self._map(self._constrain, params)

    def _constrain(self, spec: P, leaf: jax.Array) -> jax.Array:
        """Said once in front of the scan, so that nothing is laid out anew in every segment."""
        kept = P(*(axis if axis == TENSOR else None for axis in spec))
        return lax.with_sharding_constraint(leaf, kept)

    def _gather(self, spec: P, leaf: jax.Array) -> jax.Array:
        if FSDP not in tuple(spec):
            return leaf
        return lax.all_gather(leaf, FSDP, axis=tuple(spec).index(FSDP), tiled=True)

    def sum_over_batch(self, tree: Any) -> Any:
        """The sum over shares of the batch."""
        return _sum(tree, self.batch_axes)

    def total(self, tree: Any) -> Any:
        """The sum over shares of the batch and over stages."""
        return _sum(tree, (*self.batch_axes, *wide_axes(self.mesh, STAGE)))

    def sum_gradients(self, grads: Params) -> Params:
        """Gradients of a device's own parameters (``enter``'s derivative applied), summed.

        Along ``fsdp`` the derivative of gathering is a sum already, and along ``stage`` a group of
        layers is one device's alone.
        """
        axes = wide_axes(self.mesh, DATA, FSDP, STAGE)
        missing = self._map(lambda spec: tuple(axis for axis in axes if axis not in tuple(spec)))
        kinds = jax.tree.leaves(missing, is_leaf=lambda leaf: isinstance(leaf, tuple))
        leaves, tree = jax.tree.flatten(grads)
        # One sum for all that is summed over the same devices.
        for kind in sorted(set(kinds)):
            chosen = [index for index, other in enumerate(kinds) if other == kind]
            summed = _sum([leaves[index] for index in chosen], kind)
            for index, leaf in zip(chosen, summed, strict=True):
                leaves[index] = leaf
        return jax.tree.unflatten(tree, leaves)

    def place(self, params: Params) -> Params:
        """Inside ``jit``, with the parameters' shardings."""
        if not self._tensor:
            return params
        return jax.tree.map(lax.with_sharding_constraint, params, self.shardings)

    def _map(self, function: Callable[..., Any], *trees: Any) -> Any:
        return jax.tree.map(function, self.specs, *trees, is_leaf=lambda leaf: isinstance(leaf, P))


@functools.lru_cache(maxsize=8)
def _shapes(model: SegmentModel) -> Params:
    """Of the parameters; kept, because tracing an initialisation takes a second."""
    return jax.eval_shape(model.init, jax.random.key(0))


def _sum(tree: Any, axes: tuple[str, ...]) -> Any:
    return lax.psum(tree, axes) if axes else tree
