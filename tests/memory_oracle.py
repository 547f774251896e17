"""The associative memory as a slow NumPy loop over tokens: the equations as printed, one at a time.

It works on complex numbers, so that a derivative is the imaginary part at a step of 1e-30
(complex-step differentiation: no subtraction, exact to rounding). ``gammas`` can be given, to hold
them still: they carry no gradient.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from armt_jax.memory import MemoryRule

STEP = 1e-30


def relu(x):
    return np.where(x.real > 0, x, 0)


def phi(rule: MemoryRule, x, nu: int):
    """Features of one vector ``x [d]``."""
    if rule.feature_map == "dpfp":
        r = relu(np.concatenate([x, -x]))
        out = np.concatenate([r * np.roll(r, j) for j in range(1, nu + 1)])
    elif rule.feature_map == "elu_plus_one":
        out = np.where(x.real > 0, x, np.expm1(np.where(x.real > 0, 0, x))) + 1
    elif rule.feature_map == "relu":
        out = relu(x)
    else:
        out = relu(np.concatenate([x, -x]))
    if rule.normalise_features:
        out = out / np.sqrt(np.sum(out * out) + 1e-12)
    return out


def gate(rule: MemoryRule, a):
    beta = 1 / (1 + np.exp(-a))
    if rule.gate == "hard":
        stretched = 1.2 * beta - 0.1
        return np.where(stretched.real < 0, 0, np.where(stretched.real > 1, 1, stretched))
    return beta


def read_text(rule: MemoryRule, nu: int, x, projections, gammas=None) -> tuple[Any, ...]:
    """Read segments ``x [s, t, d]`` of one text; the last M rows of a segment are memory tokens.

    Args:
      projections: ``W_q, W_k [d, d_mem]``, ``W_v [d, d]``, ``w_beta [d]``, ``b_beta``, ``M``.
      gammas: list of the gammas in order, to use instead of computing them.

    Returns:
      recalled ``[s, t, d]``, ``A [k, d]``, ``z [k]``, and the gammas in order.
    """
    W_q, W_k, W_v, w_beta, b_beta, M = projections
    k_dim = phi(rule, np.zeros(W_k.shape[1]), nu).shape[0]
    A = np.zeros((k_dim, W_v.shape[1]), complex)
    z = np.zeros(k_dim, complex)
    recalled = np.zeros(x.shape, complex)
    used: list[Any] = []
    empty = True
    for s in range(x.shape[0]):
        for t in range(x.shape[1]):
            q = phi(rule, x[s, t] @ W_q, nu)
            norm = 1.0 if rule.normaliser == "none" else z @ q + rule.eps
            recalled[s, t] = A.T @ q / norm
        A_before, z_before, empty_before = A.copy(), z.copy(), empty
        for i in range(x.shape[1] - M, x.shape[1]):
            m = x[s, i]
            k, v = phi(rule, m @ W_k, nu), m @ W_v
            beta = gate(rule, m @ w_beta + b_beta)
            if rule.order == "parallel":
                A_seen, z_seen, new = A_before, z_before, empty_before
            else:
                A_seen, z_seen, new = A, z, empty
            weight = 1.0 if rule.normaliser == "none" else z_seen @ k + rule.eps
            v_bar = A_seen.T @ k / weight if rule.erase else 0 * v
            A = A + beta * np.outer(k, v - v_bar)
            if rule.normaliser != "none":
                gamma = 1.0 - (weight / (k @ k + rule.eps)).real
                gamma = 1.0 if new or rule.normaliser == "sum" else min(max(gamma, 0.0), 1.0)
                if gammas is not None:
                    gamma = gammas[len(used)]
                used.append(gamma)
                z = z + gamma * k
            empty = False
    return recalled, A, z, used
