"""The one table of where every parameter and every moment of the optimizer lies.

A rule is a name's pattern and one mesh axis (or None) for each axis of the array:

- ``stage`` splits the leading axis of ``layers``; embeddings and head are on every stage.
- ``fsdp`` splits the model's width (where it is missing: the hidden units) of everything.
- ``tensor`` splits what is computed side by side: heads and hidden units (columns of the matrices
  that lead into them, rows of those that lead out), the vocabulary, and the columns of ``W_V``,
  with which the memories ``A [l, b, k, d]`` are split over ``d`` and are read without a sum.
  Norms, vectors, positions and the narrow ``W_Q, W_K, W_beta`` are the same along ``tensor``.

A moment lies as its parameter does. A leaf without a rule is an error and not replicated: what
grows with the model must not end up whole on every device because its name is new.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from armt_jax.config import ConfigError
from armt_jax.sharding.mesh import FSDP, STAGE, TENSOR, axis_size


class RuleError(LookupError):
    """A leaf that no rule, several rules, or a rule of another rank describes."""


class Rule(NamedTuple):
    """Attributes: regular expression of the whole name, and a mesh axis or None for each axis."""

    pattern: str
    axes: tuple[str | None, ...]


_COLUMNS = (
    r"(attn\.c_attn|attention\.query_key_value|mlp\.c_fc|mlp\.dense_h_to_4h"
    r"|self_attn\.[qkv]_proj|mlp\.gate_proj|mlp\.up_proj)"
)
_ROWS = (
    r"(attn\.c_proj|attention\.dense|mlp\.c_proj|mlp\.dense_4h_to_h"
    r"|self_attn\.o_proj|mlp\.down_proj)"
)
_NORMS = r"(ln_1|ln_2|input_layernorm|post_attention_layernorm)"

PARAMETERS = (
    Rule(r"embed\.(wte|embed_in|embed_tokens)", (TENSOR, FSDP)),
    Rule(r"embed\.(wpe|memory)", (None, FSDP)),
    Rule(rf"layers\.block\.{_NORMS}\.(scale|bias)", (STAGE, FSDP)),
    Rule(rf"layers\.block\.{_COLUMNS}\.kernel", (STAGE, FSDP, TENSOR)),
    Rule(rf"layers\.block\.{_ROWS}\.kernel", (STAGE, TENSOR, FSDP)),
    Rule(rf"layers\.block\.({_COLUMNS}|{_ROWS})\.bias", (STAGE, FSDP)),
    Rule(r"layers\.memory", (STAGE, None, FSDP)),
    Rule(r"layers\.memory\.W_mv\.kernel", (STAGE, FSDP, TENSOR)),
    Rule(r"layers\.memory\.(W_mq|W_mk|W_mb)\.kernel", (STAGE, FSDP, None)),
    Rule(r"layers\.memory\.W_mb\.bias", (STAGE, None)),
    Rule(r"retrieval\.(query|key|value)\.kernel", (FSDP, TENSOR)),
    Rule(r"head\.(ln_f|final_layer_norm|norm)\.(scale|bias)", (FSDP,)),
    Rule(r"head\.(embed_out|lm_head)", (FSDP, TENSOR)),
    # Low-rank changes of the layers' matrices (armt_jax/tuning/lora.py): small, whole but by layer.
    Rule(r"lora\.layers\.(.+\.)?(down|up)", (STAGE, None, None)),
    # Recurrent models (armt_jax/models/state_space): channels or heads lie over ``tensor``.
    Rule(r"embed\.norm\.(scale|bias)", (FSDP,)),
    Rule(r"layers\.(norm|norm_time|norm_channel|mlp\.norm)\.(scale|bias)", (STAGE, FSDP)),
    Rule(r"layers\.mlp\.(gate|up)\.kernel", (STAGE, FSDP, TENSOR)),
    Rule(r"layers\.mlp\.down\.kernel", (STAGE, TENSOR, FSDP)),
    Rule(r"layers\.mixer\.in_(x|z|q|k|v|gate)\.kernel", (STAGE, FSDP, TENSOR)),
    Rule(r"layers\.mixer\.out\.kernel", (STAGE, TENSOR, FSDP)),
    Rule(r"layers\.mixer\.(in_(B|C)|to_(B|C|dt|beta|decay))\.kernel", (STAGE, FSDP, None)),
    Rule(r"layers\.mixer\.to_(dt|decay)\.bias", (STAGE, None)),
    Rule(r"layers\.mixer\.dt\.kernel", (STAGE, None, FSDP)),
    Rule(r"layers\.mixer\.conv_(x|q|k|v|B|C)\.taps", (STAGE, None, FSDP)),
    Rule(r"layers\.mixer\.(conv_(x|B|C)\.bias|dt\.bias|D|out_norm\.scale)", (STAGE, FSDP)),
    Rule(r"layers\.mixer\.A_log", (STAGE, FSDP, None)),
    Rule(r"layers\.mixer\.((A_log|D)_head|head_norm\.scale)", (STAGE, None)),
    Rule(r"layers\.(time|channel)\.mix\.\w", (STAGE, FSDP)),
    Rule(r"layers\.time\.(decay|bonus|removal|rate_of_key)", (STAGE, FSDP)),
    Rule(r"layers\.time\.out_norm\.(scale|bias)", (STAGE, FSDP)),
    Rule(r"layers\.(time\.(r|k|v|g)|channel\.k)\.kernel", (STAGE, FSDP, TENSOR)),
    Rule(r"layers\.(time|channel)\.out\.kernel", (STAGE, TENSOR, FSDP)),
    Rule(r"layers\.(channel\.r|time\.(decay|rate|value|gate)\.down)\.kernel", (STAGE, FSDP, None)),
    Rule(r"layers\.time\.(decay|rate|value|gate)\.up\.kernel", (STAGE, None, FSDP)),
    Rule(r"layers\.time\.(decay|rate|value)\.up\.bias", (STAGE, FSDP)),
)

# A teacher's parameters lie as those of the model that it teaches (armt_jax/tuning/teacher.py).
_TAUGHT = tuple(Rule(r"(teacher\.)?" + rule.pattern, rule.axes) for rule in PARAMETERS)

# In front of a parameter's name in a training state: itself, or its moments.
_OWNER = r"(params|opt_state\.(.+\.)?(mu|nu))\."

STATE = (
    *(Rule(_OWNER + rule.pattern, rule.axes) for rule in _TAUGHT),
    Rule(r"step", ()),
    Rule(r"opt_state\.(.+\.)?count", ()),
    Rule(r"opt_state\.(.+\.)?ns_coeffs", (None,)),
)


def parameter_specs(params: Any, mesh: Mesh) -> Any:
    """A ``PartitionSpec`` for every parameter (arrays or shapes), of the mesh's axes.

    Raises:
      RuleError: a parameter that not exactly one rule describes.
      ConfigError: a mesh axis that does not divide what it should split.
    """
    return _specs(_TAUGHT, params, mesh)


def parameter_shardings(params: Any, mesh: Mesh) -> Any:
    """As ``parameter_specs``, with the mesh."""
    return _with_mesh(parameter_specs(params, mesh), mesh)


def state_shardings(state: Any, mesh: Mesh) -> Any:
    """Where every leaf of a ``TrainState`` (arrays or shapes) lies; errors as above."""
    return _with_mesh(_specs(STATE, state, mesh), mesh)


def find_rule(rules: tuple[Rule, ...], name: str, rank: int) -> Rule:
    """The one rule that describes a leaf.

    Raises:
      RuleError: none, several, or one of another rank.
    """
    found = [rule for rule in rules if re.fullmatch(rule.pattern, name)]
    if len(found) != 1:
        several = " and ".join(rule.pattern for rule in found) or "none"
        raise RuleError(
            f"{name}: must match one rule of armt_jax/sharding/rules.py, matches {several}"
        )
    if len(found[0].axes) != rank:
        raise RuleError(
            f"{name} has {rank} axes: its rule {found[0].pattern} in armt_jax/sharding/rules.py "
            f"is for {len(found[0].axes)}"
        )
    return found[0]


def leaf_names(tree: Any) -> Iterator[tuple[str, Any]]:
    """Names such as ``params.layers.block.mlp.c_fc.kernel``, with their leaves."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        yield jax.tree_util.keystr(path, simple=True, separator="."), leaf


def _specs(rules: tuple[Rule, ...], tree: Any, mesh: Mesh) -> Any:
    specs = [
        _spec(find_rule(rules, name, len(leaf.shape)), name, leaf.shape, mesh)
        for name, leaf in leaf_names(tree)
    ]
    return jax.tree.unflatten(jax.tree.structure(tree), specs)


def _spec(rule: Rule, name: str, shape: tuple[int, ...], mesh: Mesh) -> P:
    axes: list[str | None] = []
    for axis, length in zip(rule.axes, shape, strict=True):
        size = 1 if axis is None else axis_size(mesh, axis)
        if length % size:
            raise ConfigError(f"mesh.{axis} = {size}: must divide {name} of shape {list(shape)}")
        # An axis of one device splits nothing: one device's arrays are simply whole.
        axes.append(axis if size > 1 else None)
    while axes and axes[-1] is None:
        axes.pop()
    return P(*axes)


def _with_mesh(specs: Any, mesh: Mesh) -> Any:
    return jax.tree.map(
        lambda spec: NamedSharding(mesh, spec), specs, is_leaf=lambda leaf: isinstance(leaf, P)
    )
