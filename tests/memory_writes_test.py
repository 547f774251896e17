"""How alike keys are from segment to segment: against loops, and where the answer is known."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from armt_jax.evaluation.memory_writes import memory_writes
from armt_jax.memory import associative
from armt_jax.models.protocol import Segment
from tests.small_models import lively_params, quick_jit, random_tokens, small_model

MODEL = small_model()
measure = quick_jit(lambda params, tokens, mask: memory_writes(MODEL, params, tokens, mask))


def keys_and_gates(params: Any, tokens: Any, mask: Any) -> tuple[np.ndarray, np.ndarray]:
    """``[s, l, m, k]`` and ``[s, l, m]`` of one text ``[s, t]``, layer by layer."""
    state = MODEL.init_state(1)
    memories = [associative.MemoryState(*(leaf[i] for leaf in state[:3])) for i in range(2)]
    keys, gates = [], []
    for piece, there in zip(tokens, mask, strict=True):
        x, context = MODEL.embed(params, Segment(piece[None], there[None]))
        for i in range(2):
            layer = jax.tree.map(lambda leaf, i=i: leaf[i], params["layers"])
            memories[i], x, _ = MODEL.layer(layer, memories[i], x, context)
            k, _, beta = MODEL.key_value_gate(layer, x[:, -2:])
            keys.append(np.asarray(associative.features(MODEL.rule, k, 3))[0])
            gates.append(np.asarray(beta)[0])
    shape = (len(tokens), 2)
    return np.stack(keys).reshape(*shape, 2, -1), np.stack(gates).reshape(*shape, 2)


@pytest.mark.usefixtures("x64")
def test_means_are_those_of_loops_over_real_segments() -> None:
    params, tokens = lively_params(MODEL), random_tokens(MODEL, 2, 3, 4)
    mask = np.ones((2, 3, 4), bool)
    mask[1, 2] = False  # the second text has two segments
    mask[0, 1, 2:] = False
    found = measure(params, tokens, jnp.asarray(mask))
    again, between, gates = [[], []], [[], []], [[], []]
    for row, real in ((0, 3), (1, 2)):
        keys, beta = keys_and_gates(params, tokens[row][:real], jnp.asarray(mask[row][:real]))
        unit = keys / np.linalg.norm(keys, axis=-1, keepdims=True)
        for layer in range(2):
            for s in range(real):
                between[layer].append(unit[s, layer, 0] @ unit[s, layer, 1])
                gates[layer].extend(beta[s, layer])
                if s:
                    again[layer].extend((unit[s, layer] * unit[s - 1, layer]).sum(-1))
    for name, values in (("same_token", again), ("same_segment", between), ("gate", gates)):
        expected = [np.mean(layer) for layer in values]
        np.testing.assert_allclose(getattr(found, name), expected, rtol=1e-9, err_msg=name)


@pytest.mark.slow
def test_segments_that_repeat_write_the_same_keys_where_nothing_is_recalled() -> None:
    params = MODEL.init(jax.random.key(0))  # W_V = 0: memories stay empty
    tokens = jnp.tile(random_tokens(MODEL, 2, 1, 4), (1, 3, 1))
    found = measure(params, tokens, jnp.ones(tokens.shape, bool))
    np.testing.assert_allclose(found.same_token, 1.0, rtol=1e-5)
    assert (np.asarray(found.same_segment) < 1.0).all()
