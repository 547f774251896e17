"""One long text, its segments cut into shares of tokens, one share a device.

Attention is causal: in every layer the first tokens of a segment need nothing of the later ones,
and the later ones need keys and values of the first. So device c takes share c of the tokens
through the layers, one slot behind device c - 1, which hands on keys and values up to its share
(the token pipeline of TeraPipe, arXiv 2102.07988, whose stages are layers; here they are the
shares, and every device has all layers). The last device has the memory tokens and writes. What it
writes into a layer, a change of low rank, travels on around the ring and is there when the others
read that layer for the next segment, ``R`` slots later:

    slot      0    1    2     3    4    5         L = 4 layers, R = 3 slots, K = 2 devices
    device 0  0/0  0/1  0/23  1/0  1/1  1/23      segment / layers
    device 1       0/0  0/1  0/23  1/0  1/1

A slot is a layer, but the two on top are one slot where there are enough of them: of the top layer
nobody needs the output at a token, so that alone it would be a short slot for one device while
another one, in another layer, has a long one. In the first and last ``K - 1`` slots of a block some
devices have nothing to do. The shares are of unequal sizes, so that each has the same work.
"""

from __future__ import annotations

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from armt_jax.config import ConfigError, ModelConfig
from armt_jax.memory.associative import MemoryState, apply_write
from armt_jax.models.armt import ARMT, ArmtState
from armt_jax.models.attention import KeyValues
from armt_jax.models.layers import layer_params
from armt_jax.models.protocol import Params, Segment, SegmentModel
from armt_jax.recurrence.wavefront_mail import Layout, Written
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


def slot_layers(layers: int, devices: int) -> tuple[tuple[int, ...], ...]:
    """The layers of each slot: one, but the two on top together where the ring has time for it."""
    if layers - 1 < 2 * devices - 1:
        return tuple((layer,) for layer in range(layers))
    return (*((layer,) for layer in range(layers - 2)), (layers - 2, layers - 1))


class _Carry(NamedTuple):
    """What a device keeps from one slot to the next.

    Attributes:
      memories: of all layers, as this device knows them, leaves ``[l, b, ...]``.
      x: its share's activations ``[b, widest share, d]``.
      mail: what has arrived: keys and values of the positions before it, and changes (``Layout``).
    """

    memories: MemoryState
    x: jax.Array
    mail: jax.Array


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
    shares = len(edges) - 1
    slots = slot_layers(model.config.n_layer, shares)
    device = lax.axis_index(CONTEXT)
    ring = [(c, (c + 1) % shares) for c in range(shares)]
    memories = MemoryState(*state[:3])
    most, (batch, before) = max(map(len, slots)), (block.tokens.shape[0], edges[-2])
    layout = Layout.of(model, most, batch, before, memories.A.dtype)

    def read(index: jax.Array) -> Segment:
        start = jnp.clip(index, 0, block.tokens.shape[1] // size - 1) * size
        cut = functools.partial(lax.dynamic_slice_in_dim, start_index=start, slice_size=size)
        return Segment(cut(block.tokens, axis=1), cut(block.mask, axis=1))

    def slot(carry: _Carry, index: jax.Array, number: int) -> _Carry:
        """Slot ``number`` of round ``index``: each device the layers of one slot of its share."""
        places = [slots[(number - share) % len(slots)] for share in range(shares)]
        # A slot's first layer has its number.
        arrived = (number - device - shares) % len(slots)
        memories = _store(carry.memories, layout.written_of(carry.mail), arrived)
        segment = index - (number < device)
        is_live = (segment >= 0) & (segment < count)
        work = [
            functools.partial(_work, model, params, edges, layout, share, layers)
            for share, layers in enumerate(places)
        ]
        rest = [functools.partial(_rest, layout, share == shares - 1) for share in range(shares)]
        x, mail = lax.switch(
            jnp.where(is_live, device, device + shares),
            [*work, *rest],
            read(segment),
            carry._replace(memories=memories),
        )
        # Devices meet here, and only here.
        sent = layout.length(max(map(len, places)))
        arriving = lax.ppermute(mail[:sent], CONTEXT, ring)
        return _Carry(memories, x, lax.dynamic_update_slice_in_dim(mail, arriving, 0, axis=0))

    def round_(index: jax.Array, carry: _Carry) -> _Carry:
        for number in range(len(slots)):
            carry = slot(carry, index, number)
        return carry

    x, _ = jax.eval_shape(lambda: model.embed(params, read(jnp.int32(0))))
    widest = max(stop - start for start, stop in itertools.pairwise(edges))
    blank = jnp.zeros((x.shape[0], widest, x.shape[2]), x.dtype)
    carry = lax.fori_loop(0, count + 1, round_, _Carry(memories, blank, layout.empty()))
    return ArmtState(*carry.memories)


def _store(memories: MemoryState, written: Written, layer: jax.Array) -> MemoryState:
    """Write what has arrived into the layers from ``layer`` on."""
    count = written.write.shape[0]

    def write(memory: MemoryState, one: Written) -> MemoryState:
        return apply_write(memory, one.phi, one.change, one.write)

    def cut(leaf: jax.Array) -> jax.Array:
        return lax.dynamic_slice_in_dim(leaf, layer, count, axis=0)

    new = jax.vmap(write)(jax.tree.map(cut, memories), written)
    return jax.tree.map(
        lambda all_, some: lax.dynamic_update_slice_in_dim(all_, some, layer, axis=0), memories, new
    )


def _work(
    model: ARMT,
    params: Params,
    edges: tuple[int, ...],
    layout: Layout,
    share: int,
    layers: tuple[int, ...],
    segment: Segment,
    carry: _Carry,
) -> tuple[jax.Array, jax.Array]:
    """The layers of one slot of a share: the output, and what goes on to the next device."""
    start, stop = edges[share], edges[share + 1]
    begun, context = model.embed(params, segment)
    x = begun[:, start:stop] if layers[0] == 0 else carry.x[:, : stop - start]
    context = context._replace(
        positions=context.positions[:, start:stop], attend=context.attend[:, start:stop, :stop]
    )
    is_last, top = share == len(edges) - 2, model.config.n_layer - 1
    mail, changes = carry.mail, []
    for place, layer in enumerate(layers):
        params_l = layer_params(params["layers"], layer)
        memory = jax.tree.map(lambda leaf, layer=layer: leaf[layer], carry.memories)
        past = None
        if share > 0:
            past = KeyValues(*layout.keys_of(mail, place)[:, :, :start].astype(x.dtype))
        # Nobody needs the top layer's output at a token.
        least = model.config.num_mem_tokens if is_last else 1
        x = model.recall(params_l, memory, x)
        x, own = model.apply_block(params_l, x, context, past, least if layer == top else None)
        if is_last:
            phi, change = model.memory_change(params_l, memory, x, context.write)
            changes.append(Written.of(phi, change, context.write))
        else:
            mail = layout.with_keys(mail, place, jnp.stack(own), start)
    if is_last:
        mail = layout.with_written(mail, changes)
    grown = jnp.zeros_like(carry.x)
    return grown if layers[-1] == top else grown.at[:, : stop - start].set(x), mail


def _rest(
    layout: Layout, is_last: bool, segment: Segment, carry: _Carry
) -> tuple[jax.Array, jax.Array]:
    """A slot without a segment: the last device writes nothing, others hand on what they have."""
    del segment
    return carry.x, layout.with_written(carry.mail, []) if is_last else carry.mail
