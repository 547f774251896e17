"""The kinds of models there are, and what their settings may be called."""

FAMILIES = (
    "armt",
    "rmt",
    "prmt",
    "rmt_r",
    "transformer",
    "mamba",
    "mamba2",
    "delta_net",
    "gated_delta_net",
    "rwkv5",
    "rwkv7",
)
# Recurrent models: no attention, no positions, no memory tokens.
STATE_SPACE_FAMILIES = (
    "mamba",
    "mamba2",
    "delta_net",
    "gated_delta_net",
    "rwkv5",
    "rwkv7",
)
# How many times the memory tokens stand in a segment, where a family has any: ARMT's at the end;
# RMT's and PRMT's at both ends; RMT-R's also as what it retrieved.
MEMORY_COPIES = {
    "armt": 1,
    "rmt": 2,
    "prmt": 2,
    "rmt_r": 3,
}
# Families whose layers are blocks of a backbone, and which have its positions.
ON_BACKBONES = (*MEMORY_COPIES, "transformer")
MEMORY_PASSINGS = ("released", "layerwise")
RETRIEVALS = ("exact", "top1")
BACKBONES = ("gpt2", "gpt_neox", "llama")
DTYPES = ("float32", "bfloat16", "float64")
MATMUL_PRECISIONS = ("default", "high", "highest")
