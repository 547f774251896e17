"""Contexts are read in blocks as they would be read whole, and a stopped reading goes on."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from armt_jax import ConfigError
from armt_jax.evaluation.long_contexts import read_contexts
from armt_jax.recurrence import run_segments
from armt_jax.streaming import StreamReader
from tests.small_models import assert_close, lively_params, segments_of, small_model

MODEL = small_model()
PARAMS = lively_params(MODEL)
SIZE = 4


class Text:
    """A context that counts how much of it is asked for at once."""

    def __init__(self, num_tokens: int, seed: int) -> None:
        self.num_tokens, self.most = num_tokens, 0
        rng = np.random.default_rng(seed)
        self.tokens = rng.integers(0, MODEL.config.vocab_size, num_tokens)

    def read(self, start: int, stop: int) -> np.ndarray:
        self.most = max(self.most, stop - start)
        return self.tokens[start:stop]


class _StoppedError(Exception):
    pass


def reader(block_segments: int = 2) -> StreamReader:
    return StreamReader(MODEL, PARAMS, segment_size=SIZE, block_segments=block_segments)


def read_whole(texts: list[Text]):
    """Padding in front of the first segment, as training has it."""
    tokens = np.stack([text.tokens for text in texts])
    padding = -tokens.shape[1] % SIZE
    tokens = np.pad(tokens, ((0, 0), (padding, 0)))
    mask = np.arange(tokens.shape[1]) >= padding
    cut = lambda x: jnp.swapaxes(jnp.asarray(x).reshape(len(texts), -1, SIZE), 0, 1)  # noqa: E731
    segments = segments_of(cut(tokens), cut(np.broadcast_to(mask, tokens.shape)))
    state = MODEL.init_state(len(texts))
    return run_segments(MODEL, PARAMS, state, segments, need_hidden=False)[0]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("num_tokens", [3, 8, 37])
@pytest.mark.parametrize("block_segments", [1, 3])
def test_blocks_are_read_as_the_whole(num_tokens: int, block_segments: int) -> None:
    texts = [Text(num_tokens, seed) for seed in (0, 1)]
    found = read_contexts(reader(block_segments), texts)
    assert_close(found, read_whole(texts), 1e-10)
    assert texts[0].most <= block_segments * SIZE


def test_a_stopped_reading_goes_on_from_its_file(tmp_path: Path) -> None:
    text, file = Text(61, 0), tmp_path / "reading.safetensors"
    expected = read_contexts(reader(), [text])
    heard: list[int] = []

    def stop(tokens: int) -> None:
        heard.append(tokens)
        if tokens >= 40:
            raise _StoppedError

    options = {"snapshot": file, "snapshot_tokens": 16}
    with pytest.raises(_StoppedError):
        read_contexts(reader(), [text], on_block=stop, **options)
    assert file.is_file()
    again: list[int] = []
    found = read_contexts(reader(), [text], on_block=again.append, **options)
    assert again == [45, 53, 61]  # from the file of 37 tokens, not anew
    assert heard == [5, 13, 21, 29, 37, 45]
    assert again[-1] == 61
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert not file.exists()


def test_what_cannot_be_read_together_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"contexts of \[3, 4\] tokens"):
        read_contexts(reader(), [Text(3, 0), Text(4, 0)])
    with pytest.raises(ConfigError, match=r"contexts of \[\] tokens"):
        read_contexts(reader(), [])
    file = tmp_path / "reading.safetensors"

    def stop(tokens: int) -> None:
        if tokens > 16:
            raise _StoppedError

    with pytest.raises(_StoppedError):
        read_contexts(reader(), [Text(61, 0)], on_block=stop, snapshot=file, snapshot_tokens=8)
    with pytest.raises(ConfigError, match="is a reading of 1 texts, not of 2"):
        read_contexts(reader(), [Text(61, 0), Text(61, 1)], snapshot=file)
