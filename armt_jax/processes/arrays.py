"""Arrays over the devices of several processes, made from what each process has."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.experimental.multihost_utils import process_allgather
from jax.sharding import NamedSharding, Sharding

from armt_jax.processes.together import process_count


def share_of(sharding: Sharding, batch_size: int) -> tuple[int, int]:
    """Which rows of a batch this process needs: ``(index, count)``, part ``index`` of ``count``.

    Args:
      sharding: of the batch's arrays: their leading axis is cut, or nothing.
      batch_size: rows of the whole batch.
    """
    places = sharding.addressable_devices_indices_map((batch_size,))
    rows = [range(batch_size)[index[0]] for index in places.values() if index is not None]
    start, stop = min(part.start for part in rows), max(part.stop for part in rows)
    size = stop - start
    if len({row for part in rows for row in part}) != size or start % size or batch_size % size:
        raise ValueError(f"rows {rows} of {batch_size}: must be one of equal parts")
    return start // size, batch_size // size


def global_batch(batch: Any, sharding: Sharding, batch_size: int) -> Any:
    """Arrays of ``batch_size`` rows from the rows of this process (``share_of``).

    With one process the batch is returned as it is.
    """
    if process_count() == 1:
        return batch
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(sharding, x, (batch_size, *x.shape[1:])),
        batch,
    )


def on_mesh(tree: Any, shardings: Any) -> Any:
    """The arrays of ``tree`` with ``shardings``: one ``NamedSharding``, or one for each leaf.

    Across processes ``device_put`` cannot move an array between sets of devices: a replicated
    array is then put there from each process's own copy of it.
    """
    if process_count() == 1:
        return jax.device_put(tree, shardings)
    if isinstance(shardings, NamedSharding):
        shardings = jax.tree.map(lambda _: shardings, tree)

    def move(leaf: Any, sharding: NamedSharding) -> jax.Array:
        if isinstance(leaf, jax.Array) and leaf.sharding.device_set == sharding.device_set:
            return leaf if leaf.sharding == sharding else _reshard(leaf, sharding)
        value = np.asarray(_whole(leaf) if isinstance(leaf, jax.Array) else leaf)
        return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])

    return jax.tree.map(move, tree, shardings)


def local_copy(tree: Any) -> Any:
    """The arrays of ``tree`` in NumPy, whole in every process."""
    return jax.tree.map(lambda leaf: np.asarray(_whole(leaf)), tree)


def _whole(leaf: jax.Array) -> Any:
    if leaf.is_fully_replicated:
        return leaf.addressable_data(0)
    return leaf if leaf.is_fully_addressable else process_allgather(leaf, tiled=True)


def _reshard(leaf: jax.Array, sharding: NamedSharding) -> jax.Array:
    return jax.jit(lambda x: x, out_shardings=sharding)(leaf)
