"""Figure 2a: how many key-value pairs each model stores (Remember).

    python -m experiments.sweep --config=configs/figures/fig2a.py[:VARIANT]
    python -m experiments.report fig2a

The paper: at equal state ARMT stores more than Mamba, both more than RMT, and PRMT no more than
RMT.

Variant   Models                                    Trains on                 Cost
default   ARMT, delta, Mamba, RMT, PRMT, 3 seeds    to 50 pairs, key size 2   20 CPU core hours
all       and every other family and reference      the same                  the same a run
paper     as all                                    the paper's recipe        GPUs
tiny      as default, 1 seed                        2 pairs, 32 steps         a smoke run

Cost, estimated: ``BUILD_NOTES.md``, "Sweeps and figures".
"""

import ml_collections

from configs.figures.retrieval import REMEMBER, sweep

MODELS = ("armt", "delta", "mamba", "rmt", "prmt")
MORE = (
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
    return ml_collections.ConfigDict(sweep("fig2a", variant, REMEMBER, MODELS, MORE))
