"""All layers at once, each on another segment: the schedule that fills a wide device.

Layer l of segment s needs layer l - 1 of the same segment, and its own memory as segment s - 1
left it. So everything with the same ``s + l`` can be computed together (arXiv 2506.05229): at step
``t`` of ``S + L - 1`` layer l works on segment ``t - l``, and its output is layer l + 1's input of
the next step. A layer at work is a *lane*. In the first and the last ``L - 1`` steps some lanes
have no segment: they are dead, compute something all the same, and nothing of it may be seen.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from armt_jax.models.protocol import LayerwiseModel, Params, Segment, State
from armt_jax.recurrence.rematerialisation import remat_scan
from armt_jax.recurrence.truncation import goes_on, gradient_if


class Place(NamedTuple):
    """What one lane works on in one step.

    Attributes:
      live: bool, whether there is such a segment; the rest is another segment's where not.
      segment: leaves ``[b, t]``.
      reset: ``[b]`` bool, the rows that forget before this segment; None: no row does.
      goes_on: bool, whether gradients go on to the segment before; None: they do.
    """

    live: jax.Array
    segment: Segment
    reset: jax.Array | None
    goes_on: jax.Array | None


def place(segments: Segment, reset: jax.Array | None, index: jax.Array, bptt: int = 0) -> Place:
    """Segment ``index`` of a stack ``[s, b, t]``; ``index [l]`` gives leaves ``[l, ...]``."""
    count = segments.tokens.shape[0]
    nearest = jnp.clip(index, 0, count - 1)
    stacks = (segments, reset, goes_on(count, bptt))
    found = jax.tree.map(lambda leaf: jnp.asarray(leaf)[nearest], stacks)
    return Place((index >= 0) & (index < count), *found)


def empty_memory(model: LayerwiseModel, batch_size: int) -> State:
    """The memory of one layer before anything is read, leaves ``[b, ...]``."""
    return jax.tree.map(lambda leaf: leaf[0], model.init_state(batch_size))


@functools.partial(jax.checkpoint, prevent_cse=False)
def _select(rows: jax.Array, yes: jax.Array, no: jax.Array) -> jax.Array:
    """``where``, ``rows`` scalar or ``[b]``, that keeps ``rows`` for its backward pass.

    ``jnp.where`` keeps what they are broadcast to: for a memory as many as ``A`` has entries.
    """
    return jnp.where(lax.expand_dims(rows, range(rows.ndim, yes.ndim)), yes, no.astype(yes.dtype))


def guarded_layer(
    model: LayerwiseModel,
    params_l: Params,
    memory: State,
    x: jax.Array,
    context: Any,
    *,
    at: Place,
    harmless: jax.Array,
) -> tuple[State, jax.Array]:
    """``model.layer`` of a lane that may be dead.

    A selection stands on both sides. On what goes in, because its cotangent is selected too: what a
    dead lane differentiates is 0 times anything, which is NaN if anything is not finite. On what
    comes out, because a dead lane must not change a memory.

    Args:
      model: the model.
      params_l: of this layer.
      memory: of this layer, leaves ``[b, ...]``.
      x: ``[b, n, d]``, anything where the lane is dead.
      context: from ``model.embed``.
      at: whether the lane is live, which rows' memory becomes the empty one first, and whether
        the memory that is left has a gradient.
      harmless: ``[b, n, d]``, what a dead lane works on.

    Returns:
      The memory after the segment and the layer's output; of a dead lane ``memory`` and zeros.
    """
    live = at.live
    keep = live if at.reset is None else live & ~at.reset
    if at.goes_on is not None:
        # Of a dead lane the memory is only passed on.
        memory = gradient_if(at.goes_on | ~live, memory)
    # A dead lane reads the empty memory: one selection for both.
    before = jax.tree.map(functools.partial(_select, keep), memory, empty_memory(model, x.shape[0]))
    x = _select(live, x, lax.stop_gradient(harmless))
    after, y, _ = model.layer(gradient_if(live, params_l), before, x, context)
    after = jax.tree.unflatten(jax.tree.structure(memory), jax.tree.leaves(after))
    after = jax.tree.map(functools.partial(_select, live), after, memory)
    return after, _select(live, y, jnp.zeros_like(y))


def run_diagonal(
    model: LayerwiseModel,
    params: Params,
    state: State,
    segments: Segment,
    *,
    reset: jax.Array | None = None,
    remat: str = "none",
    bptt: int = 0,
    need_hidden: bool = True,
) -> tuple[State, jax.Array | None]:
    """Read ``segments [s, b, t]`` along the diagonals; see ``run_segments``.

    One ``lax.scan`` over ``S + L - 1`` steps, in it one ``vmap`` over the stacked layers.

    Args:
      model: see ``LayerwiseModel``.
      params, state: stacked over layers.
      segments: stacked along axis 0.
      reset: ``[s, b]`` bool or None.
      remat: what is kept of the steps for the backward pass, see ``remat_scan``; what goes from
        one to the next is the memories and the activations between layers.
      bptt: gradients end where a window of so many segments begins; 0: nowhere.
      need_hidden: False: none are returned. All layers are one program here, so that the last one
        computes its tokens nevertheless.
    """
    layers, count = model.config.n_layer, segments.tokens.shape[0]
    length = segments.tokens.shape[2]
    embed = functools.partial(model.embed, {"embed": params["embed"]})

    def body(carry: tuple[State, jax.Array], step: jax.Array) -> Any:
        memories, travelling = carry
        places = place(segments, reset, step - jnp.arange(layers), bptt)
        # The first lane's input, and something of the right size for dead ones.
        head, _ = embed(jax.tree.map(lambda leaf: leaf[0], places.segment))

        def lane(params_l: Params, memory: State, x: jax.Array, at: Place) -> Any:
            _, context = embed(at.segment)
            return guarded_layer(model, params_l, memory, x, context, at=at, harmless=head)

        x = jnp.concatenate([head[None], travelling])
        memories, x = jax.vmap(lane)(params["layers"], memories, x, places)
        return (memories, x[:-1]), x[-1, :, :length] if need_hidden else None

    first = jax.eval_shape(embed, jax.tree.map(lambda leaf: leaf[0], segments))[0]
    travelling = jnp.zeros((layers - 1, *first.shape), first.dtype)
    steps = jnp.arange(count + layers - 1)
    carry, hidden = remat_scan(body, (state, travelling), steps, remat=remat)
    return carry[0], None if hidden is None else hidden[layers - 1 :]
