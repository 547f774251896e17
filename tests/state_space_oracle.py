"""Recurrent language models one token of one text at a time: the published equations, as a loop.

Written with an array module ``xp``: NumPy for values, ``jax.numpy`` in a ``lax.scan`` for
gradients. Nothing here knows of batches, segments, chunks or padding: a masked token is one that
is left out.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from armt_jax import ModelConfig


def silu(xp: Any, x: Any) -> Any:
    return x / (1 + xp.exp(-x))


def sigmoid(xp: Any, x: Any) -> Any:
    return 1 / (1 + xp.exp(-x))


def softplus(xp: Any, x: Any) -> Any:
    return xp.log(1 + xp.exp(x))


def rms(xp: Any, scale: Any, x: Any, eps: float) -> Any:
    return x / xp.sqrt(xp.mean(x * x) + eps) * scale


def layer_norm(xp: Any, params: Any, x: Any, eps: float) -> Any:
    x = x - xp.mean(x)
    return x / xp.sqrt(xp.mean(x * x) + eps) * params["scale"] + params["bias"]


def conv(xp: Any, params: Any, before: Any, x: Any) -> tuple[Any, Any]:
    """The last inputs after this one, and the convolution behind its SiLU."""
    line = xp.concatenate([before, x[None]])
    y = xp.sum(params["taps"] * line, axis=0) + params.get("bias", 0.0)
    return line[1:], silu(xp, y)


def mamba(xp: Any, cfg: ModelConfig, p: Any, state: Any, x: Any) -> tuple[Any, Any]:
    h, before = state
    z = x @ p["in_z"]["kernel"]
    last, u = conv(xp, p["conv_x"], before, x @ p["in_x"]["kernel"])
    dt = softplus(xp, u @ p["to_dt"]["kernel"] @ p["dt"]["kernel"] + p["dt"]["bias"])
    B, C = u @ p["to_B"]["kernel"], u @ p["to_C"]["kernel"]
    h = xp.exp(-dt[:, None] * xp.exp(p["A_log"])) * h + (dt * u)[:, None] * B[None, :]
    y = h @ C + p["D"] * u
    return (h, last), (y * silu(xp, z)) @ p["out"]["kernel"]


def mamba2(xp: Any, cfg: ModelConfig, p: Any, state: Any, x: Any) -> tuple[Any, Any]:
    H, *before = state
    last, parts = [], []
    for name, inputs in zip("xBC", before, strict=True):
        kept, out = conv(xp, p[f"conv_{name}"], inputs, x @ p[f"in_{name}"]["kernel"])
        last.append(kept)
        parts.append(out)
    u, B, C = parts
    u = u.reshape(cfg.n_head, -1)
    dt = softplus(xp, x @ p["to_dt"]["kernel"] + p["to_dt"]["bias"])
    rows = []
    for head in range(cfg.n_head):
        a = xp.exp(-dt[head] * xp.exp(p["A_log_head"][head]))
        rows.append(a * H[head] + dt[head] * u[head][:, None] * B[None, :])
    H = xp.stack(rows)
    y = (H @ C + p["D_head"][:, None] * u).reshape(-1)
    y = rms(xp, p["out_norm"]["scale"], y * silu(xp, x @ p["in_z"]["kernel"]), cfg.layer_norm_eps)
    return (H, *last), y @ p["out"]["kernel"]


def delta_net(xp: Any, cfg: ModelConfig, p: Any, state: Any, x: Any) -> tuple[Any, Any]:
    S, *before = state
    last, parts = [], []
    for name, inputs in zip("qkv", before, strict=True):
        kept, out = conv(xp, p[f"conv_{name}"], inputs, x @ p[f"in_{name}"]["kernel"])
        last.append(kept)
        parts.append(out.reshape(cfg.n_head, -1))
    q, k, v = parts
    beta = sigmoid(xp, x @ p["to_beta"]["kernel"])
    rows, outputs = [], []
    for h in range(cfg.n_head):
        key = k[h] / xp.sqrt(k[h] @ k[h] + 1e-6)
        query = q[h] / xp.sqrt(q[h] @ q[h] + 1e-6) / cfg.d_state**0.5
        decay = 1.0
        if "A_log_head" in p:
            step = softplus(xp, x @ p["to_decay"]["kernel"] + p["to_decay"]["bias"])[h]
            decay = xp.exp(-xp.exp(p["A_log_head"][h]) * step)
        erased = S[h] - beta[h] * xp.outer(key, key @ S[h])
        rows.append(decay * erased + beta[h] * xp.outer(key, v[h]))
        outputs.append(rms(xp, p["head_norm"]["scale"], query @ rows[-1], cfg.layer_norm_eps))
    y = xp.concatenate(outputs)
    if "in_gate" in p:
        y = y * silu(xp, x @ p["in_gate"]["kernel"])
    return (xp.stack(rows), *last), y @ p["out"]["kernel"]


def group_norm(xp: Any, params: Any, outputs: list[Any]) -> Any:
    normed = []
    for y in outputs:
        y = y - xp.mean(y)
        normed.append(y / xp.sqrt(xp.mean(y * y) + 64e-5))
    return xp.concatenate(normed) * params["scale"] + params["bias"]


def rwkv5(xp: Any, cfg: ModelConfig, p: Any, state: Any, x: Any) -> tuple[Any, Any]:
    S, time, channel = state
    t, eps = p["time"], cfg.layer_norm_eps
    n = layer_norm(xp, p["norm_time"], x, eps)
    mixed = {name: n + (time[0] - n) * mu for name, mu in t["mix"].items()}
    r, k, v = ((mixed[name] @ t[name]["kernel"]).reshape(cfg.n_head, -1) for name in "rkv")
    w = xp.exp(-xp.exp(t["decay"])).reshape(r.shape)
    u = t["bonus"].reshape(r.shape)
    rows, outputs = [], []
    for h in range(cfg.n_head):
        write = xp.outer(k[h], v[h])
        outputs.append(r[h] @ (S[h] + u[h][:, None] * write))
        rows.append(w[h][:, None] * S[h] + write)
    y = group_norm(xp, t["out_norm"], outputs)
    x = x + (y * silu(xp, mixed["g"] @ t["g"]["kernel"])) @ t["out"]["kernel"]
    c = p["channel"]
    m = layer_norm(xp, p["norm_channel"], x, eps)
    mixed = {name: m + (channel[0] - m) * mu for name, mu in c["mix"].items()}
    hidden = xp.maximum(mixed["k"] @ c["k"]["kernel"], 0) ** 2
    x = x + sigmoid(xp, mixed["r"] @ c["r"]["kernel"]) * (hidden @ c["out"]["kernel"])
    return (xp.stack(rows), n[None], m[None]), x


def rwkv7(
    xp: Any, cfg: ModelConfig, p: Any, state: Any, x: Any, v_first: Any
) -> tuple[Any, Any, Any]:
    """As the authors write it: ``S [value, key]``, turned over for the state that is kept."""
    S, time, channel = state
    t, eps, heads = p["time"], cfg.layer_norm_eps, cfg.n_head
    n = layer_norm(xp, p["norm_time"], x, eps)
    mixed = {name: n + (time[0] - n) * mu for name, mu in t["mix"].items()}
    r, k, v = (mixed[name] @ t[name]["kernel"] for name in "rkv")

    def low_rank(name: str, source: str, function: Any) -> Any:
        up = t[name]["up"]
        inner = function(mixed[source] @ t[name]["down"]["kernel"])
        return inner @ up["kernel"] + up.get("bias", 0.0)

    w = -softplus(xp, -low_rank("decay", "w", xp.tanh)) - 0.5
    a = sigmoid(xp, low_rank("rate", "a", lambda y: y))
    g = low_rank("gate", "g", lambda y: sigmoid(xp, y))
    if v_first is None:
        v_first = v
    else:
        v = v + (v_first - v) * sigmoid(xp, low_rank("value", "v", lambda y: y))
    kk = (k * t["removal"]).reshape(heads, -1)
    k = (k * (1 + (a - 1) * t["rate_of_key"])).reshape(heads, -1)
    r, vh, a = (y.reshape(heads, -1) for y in (r, v, a))
    keep = xp.exp(-xp.exp(w)).reshape(heads, -1)
    rows, outputs, bonus = [], [], []
    for h in range(heads):
        kappa = kk[h] / xp.sqrt(kk[h] @ kk[h])
        removal = xp.outer(kappa, kappa * a[h])
        transition = xp.diag(keep[h]) - removal
        new = S[h].T @ transition + xp.outer(vh[h], k[h])
        rows.append(new.T)
        outputs.append(new @ r[h])
        bonus.append(xp.sum(r[h] * k[h] * t["bonus"].reshape(heads, -1)[h]) * vh[h])
    y = group_norm(xp, t["out_norm"], outputs) + xp.concatenate(bonus)
    x = x + (y * g) @ t["out"]["kernel"]
    m = layer_norm(xp, p["norm_channel"], x, eps)
    mixed_k = m + (channel[0] - m) * p["channel"]["mix"]["k"]
    hidden = xp.maximum(mixed_k @ p["channel"]["k"]["kernel"], 0) ** 2
    return (xp.stack(rows), n[None], m[None]), x + hidden @ p["channel"]["out"]["kernel"], v_first


MIXERS = {
    "mamba": mamba,
    "mamba2": mamba2,
    "delta_net": delta_net,
    "gated_delta_net": delta_net,
}


def read_token(xp: Any, cfg: ModelConfig, params: Any, state: Any, token: Any) -> tuple[Any, Any]:
    """One token of one text: the state ``[l, ...]`` (a tuple of leaves) and the logits ``[v]``."""
    x, eps = params["embed"]["wte"][token], cfg.layer_norm_eps
    is_rwkv = cfg.family in ("rwkv5", "rwkv7")
    if is_rwkv:
        x = layer_norm(xp, params["embed"]["norm"], x, eps)
    v_first, states = None, []
    for l in range(cfg.n_layer):
        p = _of_layer(params["layers"], l)
        own = tuple(leaf[l] for leaf in state)
        if cfg.family == "rwkv5":
            own, x = rwkv5(xp, cfg, p, own, x)
        elif cfg.family == "rwkv7":
            own, x, v_first = rwkv7(xp, cfg, p, own, x, v_first)
        else:
            mix = MIXERS[cfg.family]
            own, y = mix(xp, cfg, p["mixer"], own, rms(xp, p["norm"]["scale"], x, eps))
            x = x + y
            if cfg.mixer_mlp:
                n, mlp = rms(xp, p["mlp"]["norm"]["scale"], x, eps), p["mlp"]
                hidden = silu(xp, n @ mlp["gate"]["kernel"]) * (n @ mlp["up"]["kernel"])
                x = x + hidden @ mlp["down"]["kernel"]
        states.append(own)
    state = tuple(xp.stack(leaves) for leaves in zip(*states, strict=True))
    if is_rwkv:
        return state, layer_norm(xp, params["head"]["norm"], x, eps) @ params["head"]["embed_out"]
    return state, rms(xp, params["head"]["norm"]["scale"], x, eps) @ params["embed"]["wte"].T


def read_texts(cfg: ModelConfig, params: Any, state: Any, texts: list[Any]) -> tuple[Any, Any]:
    """Texts of ``b`` lengths, each from its row of ``state``: states ``[l, b, ...]``, logits."""
    params = _tree(params)
    rows, logits = [], []
    for b, text in enumerate(texts):
        own, out = tuple(np.asarray(leaf)[:, b] for leaf in state), []
        for token in text:
            own, of_token = read_token(np, cfg, params, own, int(token))
            out.append(of_token)
        rows.append(own)
        logits.append(np.asarray(out))
    return tuple(np.stack(leaves, axis=1) for leaves in zip(*rows, strict=True)), logits


def _of_layer(tree: Any, index: int) -> Any:
    if isinstance(tree, dict):
        return {name: _of_layer(leaf, index) for name, leaf in tree.items()}
    return tree[index]


def _tree(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {name: _tree(leaf) for name, leaf in tree.items()}
    return np.asarray(tree)
