"""Recurrences with a state of constant size, as pure functions: no flax, no parameters.

Each function reads a segment ``[b, t, ...]`` from a state and returns the state after it. Inside a
segment it is parallel: tokens are taken in chunks, and within a chunk there is an associative scan
or matrix products (of a few tokens Mamba makes a loop, which is faster). Zeros are neutral: a token
whose inputs are all zero (step size, log decay, key, value, gate) leaves the state as it is, which
is how padding is read.

Beside the usual axes (``b`` batch, ``t`` token, ``h`` head, ``d`` width, ``v`` vocabulary) ``i`` is
the inner width of a mixer, ``n`` the state size or width of a key, ``p`` the width of a value.
"""

from armt_jax.state_space.delta import gated_delta_rule
from armt_jax.state_space.selective_scan import selective_scan
from armt_jax.state_space.short_conv import Packing, packing, previous_token, short_conv
from armt_jax.state_space.ssd import state_space_dual
from armt_jax.state_space.wkv5 import wkv5
from armt_jax.state_space.wkv7 import wkv7

__all__ = [
    "Packing",
    "gated_delta_rule",
    "packing",
    "previous_token",
    "selective_scan",
    "short_conv",
    "state_space_dual",
    "wkv5",
    "wkv7",
]
