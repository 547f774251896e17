"""Flags of what is generated: how many tokens, and how each is chosen."""

from __future__ import annotations

from typing import Any

import jax
from absl import flags

from armt_jax.config.checks import require
from armt_jax.generation import Sampling, check_sampling

_NEW_TOKENS = flags.DEFINE_integer("max_new_tokens", None, "Tokens of an answer or text at most.")
_TEMPERATURE = flags.DEFINE_float("temperature", 0.0, "0 takes the likeliest token, 1 draws one.")
_TOP_K = flags.DEFINE_integer("top_k", 0, "Draw among the k likeliest tokens; 0: all.")
_TOP_P = flags.DEFINE_float("top_p", 1.0, "Draw among the likeliest tokens that add up to p.")
_SEED = flags.DEFINE_integer("seed", 0, "Of what is drawn.")


def settings() -> dict[str, Any]:
    """``sampling`` and ``rng`` of the flags.

    Raises:
      ConfigError: a value that cannot be.
    """
    sampling = Sampling(_TEMPERATURE.value, _TOP_K.value, _TOP_P.value)
    seed = _SEED.value
    require(0 <= seed < 2**31, "--seed", seed, "must be in [0, 2**31)")
    rng = jax.random.key(seed)
    check_sampling(sampling, rng)
    return {"sampling": sampling, "rng": rng}


def new_tokens(usual: int) -> int:
    """``--max_new_tokens``."""
    return usual if _NEW_TOKENS.value is None else _NEW_TOKENS.value
