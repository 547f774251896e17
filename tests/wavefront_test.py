"""A segment's tokens shared out over devices: the same memory as on one, on every device."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from armt_jax import ConfigError
from armt_jax.memory.rules import PRESETS
from armt_jax.models import ARMT
from armt_jax.models.attention import KeyValues, attention, segment_attention
from armt_jax.recurrence.wavefront import share_edges, slot_layers
from armt_jax.sharding import context_mesh, data_mesh
from armt_jax.streaming import StreamReader, load_stream, save_stream
from tests.small_models import lively_params, small_model

BATCH = 2


def calm_params(model: ARMT):
    return jax.tree.map(lambda leaf: 0.5 * leaf, lively_params(model))


def text(length: int, batch: int = BATCH) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 23, (batch, length))


def assert_same(found, expected) -> None:
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-12 * np.abs(y).max(initial=0.0))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("backbone", "rule", "layers", "devices", "size"),
    [
        ("gpt_neox", "armt", 4, 2, 6),  # rotary: a share knows where it begins
        # L = 2 K - 1: the ring has no slot to spare.
        pytest.param("gpt2", "armt", 3, 2, 5, marks=pytest.mark.slow),
        pytest.param("gpt2", "delta", 7, 4, 9, marks=pytest.mark.slow),  # parameters not unrolled
        # Two layers in a slot, and shares between the first and the last.
        pytest.param("gpt2", "armt", 6, 3, 7, marks=pytest.mark.slow),
        # A token each.
        pytest.param("gpt2", "armt_sequential", 5, 3, 3, marks=pytest.mark.slow),
        pytest.param(
            "gpt_neox", "linear", 4, 2, 300, marks=pytest.mark.slow
        ),  # attention in blocks
    ],
)
def test_memory_of_one_device_after_blocks_of_any_length(
    backbone: str, rule: str, layers: int, devices: int, size: int
) -> None:
    """Uneven cuts: blocks that are not full, and a short last segment."""
    model = small_model(backbone=backbone, rule=rule, n_layer=layers, n_positions=512)
    params, tokens = calm_params(model), text(7 * size + 1)
    one = StreamReader(model, params, segment_size=size)
    many = StreamReader(
        model, params, segment_size=size, block_segments=3, mesh=context_mesh(devices)
    )
    expected, state = one.feed(one.start(BATCH), tokens), many.start(BATCH)
    cuts = (0, 1, 2 * size + 1, 6 * size, 7 * size + 1)
    for start, stop in itertools.pairwise(cuts):
        state = many.feed(state, tokens[:, start:stop])
    assert_same(state.memory, expected.memory)
    assert_same(many.finish(state), one.finish(expected))
    for leaf in jax.tree.leaves(state.memory):
        copies = [np.asarray(shard.data) for shard in leaf.addressable_shards]
        assert len(copies) == devices
        assert all(np.array_equal(copy, copies[0]) for copy in copies)
    assert many._read._cache_size() == 1  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.usefixtures("x64")
def test_padding_and_a_saved_state(tmp_path) -> None:
    """A state saved by two devices is read on by one, and the other way round."""
    model, size = small_model(n_layer=3), 4
    params, tokens = calm_params(model), text(6 * size)
    mask = np.ones(tokens.shape, bool)
    mask[0, : size + 3] = False  # a segment without a token, and the beginning of one
    mask[1, 2 * size : 3 * size] = False
    one = StreamReader(model, params, segment_size=size)
    two = StreamReader(model, params, segment_size=size, mesh=context_mesh(2))
    expected = one.feed(one.start(BATCH), tokens, mask).memory
    for first, second in ((one, two), (two, one)):
        state = first.feed(first.start(BATCH), tokens[:, :10], mask[:, :10])
        save_stream(tmp_path / "state.safetensors", first, state)
        state = load_stream(tmp_path / "state.safetensors", second)
        assert_same(second.feed(state, tokens[:, 10:], mask[:, 10:]).memory, expected)


def test_memory_stays_float32_under_bfloat16() -> None:
    model = small_model(n_layer=3, dtype="bfloat16")
    reader = StreamReader(model, calm_params(model), segment_size=4, mesh=context_mesh(2))
    memory = reader.feed(reader.start(1), text(16, 1)).memory
    assert {leaf.dtype.name for leaf in jax.tree.leaves(memory)} == {"float32"}


@pytest.mark.usefixtures("x64")
def test_attention_in_blocks_sees_the_past() -> None:
    rng = np.random.default_rng(1)
    q, k, v = jnp.asarray(rng.normal(size=(3, 1, 300, 2, 4)))
    past = KeyValues(*jnp.asarray(rng.normal(size=(2, 1, 7, 2, 4))))
    attend = np.concatenate(
        [rng.random((1, 300, 7)) < 0.7, np.tril(np.ones((1, 300, 300), bool))], axis=-1
    )
    found = segment_attention(q, k, v, jnp.asarray(attend), past, None)
    keys, values = (jnp.concatenate([a, b], axis=1) for a, b in ((past.k, k), (past.v, v)))
    q, keys, values = (jnp.swapaxes(x, 1, 2) for x in (q, keys, values))
    expected = attention(q, keys, values, jnp.asarray(attend)).swapaxes(1, 2)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_shares_cover_the_segment_and_weigh_the_same() -> None:
    config = small_model(n_layer=8, d_model=64, n_head=4, n_positions=2048).config
    for length, shares in ((512, 2), (1024, 4), (3, 3), (2, 1)):
        edges = share_edges(config, length, shares)
        assert (edges[0], edges[-1]) == (0, length + config.num_mem_tokens)
        assert edges[-2] < length
        assert all(start < stop for start, stop in itertools.pairwise(edges))
    edges = share_edges(config, 512, 2)
    # Later tokens look at more: the first share is the longer one.
    assert 1.1 < (edges[1] - edges[0]) / (edges[2] - edges[1]) < 2.5


def test_the_two_layers_on_top_share_a_slot_where_the_ring_has_time() -> None:
    assert slot_layers(4, 2) == ((0,), (1,), (2, 3))
    assert slot_layers(3, 2) == ((0,), (1,), (2,))
    assert slot_layers(7, 4) == tuple((layer,) for layer in range(7))
    assert slot_layers(8, 4) == (*((layer,) for layer in range(6)), (6, 7))


@pytest.mark.parametrize(
    ("mesh", "size", "message"),
    [
        (lambda: data_mesh(2), 4, "mesh axes = data: must be context, as `context_mesh` makes it"),
        (
            lambda: context_mesh(3),
            4,
            "mesh.context = 3: must be at most 2 for model.n_layer = 4 (what is written must get "
            "around the ring before its layer is read again)",
        ),
        (lambda: context_mesh(2), 1, "mesh.context = 2: must be at most the 1 tokens"),
        (lambda: context_mesh(9), 4, "mesh.context = 9: must be 1 to 8, the devices here"),
        (lambda: context_mesh(0), 4, "mesh.context = 0: must be 1 to 8, the devices here"),
    ],
)
def test_refused(mesh, size: int, message: str) -> None:
    model = small_model(n_layer=4)
    with pytest.raises(ConfigError) as error:
        StreamReader(model, lively_params(model), segment_size=size, mesh=mesh())
    assert str(error.value) == message


def test_every_rule_is_known_here() -> None:
    """Rules have states of different shapes; those above cover them."""
    shapes = {(rule.has_normaliser, rule.order) for rule in PRESETS.values()}
    covered = {"armt", "delta", "armt_sequential", "linear"}
    assert shapes == {(PRESETS[name].has_normaliser, PRESETS[name].order) for name in covered}
