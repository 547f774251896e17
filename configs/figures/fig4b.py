"""Figure 4b: memory in every layer is not what stores more: PRMT against RMT (Remember).

    python -m experiments.sweep --config=configs/figures/fig4b.py[:VARIANT]
    python -m experiments.report fig4b

The paper: PRMT, RMT with memory tokens of every layer, stores no more than RMT. The runs are those
of Figure 2a, and PRMT as the paper describes it beside the one of the authors' code.

Variant   Models                                  Trains on                 Cost
default   ARMT, RMT, PRMT (released, layerwise)   to 50 pairs, key size 2   20 CPU core hours
all       the same                                the same                  the same
paper     the same                                the paper's recipe        GPUs
tiny      as default, 1 seed                      2 pairs, 32 steps         a smoke run

Cost, estimated: ``BUILD_NOTES.md``, "Sweeps and figures".
"""

import ml_collections

from configs.figures.retrieval import REMEMBER, sweep

MODELS = ("armt", "rmt", "prmt", "prmt_layerwise")


def get_config(variant: str = "default") -> ml_collections.ConfigDict:
    return ml_collections.ConfigDict(sweep("fig4b", variant, REMEMBER, MODELS))
