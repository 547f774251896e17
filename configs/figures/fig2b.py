"""Figure 2b: exact match after more updates than were trained on (Rewrite).

    python -m experiments.sweep --config=configs/figures/fig2b.py[:VARIANT]
    python -m experiments.report fig2b

The paper: trained on 50 updates ARMT stays exact to 500, RMT and Mamba lose a little beyond 50.

Variant   Models                             Trains on             Cost
default   ARMT, Mamba, RMT, PRMT, 3 seeds    to 50 updates         10 CPU core hours
all       and every other family             the same              the same a run
paper     as all                             the paper's recipe    GPUs
tiny      as default, 1 seed                 3 updates, 32 steps   2 CPU cores, a smoke run

Cost, estimated: ``BUILD_NOTES.md``, "Sweeps and figures".
"""

import ml_collections

from configs.figures.retrieval import REWRITE, sweep

MODELS = ("armt", "mamba", "rmt", "prmt")
MORE = (
    "delta",
    "mamba_32",
    "mamba2",
    "delta_net",
    "gated_delta_net",
    "rwkv5",
    "rwkv7",
    "rmt_r",
    "transformer",
    "sliding",
)


def get_config(variant: str = "default") -> ml_collections.ConfigDict:
    return ml_collections.ConfigDict(sweep("fig2b", variant, REWRITE, MODELS, MORE))
