"""Ablations of ARMT, one setting at a time (Rewrite).

    python -m experiments.sweep --config=configs/figures/ablations.py[:VARIANT]
    python -m experiments.report ablations

Rule (no gamma, no erase, sequential, without z), gate, layers with a memory, ``d_mem``, ``nu`` and
the number of memory tokens. One learning rate for all of them: that of ARMT's recipe.

Variant   Trains on             Cost
default   to 50 updates         2 CPU cores, 16 models, 1 seed
tiny      3 updates, 32 steps   2 CPU cores, a smoke run
"""

from typing import Any

import ml_collections

from armt_jax.config import ConfigError
from configs.figures.models import RATES, chosen
from configs.figures.retrieval import REWRITE, sweep

RULES = ("armt", "armt_no_gamma", "linear", "armt_sequential", "delta", "delta_hard")
SETTINGS: dict[str, dict[str, Any]] = {
    "bottom_layer": {"memory_layers": (0,)},
    "top_layer": {"memory_layers": (3,)},
    "upper_half": {"memory_layers": (2, 3)},
    "d_mem_8": {"d_mem": 8},
    "d_mem_16": {"d_mem": 16},
    "d_mem_64": {"d_mem": 64},
    "nu_1": {"nu": 1},
    "nu_2": {"nu": 2},
    "tokens_1": {"num_mem_tokens": 1},
    "tokens_2": {"num_mem_tokens": 2},
    "tokens_8": {"num_mem_tokens": 8},
}


def get_config(variant: str = "default") -> ml_collections.ConfigDict:
    if variant not in ("default", "tiny"):
        raise ConfigError(f"--config variant = {variant!r}: must be one of default, tiny")
    tiny = variant == "tiny"
    base = chosen(("armt",), tiny=tiny)["armt"]["model"]
    models = {
        name: {"model": {**base, **settings}}
        for name, settings in SETTINGS.items()
        if not (tiny and "memory_layers" in settings)  # the tiny model has one layer
    }
    values = sweep("ablations", variant, REWRITE, RULES)
    values |= {"pool": "ablations", "seeds": (0,), "models": {**values["models"], **models}}
    values |= {"rates": {"muon_5e-3": RATES["muon_5e-3"]}, "tuning": None}
    return ml_collections.ConfigDict(values)
