"""Reading in blocks: whole = streamed = resumed at any cut, one compilation, flat state."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import armt_jax
from armt_jax import ConfigError
from armt_jax.models import ARMT
from armt_jax.streaming import StreamReader, StreamState, load_stream, save_stream
from tests.small_models import lively_params, small_model

BATCH, SEGMENT = 2, 3
LENGTH = 8 * SEGMENT + 2  # the last segment is short


def read_whole(model: ARMT, params, tokens, mask=None):
    out = armt_jax.forward(
        model, params, jnp.asarray(tokens), segment_size=SEGMENT, attention_mask=mask
    )
    return out.state


def text(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 23, (BATCH, LENGTH))


def assert_same(a, b) -> None:
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-12 * np.abs(y).max())


def feed_in(reader: StreamReader, state: StreamState, tokens, cuts, mask=None) -> StreamState:
    edges = (0, *cuts, tokens.shape[1])
    for start, stop in itertools.pairwise(edges):
        part = None if mask is None else mask[:, start:stop]
        state = reader.feed(state, tokens[:, start:stop], part)
    return state


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("backbone", ["gpt2", "gpt_neox"])
def test_any_cut_gives_the_memory_of_the_whole_text_from_one_compilation(backbone: str) -> None:
    model = small_model(backbone=backbone)
    params = lively_params(model)
    tokens = text()
    expected = read_whole(model, params, tokens)
    reader = StreamReader(model, params, segment_size=SEGMENT, block_segments=3)
    for cuts in ((), (1,), (SEGMENT,), (2, 2, 13), tuple(range(1, LENGTH)), (LENGTH - 1,)):
        state = feed_in(reader, reader.start(BATCH), tokens, cuts)
        assert state.tokens_read == LENGTH
        assert_same(reader.finish(state), expected)
    for program in (reader._read, reader._last):
        assert program._cache_size() == 1  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_layers_too_many_to_unroll_and_wrapped_positions() -> None:
    model = small_model(n_layer=7, wrap_pos=True)
    params = jax.tree.map(lambda x: 0.3 * x, lively_params(model))
    tokens = text()
    reader = StreamReader(model, params, segment_size=SEGMENT)
    state = feed_in(reader, reader.start(BATCH), tokens, (7,))
    assert_same(reader.finish(state), read_whole(model, params, tokens))


@pytest.mark.usefixtures("x64")
def test_padding_inside_and_whole_segments_of_it() -> None:
    model = small_model()
    params = lively_params(model)
    tokens, mask = text(), np.ones((BATCH, LENGTH), bool)
    mask[0, : 2 * SEGMENT + 1] = False
    mask[1, -4:] = False
    reader = StreamReader(model, params, segment_size=SEGMENT, block_segments=4)
    state = feed_in(reader, reader.start(BATCH), tokens, (5, 11), mask)
    assert_same(reader.finish(state), read_whole(model, params, tokens, jnp.asarray(mask)))


@pytest.mark.usefixtures("x64")
def test_a_finished_text_can_be_fed_on() -> None:
    model = small_model()
    params = lively_params(model)
    tokens = text()
    reader = StreamReader(model, params, segment_size=SEGMENT)
    state = reader.feed(reader.start(BATCH), tokens[:, :10])
    assert_same(reader.finish(state), read_whole(model, params, tokens[:, :10]))
    # At the border of a segment too, where there is nothing left to read.
    state = reader.feed(state, tokens[:, 10:12])
    finished = reader.finish(state)
    state = reader.feed_all(state, (tokens[:, i : i + 4] for i in range(12, LENGTH, 4)))
    assert_same(finished, read_whole(model, params, tokens[:, :12]))
    assert_same(reader.finish(state), read_whole(model, params, tokens))


def test_blocks_are_made_one_at_a_time() -> None:
    model = small_model()
    reader = StreamReader(model, lively_params(model), segment_size=SEGMENT)
    events = []

    class Watched(StreamReader):
        def feed(self, state, tokens, mask=None):
            events.append("fed")
            return super().feed(state, tokens, mask)

    reader.__class__ = Watched

    def blocks():
        for start in range(0, LENGTH, 7):
            events.append("made")
            yield text()[:, start : start + 7]

    reader.feed_all(reader.start(BATCH), blocks())
    assert events == ["made", "fed"] * 4


@pytest.mark.usefixtures("x64")
def test_a_saved_state_goes_on_where_it_stopped(tmp_path: Path) -> None:
    model = small_model()
    params = lively_params(model)
    tokens = text()
    reader = StreamReader(model, params, segment_size=SEGMENT)
    state = reader.feed(reader.start(BATCH), tokens[:, :11])
    save_stream(tmp_path / "half.safetensors", reader, state)
    assert os.listdir(tmp_path) == ["half.safetensors"]
    straight = reader.finish(reader.feed(state, tokens[:, 11:]))

    other = StreamReader(model, params, segment_size=SEGMENT)
    loaded = load_stream(tmp_path / "half.safetensors", other)
    assert loaded.tokens_read == 11
    resumed = other.finish(other.feed(loaded, tokens[:, 11:]))
    for a, b in zip(jax.tree.leaves(straight), jax.tree.leaves(resumed), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_file_of_another_model_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    model = small_model()
    params = lively_params(model)
    reader = StreamReader(model, params, segment_size=SEGMENT)
    path = tmp_path / "memory.safetensors"
    save_stream(path, reader, reader.feed(reader.start(BATCH), text()))

    with pytest.raises(ConfigError, match=r"belongs to another model or to other parameters"):
        load_stream(path, StreamReader(model, lively_params(model, 1), segment_size=SEGMENT))
    with pytest.raises(ConfigError, match=r"segment_size = 3, this reader has 4"):
        load_stream(path, StreamReader(model, params, segment_size=4))
    with pytest.raises(ConfigError, match=r"there is no such file"):
        load_stream(tmp_path / "none", reader)

    content = path.read_bytes()
    for damage in (content[: len(content) // 2], b"no such thing", b""):
        path.write_bytes(damage)
        with pytest.raises(ConfigError, match=r"memory.safetensors': is damaged or no stream file"):
            load_stream(path, reader)
    path.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    with pytest.raises(ConfigError, match=r"is damaged, its arrays are not what was saved"):
        load_stream(path, reader)


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    model = small_model()
    reader = StreamReader(model, lively_params(model), segment_size=SEGMENT)
    with pytest.raises(ConfigError, match=r"must be in a folder that can be written"):
        save_stream(tmp_path / "missing" / "x", reader, reader.start(1))
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match=r"must be in a folder that can be written"):
        save_stream(tmp_path / "folder", reader, reader.start(1))
    assert os.listdir(tmp_path) == ["folder"]


@pytest.mark.parametrize(
    ("tokens", "mask", "message"),
    [
        (np.full((2, 3), 23), None, r"token id 23: must be in \[0, 23\)"),
        (np.zeros((3, 4), int), None, r"tokens of 3 texts: must be of 2, the state's"),
        (np.zeros(4, int), None, r"tokens of shape \(4,\): must be \[batch, length\]"),
        (np.zeros((2, 4)), None, r"tokens of dtype float64: must be integers"),
        (np.zeros((2, 4), int), np.ones((2, 3), bool), r"attention_mask of shape \(2, 3\)"),
    ],
)
def test_impossible_tokens_are_refused(tokens, mask, message: str) -> None:
    model = small_model()
    reader = StreamReader(model, lively_params(model), segment_size=SEGMENT)
    with pytest.raises(ConfigError, match=message):
        reader.feed(reader.start(BATCH), tokens, mask)


def test_a_state_is_fed_once() -> None:
    model = small_model()
    reader = StreamReader(model, lively_params(model), segment_size=SEGMENT)
    state = reader.start(BATCH)
    reader.feed(state, text())
    for use in (lambda: reader.feed(state, text()), lambda: reader.finish(state)):
        with pytest.raises(ConfigError, match="state at 0 tokens: was fed already"):
            use()


def test_impossible_sizes_are_refused() -> None:
    model = small_model()
    params = lively_params(model)
    with pytest.raises(ConfigError, match="segment_size = 0: must be at least 1"):
        StreamReader(model, params, segment_size=0)
    with pytest.raises(ConfigError, match="block_segments = 0: must be at least 1"):
        StreamReader(model, params, segment_size=2, block_segments=0)
    with pytest.raises(ConfigError, match="segment length = 15: must be at most 14"):
        StreamReader(model, params, segment_size=15)
    with pytest.raises(ConfigError, match="batch_size = 0: must be at least 1"):
        StreamReader(model, params, segment_size=2).start(0)
