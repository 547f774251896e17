"""Mamba and Mamba-2 against the implementations in ``transformers`` (``tests/golden``)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from armt_jax import ModelConfig, create_model
from armt_jax.models import StateSpaceLM
from tests.golden_files import Golden
from tests.small_models import assert_close, quick_jit, segments_of


def _model(golden: Golden) -> StateSpaceLM:
    cfg = golden.meta["cfg"]
    return create_model(
        ModelConfig(
            family=golden.meta["kind"],
            n_layer=cfg["num_hidden_layers"],
            n_head=cfg.get("num_heads", 4),
            d_model=cfg["hidden_size"],
            vocab_size=cfg["vocab_size"],
            d_state=cfg["state_size"],
            d_conv=cfg["conv_kernel"],
            expand=cfg["expand"],
            dt_rank=cfg.get("time_step_rank", 0),
            chunk_size=4,
        )
    )


def _conv(arrays: Any, columns: slice) -> dict[str, np.ndarray]:
    taps, bias = arrays["conv1d.weight"][columns, 0].T, arrays["conv1d.bias"][columns]
    return {"taps": taps, "bias": bias}


def _mamba(cfg: ModelConfig, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    i, n, rank = cfg.d_inner, cfg.d_state, cfg.dt_rank
    narrow = arrays["x_proj.weight"].T
    return {
        "in_x": {"kernel": arrays["in_proj.weight"][:i].T},
        "in_z": {"kernel": arrays["in_proj.weight"][i:].T},
        "conv_x": _conv(arrays, slice(None)),
        "to_dt": {"kernel": narrow[:, :rank]},
        "to_B": {"kernel": narrow[:, rank : rank + n]},
        "to_C": {"kernel": narrow[:, rank + n :]},
        "dt": {"kernel": arrays["dt_proj.weight"].T, "bias": arrays["dt_proj.bias"]},
        "A_log": arrays["A_log"],
        "D": arrays["D"],
        "out": {"kernel": arrays["out_proj.weight"].T},
    }


def _mamba2(cfg: ModelConfig, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    i, n = cfg.d_inner, cfg.d_state
    edges = np.cumsum([i, i, n, n])
    z, x, B, C, dt = np.split(arrays["in_proj.weight"].T, edges, axis=1)
    parts = {"x": slice(0, i), "B": slice(i, i + n), "C": slice(i + n, i + 2 * n)}
    return {
        **{f"in_{name}": {"kernel": w} for name, w in (("z", z), ("x", x), ("B", B), ("C", C))},
        **{f"conv_{name}": _conv(arrays, columns) for name, columns in parts.items()},
        "to_dt": {"kernel": dt, "bias": arrays["dt_bias"]},
        "A_log_head": arrays["A_log"],
        "D_head": arrays["D"],
        "out_norm": {"scale": arrays["norm.weight"]},
        "out": {"kernel": arrays["out_proj.weight"].T},
    }


def _params(cfg: ModelConfig, arrays: dict[str, np.ndarray]) -> Any:
    """Our parameters (or gradients) of theirs."""
    layers = []
    for l in range(cfg.n_layer):
        start = f"backbone.layers.{l}."
        own = {k.removeprefix(start): v for k, v in arrays.items() if k.startswith(start)}
        mixer = {k.removeprefix("mixer."): v for k, v in own.items()}
        convert = _mamba if cfg.family == "mamba" else _mamba2
        layers.append({"norm": {"scale": own["norm.weight"]}, "mixer": convert(cfg, mixer)})
    params = {
        "embed": {"wte": arrays["backbone.embeddings.weight"]},
        "layers": jax.tree.map(lambda *leaves: np.stack(leaves), *layers),
        "head": {"norm": {"scale": arrays["backbone.norm_f.weight"]}},
    }
    return jax.tree.map(jnp.asarray, params)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("family", ["mamba", "mamba2"])
def test_equals_transformers_in_values_and_gradients(family: str) -> None:
    """In three segments, the last one shorter."""
    golden = Golden(family)
    model, tokens = _model(golden), jnp.asarray(golden["tokens"], jnp.int32)
    params = _params(model.config, golden.group("params"))
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0)))
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(lambda leaf: leaf.shape, shapes)

    def loss(params: Any) -> Any:
        state, hidden = model.init_state(2), []
        for start in range(0, 11, 5):
            state, out = model.step(params, state, segments_of(tokens[:, start : start + 5]))
            hidden.append(out)
        logits = model.readout(params, jnp.concatenate(hidden, axis=1))
        return jnp.sum(golden["weights"] * logits), (logits, state[0])

    grads, found = quick_jit(jax.grad(loss, has_aux=True))(params)
    assert_close(found, (golden["logits"], golden["ssm"]), 1e-12)
    assert_close(grads, _params(model.config, golden.group("grads")), 1e-12)
