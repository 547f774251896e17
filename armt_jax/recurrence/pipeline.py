"""The diagonal over devices: every device keeps a group of layers and their memories.

The ``stage`` axis of a mesh splits the layers into equal groups, in order. At step ``t`` of
``S + stages - 1`` stage p takes segment ``t - p`` through its layers and hands the activations
``[b, n, d]`` on with ``ppermute``. That is all that moves: parameters, memories and their
cotangents stay where they are, and every stage reads masks and resets from its own copy of the
text. ``S / (S + stages - 1)`` of the stages' steps are work. A ``data`` axis, where the mesh has
one, shares out the batch.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType, Mesh
from jax.sharding import PartitionSpec as P

from armt_jax.config import ConfigError
from armt_jax.models.layers import UNROLLED_LAYERS
from armt_jax.models.protocol import LayerwiseModel, Params, Segment, State
from armt_jax.recurrence.diagonal import guarded_layer, place
from armt_jax.recurrence.rematerialisation import remat_scan
from armt_jax.sharding.mesh import DATA, STAGE


def run_pipeline(
    model: LayerwiseModel,
    params: Params,
    state: State,
    segments: Segment,
    *,
    mesh: Mesh | None,
    reset: jax.Array | None = None,
    remat: str = "none",
    bptt: int = 0,
    need_hidden: bool = True,
) -> tuple[State, jax.Array | None]:
    """Read ``segments [s, b, t]`` through the stages of ``mesh``; see ``run_segments``.

    Args:
      model: see ``LayerwiseModel``.
      params, state: stacked over layers; nothing is moved where their leading axis lies on
        ``stage`` already, and the state's second axis on ``data``.
      segments: stacked along axis 0.
      mesh: with an axis ``stage`` that divides the layers; ``data`` must divide the batch.
      reset: ``[s, b]`` bool or None.
      remat, bptt: as ``run_diagonal``.
      need_hidden: False: none are returned.

    Returns:
      As ``run_segments``; the state lies over ``stage`` and ``data``.

    Raises:
      ConfigError: no mesh, one of other axes, or one that does not divide layers or batch.
    """
    mesh = check_mesh(mesh, model.config.n_layer, segments.tokens.shape[1])
    used = (params["embed"], params["layers"], state, segments, reset)
    state, hidden = _run(model, mesh, remat, bptt, need_hidden, *used)
    # The other stages' rows are outputs of layers in the middle.
    return state, None if hidden is None else hidden[-1]


def check_mesh(mesh: Mesh | None, n_layer: int, batch_size: int) -> Mesh:
    """``mesh`` if ``n_layer`` layers and ``batch_size`` texts can be split over it."""
    if mesh is None:
        raise ConfigError(f"mesh = None: schedule = 'pipeline' needs one with an axis {STAGE!r}")
    if STAGE not in mesh.shape:
        axes = ", ".join(mesh.axis_names)
        raise ConfigError(f"mesh axes = {axes}: schedule = 'pipeline' needs one named {STAGE!r}")
    if any(kind != AxisType.Auto for kind in mesh.axis_types):
        kinds = ", ".join(kind.name for kind in mesh.axis_types)
        raise ConfigError(f"mesh axis types = {kinds}: must be Auto, as `stage_mesh` makes them")
    stages, shares = mesh.shape[STAGE], mesh.shape.get(DATA, 1)
    if n_layer % stages:
        raise ConfigError(f"mesh.{STAGE} = {stages}: must divide model.n_layer = {n_layer}")
    if batch_size % shares:
        raise ConfigError(f"mesh.{DATA} = {shares}: must divide the batch of {batch_size} texts")
    return mesh


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _run(
    model: LayerwiseModel,
    mesh: Mesh,
    remat: str,
    bptt: int,
    need_hidden: bool,
    embed: Params,
    layers: Params,
    state: State,
    segments: Segment,
    reset: jax.Array | None,
) -> tuple[State, jax.Array | None]:
    """``run_pipeline``, with hidden states of every stage ``[stages, s, b, t, d]``."""
    data = DATA if DATA in mesh.shape else None
    memories = P(STAGE, data)
    return jax.shard_map(
        functools.partial(read_stage, model, mesh.shape[STAGE], remat, bptt, need_hidden),
        mesh=mesh,
        in_specs=(P(), P(STAGE), memories, P(None, data), P(None, data)),
        out_specs=(memories, P(STAGE, None, data)),
        check_vma=False,
    )(embed, layers, state, segments, reset)


def read_stage(
    model: LayerwiseModel,
    stages: int,
    remat: str,
    bptt: int,
    need_hidden: bool,
    embed: Params,
    layers: Params,
    memories: State,
    segments: Segment,
    reset: jax.Array | None,
) -> tuple[State, jax.Array | None]:
    """What one device does, inside a ``shard_map`` over ``stage``.

    Args:
      model, remat, need_hidden, segments, reset: as in ``run_pipeline``.
      stages: devices along ``stage``.
      embed: ``params["embed"]``.
      layers, memories: those of the device's group, ``[g, ...]`` and ``[g, b, ...]``.

    Returns:
      The group's memories, and ``[1, s, b, t, d]``: the last layer's output on the last stage,
      something else on the others.
    """
    stage = lax.axis_index(STAGE)
    count, _, length = segments.tokens.shape
    group = jax.tree.leaves(layers)[0].shape[0]

    def body(carry: tuple[State, jax.Array], step: jax.Array) -> Any:
        memories, x = carry
        at = place(segments, reset, step - stage, bptt)
        own, context = model.embed({"embed": embed}, at.segment)

        def layer(x: jax.Array, scanned: Any) -> tuple[jax.Array, State]:
            params_l, memory = scanned
            memory, x = guarded_layer(model, params_l, memory, x, context, at=at, harmless=own)
            return x, memory

        x = jnp.where(stage == 0, own, x)
        unroll = group if group <= UNROLLED_LAYERS else 1
        x, memories = lax.scan(layer, x, (layers, memories), unroll=unroll)
        handed_on = lax.ppermute(x, STAGE, [(p, p + 1) for p in range(stages - 1)])
        return (memories, handed_on), x[:, :length] if need_hidden else None

    first = jax.tree.map(lambda leaf: leaf[0], segments)
    x = jax.eval_shape(model.embed, {"embed": embed}, first)[0]
    carry, steps = (memories, jnp.zeros(x.shape, x.dtype)), jnp.arange(count + stages - 1)
    (memories, _), hidden = remat_scan(body, carry, steps, remat=remat)
    return memories, None if hidden is None else hidden[None, stages - 1 :]
