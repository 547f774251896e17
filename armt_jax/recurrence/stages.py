"""Reading and asking inside a ``shard_map`` over ``stage``: every stage asks what it keeps.

The queries of a text are asked in pieces, which follow each other through the stages as segments
do in ``recurrence.pipeline``; they write nothing, so one device needs no other's memory.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax

from armt_jax.config import ConfigError
from armt_jax.models.protocol import AskedByLayer, Params, Segment, SegmentModel, State
from armt_jax.recurrence.pipeline import read_stage
from armt_jax.recurrence.truncation import gradient_if
from armt_jax.sharding.mesh import STAGE

# With 4 at most a fifth of the steps is waiting; more would make the products smaller.
PIECES_PER_STAGE = 4


def read_and_ask(
    model: SegmentModel,
    stages: int,
    params: Params,
    segments: Segment,
    queries: Segment,
    remat: str = "segment",
    bptt: int = 0,
) -> jax.Array:
    """Queries ``[b, q, t]`` of what one device of a pipeline has read from an empty memory.

    Args:
      model: the model.
      stages: devices along ``stage``.
      params: ``embed`` of the model, ``layers`` of the device's group.
      segments: ``[s, b, t]``.
      queries: ``[b, q, t]``.
      remat, bptt: as in ``run_segments``; every step is recomputed in the backward pass, also
        where ``remat`` is ``none``.

    Returns:
      ``[b, q, t, d]``: ``model.ask``'s result on the last stage, zeros on the others.

    Raises:
      ConfigError: a model that cannot be split into stages.
    """
    if not isinstance(model, AskedByLayer):
        name = type(model).__name__
        raise ConfigError(
            f"mesh.{STAGE} = {stages}: must be 1, {name} cannot be asked layer by layer"
        )
    group = model.config.n_layer // stages
    # Of all groups alike: empty.
    memories = jax.tree.map(lambda leaf: leaf[:group], model.init_state(segments.tokens.shape[1]))
    kept = ("segment" if remat == "none" else remat, bptt, False)
    own = (params["embed"], params["layers"], memories)
    memories, _ = read_stage(model, stages, *kept, *own, segments, None)
    return ask_stage(model, stages, params, memories, queries)


def ask_stage(
    model: AskedByLayer, stages: int, params: Params, memories: State, queries: Segment
) -> jax.Array:
    """What one device does, inside a ``shard_map`` over ``stage``.

    Args:
      model: the model.
      stages: devices along ``stage``.
      params: ``embed`` of the model, ``layers`` of the device's group.
      memories: of the device's group, ``[g, b, ...]``.
      queries: ``[b, q, t]``.

    Returns:
      ``[b, q, t, d]``: ``model.ask``'s result on the last stage, zeros on the others.
    """
    stage = lax.axis_index(STAGE)
    batch, total, length = queries.tokens.shape
    count = piece_count(total, stages)
    pieces = jax.tree.map(
        lambda leaf: leaf.reshape(batch, count, total // count, length).swapaxes(0, 1), queries
    )
    embed = functools.partial(model.embed_queries, {"embed": params["embed"]})

    def body(x: jax.Array, step: jax.Array) -> tuple[jax.Array, jax.Array]:
        index = step - stage
        live = (index >= 0) & (index < count)
        piece = jax.tree.map(lambda leaf: leaf[jnp.clip(index, 0, count - 1)], pieces)
        own, context = embed(piece)
        # As for a dead lane of the diagonal: harmless input, no gradient, nothing comes out.
        x = jnp.where(stage == 0, own, x)
        x = jnp.where(live, x, lax.stop_gradient(own))
        layers, known = gradient_if(live, (params["layers"], memories))
        x = model.ask_layers(layers, known, x, context)
        x = jnp.where(live, x, 0)
        return lax.ppermute(x, STAGE, [(p, p + 1) for p in range(stages - 1)]), x

    first = jax.eval_shape(embed, jax.tree.map(lambda leaf: leaf[0], pieces))[0]
    start = jnp.zeros(first.shape, first.dtype)
    scanned = jax.checkpoint(body, prevent_cse=False)
    _, hidden = lax.scan(scanned, start, jnp.arange(count + stages - 1))
    hidden = hidden[stages - 1 :].swapaxes(0, 1).reshape(batch, total, length, -1)
    return jnp.where(stage == stages - 1, hidden, 0)


def piece_count(queries: int, stages: int) -> int:
    """Equal pieces of ``queries``: the most there can be, up to ``PIECES_PER_STAGE`` a stage."""
    most = min(queries, PIECES_PER_STAGE * stages)
    return max(count for count in range(1, most + 1) if queries % count == 0)
