"""The families by name. A new one is an entry here and one in ``armt_jax.config.FAMILIES``."""

from __future__ import annotations

from armt_jax.models.state_space.block import Block
from armt_jax.models.state_space.delta_net import DELTA_NET, GATED_DELTA_NET
from armt_jax.models.state_space.mamba import MAMBA
from armt_jax.models.state_space.mamba2 import MAMBA2
from armt_jax.models.state_space.rwkv5 import RWKV5
from armt_jax.models.state_space.rwkv7 import RWKV7

__all__ = ["BLOCKS", "Block"]

BLOCKS: dict[str, Block] = {
    "mamba": MAMBA,
    "mamba2": MAMBA2,
    "delta_net": DELTA_NET,
    "gated_delta_net": GATED_DELTA_NET,
    "rwkv5": RWKV5,
    "rwkv7": RWKV7,
}
