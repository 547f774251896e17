"""One long text, its segments cut into shares of tokens, one share a device.

Attention is causal: in every layer the first tokens of a segment need nothing of the later ones,
and the later ones need keys and values of the first. So device c takes share c of the tokens
through the layers, one layer behind device c - 1, which hands on keys and values up to its share
(the token pipeline of TeraPipe, arXiv 2102.07988, whose stages are layers; here they are the
shares, and every device has all layers). The last device has the memory tokens and writes. What it
wrote into a layer travels on around the ring and is there when the others read that layer for the
next segment, ``L`` slots later:

    slot      0    1    2    3    4    5         L = 4 layers, K = 2 devices
    device 0  0/0  0/1  0/2  0/3  1/0  1/1       segment / layer
    device 1       0/0  0/1  0/2  0/3  1/0

Nobody waits but in the first and last ``K - 1`` slots of a block. The shares are of unequal sizes,
so that every device has the same work.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from armt_jax.config import ConfigError, ModelConfig
from armt_jax.memory.associative import MemoryState
from armt_jax.models.armt import ARMT, ArmtState
from armt_jax.models.attention import KeyValues
from armt_jax.models.layers import layer_params
from armt_jax.models.protocol import Params, Segment, SegmentModel
from armt_jax.sharding.mesh import CONTEXT

# What a score costs more than its products: its exponential, and two passes for the softmax.
_SCORE_COST = 2.0


def check_mesh(mesh: Mesh, model: SegmentModel, length: int) -> ARMT:
    """``model`` if its segments of ``length`` tokens can be shared out over ``mesh``.

    Raises:
      ConfigError: another model than ARMT, no axis ``context``, more devices than the ring has time
        for (``2 K - 1 <= L``), or than there are tokens.
    """
    if not isinstance(model, ARMT):
        name = type(model).__name__
        raise ConfigError(f"mesh with an axis {CONTEXT!r}: is for ARMT, {name} has one device")
    if mesh.axis_names != (CONTEXT,):
        axes = ", ".join(mesh.axis_names)
        raise ConfigError(f"mesh axes = {axes}: must be {CONTEXT}, as `context_mesh` makes it")
    devices, layers = mesh.shape[CONTEXT], model.config.n_layer
    most = (layers + 1) // 2
    if devices > most:
        raise ConfigError(
            f"mesh.{CONTEXT} = {devices}: must be at most {most} for model.n_layer = {layers} "
            "(what is written must get around the ring before its layer is read again)"
        )
    if devices > length:
        raise ConfigError(f"mesh.{CONTEXT} = {devices}: must be at most the {length} tokens")
    return model


def share_edges(config: ModelConfig, length: int, shares: int) -> tuple[int, ...]:
    """Where ``shares`` of about the same work begin and end, of ``length`` tokens and the memory.

    A position costs its dense products and reads, and a score for each position up to it. The
    memory tokens, behind the others, are in the last share. Each share has a token.
    """
    d = config.d_model
    dense = 4 * d * d + 2 * d * config.ff_dim + d * config.d_mem * (1 + 2 * config.nu)
    total = length + config.num_mem_tokens

    def cost(position: int) -> float:
        return position * dense + _SCORE_COST * d * position**2

    edges = [0]
    for share in range(1, shares):
        wanted = cost(total) * share / shares
        nearest = min(range(total + 1), key=lambda n: abs(cost(n) - wanted))
        edges.append(min(max(nearest, edges[-1] + 1), length - (shares - share)))
    return (*edges, total)


class _Carry(NamedTuple):
    """What a device keeps from one slot to the next.

    Attributes:
      memories: of all layers, as this device knows them, leaves ``[l, b, ...]``.
      x: its share's activations ``[b, widest share, d]``.
      keys: arriving keys and values of the positions before it, ``[2, b, n, g, e]``.
      written: an arriving memory, leaves ``[b, ...]``.
    """

    memories: MemoryState
    x: jax.Array
    keys: jax.Array
    written: MemoryState


def read_wavefront(
    model: ARMT,
    mesh: Mesh,
    size: int,
    params: Params,
    state: ArmtState,
    block: Segment,
    count: jax.Array,
) -> ArmtState:
    """The memory after the first ``count`` segments of ``block``, which nobody needs more of.

    Args:
      model: the model.
      mesh: with one axis ``context``; see ``check_mesh``.
      size: tokens of a segment.
      params: whole, on every device.
      state: without a window, on every device.
      block: ``[b, n * size]``.
      count: int32 scalar, at most ``n``.
    """
    edges = share_edges(model.config, size, mesh.shape[CONTEXT])
    return jax.shard_map(
        functools.partial(_device, model, size, edges),
        mesh=mesh,
        in_specs=P(),
        out_specs=P(),
        check_vma=False,
    )(params, state, block, count)


def _device(
    model: ARMT,
    size: int,
    edges: tuple[int, ...],
    params: Params,
    state: ArmtState,
    block: Segment,
    count: jax.Array,
) -> ArmtState:
    """What one device does: a loop over segments, in it the slots of all layers."""
    cfg, shares = model.config, len(edges) - 1
    device, layers = lax.axis_index(CONTEXT), cfg.n_layer
    ring = [(c, (c + 1) % shares) for c in range(shares)]

    def read(index: jax.Array) -> Segment:
        start = jnp.clip(index, 0, block.tokens.shape[1] // size - 1) * size
        cut = functools.partial(lax.dynamic_slice_in_dim, start_index=start, slice_size=size)
        return Segment(cut(block.tokens, axis=1), cut(block.mask, axis=1))

    def slot(carry: _Carry, index: jax.Array, number: int) -> _Carry:
        """Slot ``number`` of round ``index``: each device one layer of its share."""
        arrived = (number - device - shares) % layers
        memories = _store(carry.memories, carry.written, arrived)
        segment = index - (number < device)
        is_live = (segment >= 0) & (segment < count)
        work = [
            functools.partial(_work, model, params, edges, share, (number - share) % layers)
            for share in range(shares)
        ]
        rest = [functools.partial(_rest, share, shares, number) for share in range(shares)]
        x, keys, written = lax.switch(
            jnp.where(is_live, device, device + shares),
            [*work, *rest],
            read(segment),
            carry._replace(memories=memories),
        )
        keys, written = _hand_on((keys, written), ring)
        return _Carry(memories, x, keys, written)

    def round_(index: jax.Array, carry: _Carry) -> _Carry:
        for number in range(layers):
            carry = slot(carry, index, number)
        return carry

    memories = MemoryState(*state[:3])
    x, _ = jax.eval_shape(lambda: model.embed(params, read(jnp.int32(0))))
    widest = max(stop - start for start, stop in itertools.pairwise(edges))
    carry = _Carry(
        memories,
        jnp.zeros((x.shape[0], widest, x.shape[2]), x.dtype),
        jnp.zeros((2, x.shape[0], edges[-2], cfg.kv_heads, cfg.head_dim), x.dtype),
        # As if the ring had always turned: what it carries at first is what everybody has.
        jax.tree.map(lambda leaf: leaf[(-device - shares) % layers], memories),
    )
    carry = lax.fori_loop(0, count + 1, round_, carry)
    return ArmtState(*carry.memories)


def _hand_on(tree: Any, ring: list[tuple[int, int]]) -> Any:
    """``ppermute`` of all leaves in one message: devices meet once a slot."""
    leaves, structure = jax.tree.flatten(tree)
    common = jnp.result_type(*leaves)
    message = jnp.concatenate([leaf.astype(common).ravel() for leaf in leaves])
    message = lax.ppermute(message, CONTEXT, ring)
    sizes = [leaf.size for leaf in leaves]
    parts = jnp.split(message, list(itertools.accumulate(sizes))[:-1])
    arrived = [p.reshape(x.shape).astype(x.dtype) for p, x in zip(parts, leaves, strict=True)]
    return jax.tree.unflatten(structure, arrived)


def _store(memories: MemoryState, written: MemoryState, layer: jax.Array) -> MemoryState:
    return jax.tree.map(
        lambda all_, one: lax.dynamic_update_index_in_dim(all_, one, layer, 0), memories, written
    )


def _work(
    model: ARMT,
    params: Params,
    edges: tuple[int, ...],
    share: int,
    layer: int,
    segment: Segment,
    carry: _Carry,
) -> tuple[jax.Array, jax.Array, MemoryState]:
    """One layer of a share: its output, and what goes on to the next device."""
    start, stop = edges[share], edges[share + 1]
    begun, context = model.embed(params, segment)
    x = begun[:, start:stop] if layer == 0 else carry.x[:, : stop - start]
    context = context._replace(
        positions=context.positions[:, start:stop], attend=context.attend[:, start:stop, :stop]
    )
    params_l = layer_params(params["layers"], layer)
    memory = jax.tree.map(lambda leaf: leaf[layer], carry.memories)
    past = KeyValues(*carry.keys[:, :, :start]) if share > 0 else None
    is_top = layer == model.config.n_layer - 1
    keys, written = carry.keys, carry.written
    if share == len(edges) - 2:
        last = model.config.num_mem_tokens if is_top else None
        written, x, _ = model.layer(params_l, memory, x, context, past, last)
    else:
        x = model.recall(params_l, memory, x)
        # Nobody needs the top layer's output at a token.
        x, own = model.apply_block(params_l, x, context, past, 1 if is_top else None)
        keys = lax.dynamic_update_slice_in_dim(keys, jnp.stack(own), start, axis=2)
    grown = jnp.zeros_like(carry.x)
    return (grown if is_top else grown.at[:, : stop - start].set(x)), keys, written


def _rest(
    share: int, shares: int, number: int, segment: Segment, carry: _Carry
) -> tuple[jax.Array, jax.Array, MemoryState]:
    """A slot without a segment: the last device sends what it has of the layer it would write."""
    del segment
    if share < shares - 1:
        return carry.x, carry.keys, carry.written
    layer = (number - share) % carry.memories.A.shape[0]
    own = jax.tree.map(lambda leaf: leaf[layer], carry.memories)
    return carry.x, carry.keys, own
