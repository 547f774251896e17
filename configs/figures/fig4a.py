"""Figure 4a: what gamma is for: ARMT with and without it after many updates (Rewrite).

    python -m experiments.sweep --config=configs/figures/fig4a.py[:VARIANT]
    python -m experiments.report fig4a

The paper: without gamma the memory breaks after hundreds of updates, with it it does not. ARMT's
runs are those of Figure 2b.

Variant   Models                                  Trains on             Cost
default   ARMT, and it without gamma, 3 seeds     to 50 updates         5 CPU core hours
all       and without erasing, sequential, delta  the same              the same a run
paper     as all                                  the paper's recipe    GPUs
tiny      as default, 1 seed                      3 updates, 32 steps   2 CPU cores, a smoke run

Cost, estimated: ``BUILD_NOTES.md``, "Sweeps and figures".
"""

import ml_collections

from configs.figures.retrieval import REWRITE, sweep

MODELS = ("armt", "armt_no_gamma")
MORE = ("linear", "armt_sequential", "delta", "delta_hard")


def get_config(variant: str = "default") -> ml_collections.ConfigDict:
    return ml_collections.ConfigDict(sweep("fig4a", variant, REWRITE, MODELS, MORE))
