"""The reader that is fastest on this machine's devices."""

from __future__ import annotations

import jax

from armt_jax.models.armt import ARMT
from armt_jax.models.protocol import Params, SegmentModel
from armt_jax.sharding import context_mesh
from armt_jax.streaming.reader import StreamReader

# Tokens of each text that one call of the compiled program reads: so many that calls cost nothing.
BLOCK_TOKENS = 32_768


def fast_reader(
    model: SegmentModel,
    params: Params,
    segment_size: int,
    block_tokens: int = BLOCK_TOKENS,
    segment_overlap: int = 0,
) -> StreamReader:
    """A reader in large blocks; over two devices where there are two and the model can."""
    devices = min(2, jax.local_device_count())
    can_share = isinstance(model, ARMT) and model.config.n_layer >= 2 * devices - 1
    shares = devices > 1 and can_share and segment_size >= devices
    return StreamReader(
        model,
        params,
        segment_size=segment_size,
        segment_overlap=segment_overlap,
        block_segments=max(1, block_tokens // segment_size),
        mesh=context_mesh(devices) if shares else None,
    )
