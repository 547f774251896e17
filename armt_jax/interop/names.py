"""Hugging Face's names and layouts of a backbone's parameters.

Parameters here have Hugging Face's module names already; what differs is the root in front, that
``torch.nn.Linear`` keeps a matrix (out, in) where a kernel here is (in, out) (GPT-2's ``Conv1D``
is (in, out), too), and that layers are stacked here.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax

from armt_jax.config import ModelConfig
from armt_jax.models.backbones import BACKBONES, head_name
from armt_jax.models.protocol import Params

ROOTS = {"gpt2": "transformer.", "gpt_neox": "gpt_neox.", "llama": "model."}
LAYERS = {"gpt2": "h", "gpt_neox": "layers", "llama": "layers"}
# The output matrix; checkpoints repeat the token embedding under it where the two are tied.
HEADS = {"gpt2": "lm_head.weight", "gpt_neox": "embed_out.weight", "llama": "lm_head.weight"}
# Buffers that older releases saved with their parameters; they are computed here.
_BUFFERS = {
    "gpt2": (".attn.bias", ".attn.masked_bias"),
    "gpt_neox": (".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq"),
    "llama": (".rotary_emb.inv_freq",),
}
# In front of the names of what a memory adds, which no other library has.
MEMORY = "armt_jax."
_LEAF = {"kernel": "weight", "scale": "weight", "bias": "bias"}

Path = tuple[str, ...]


class Piece(NamedTuple):
    """Where one named array of a checkpoint stands in the parameters.

    Attributes:
      path: the keys of a leaf.
      layer: index along its first axis; None: the leaf is not stacked, or named as a stack.
      rows: which rows of the leaf; None: all.
      transposed: the checkpoint keeps the matrix (out, in).
      shape: in the checkpoint.
    """

    path: Path
    layer: int | None
    rows: slice | None
    transposed: bool
    shape: tuple[int, ...]

    def cut(self, leaf: Any) -> Any:
        """The piece of its leaf, a view with the checkpoint's axes."""
        piece = leaf if self.layer is None else leaf[self.layer]
        piece = piece if self.rows is None else piece[self.rows]
        return piece.T if self.transposed else piece


def leaf_paths(tree: Params) -> list[tuple[Path, Any]]:
    """Leaves with the keys that lead to them."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [(tuple(str(key.key) for key in path), leaf) for path, leaf in leaves]


def pieces(config: ModelConfig, params: Params) -> tuple[dict[str, Piece], dict[str, Piece]]:
    """By name: the backbone's arrays, and those that the memory adds (``MEMORY`` in front).

    Args:
      config: of the model.
      params: its parameters, or their shapes.
    """
    backbone: dict[str, Piece] = {}
    memory: dict[str, Piece] = {}
    for path, leaf in leaf_paths(params):
        own = MEMORY + ".".join(path)
        if path == ("embed", "wpe"):
            table, extra = slice(None, config.n_positions), slice(config.n_positions, None)
            shape = (config.n_positions, config.d_model)
            backbone[f"{ROOTS[config.backbone]}wpe.weight"] = Piece(path, None, table, False, shape)
            if config.wrap_pos:
                shape = (leaf.shape[0] - config.n_positions, config.d_model)
                memory[own] = Piece(path, None, extra, False, shape)
            continue
        stacked = path[:2] == ("layers", "block")
        for layer in range(config.n_layer) if stacked else [None]:
            named = _backbone_name(config, path, layer)
            if named is None:
                memory[own] = Piece(path, None, None, False, leaf.shape)
                continue
            name, transposed = named
            shape = leaf.shape[1:] if stacked else leaf.shape
            shape = shape[::-1] if transposed else shape
            backbone[name] = Piece(path, layer, None, transposed, tuple(shape))
    return backbone, memory


def _backbone_name(config: ModelConfig, path: Path, layer: int | None) -> tuple[str, bool] | None:
    """A parameter's name and whether it is stored transposed; None where it is a memory's."""
    backbone, root = BACKBONES[config.backbone], ROOTS[config.backbone]
    group, *rest = path
    if group == "embed":
        return (f"{root}{rest[0]}.weight", False) if rest[0] == backbone.embedding else None
    if group == "head":
        if rest[0] == head_name(config):
            return f"{rest[0]}.weight", True
        return f"{root}{rest[0]}.{_LEAF[rest[1]]}", False
    if group != "layers" or rest[0] != "block":
        return None
    *modules, leaf = rest[1:]
    where = f"{root}{LAYERS[config.backbone]}.{layer}.{'.'.join(modules)}"
    is_linear = leaf == "kernel" and config.backbone != "gpt2"
    return f"{where}.{_LEAF[leaf]}", is_linear


def tied_head(config: ModelConfig) -> tuple[str, str] | None:
    """A tied head's name and that of the embedding it repeats; None where it is not tied."""
    if not config.is_tied:
        return None
    embedding = BACKBONES[config.backbone].embedding
    return HEADS[config.backbone], f"{ROOTS[config.backbone]}{embedding}.weight"


def is_buffer(config: ModelConfig, name: str) -> bool:
    """Whether a checkpoint's array is a buffer, not a parameter."""
    return name.endswith(_BUFFERS[config.backbone])
