"""Segments that repeat the end of the one before: every reader cuts a text as a loop does."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from armt_jax import ConfigError
from armt_jax.evaluation.long_contexts import read_contexts
from armt_jax.inspection.report import first_segments
from armt_jax.inspection.strength import fact_strength
from armt_jax.reading import BabilongForm, Memory, ReadingModel, TokenDocument
from armt_jax.recurrence.segmenting import (
    check_overlap,
    count_overlapping,
    front_padding,
    overlapping,
)
from armt_jax.streaming import StreamReader, load_stream, save_stream
from armt_jax.tasks.babilong.sample import sample_rng
from tests.long_contexts_test import Text
from tests.reading.cases import StoppedError, bits, stop_at, tokenizer
from tests.small_models import assert_close, lively_params, segments_of, small_model
from tests.tasks.babilong.mining_test import maker

SIZE, OVERLAP = 7, 3
MODEL = small_model(vocab_size=262, n_positions=64)
PARAMS = lively_params(MODEL)


def cut(tokens: np.ndarray, size: int = SIZE, overlap: int = OVERLAP) -> list[np.ndarray]:
    """Whole segments of ``[n]``."""
    starts = range(0, tokens.size - size + 1, size - overlap)
    return [tokens[start : start + size] for start in starts]


def read_loop(rows: list[tuple[np.ndarray, np.ndarray]]) -> Any:
    """The state of one text after segments of ids and mask, one after the other."""
    write = jax.jit(MODEL.write)
    state = MODEL.init_state(1)
    for tokens, mask in rows:
        segment = segments_of(jnp.asarray(tokens[None], jnp.int32), jnp.asarray(mask[None]))
        state = write(PARAMS, state, segment)
    return state


def padded(tokens: np.ndarray, padding: int) -> list[tuple[np.ndarray, np.ndarray]]:
    ids = np.pad(tokens, (padding, 0))
    return list(zip(cut(ids), cut(np.arange(ids.size) >= padding), strict=True))


def reader(**changes: Any) -> StreamReader:
    sizes = {"segment_size": SIZE, "segment_overlap": OVERLAP, "block_segments": 2, **changes}
    return StreamReader(MODEL, PARAMS, **sizes)


def text(length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 262, length).astype(np.int32)


def test_segments_are_those_of_a_loop_and_hold_every_short_span_whole() -> None:
    for size, overlap, length in itertools.product((1, 4, 7), (0, 1, 3, 5), range(30)):
        if overlap >= size:
            continue
        tokens = np.arange(length)
        expected = cut(tokens, size, overlap)
        assert count_overlapping(length, size, overlap) == len(expected)
        both = overlapping(np.stack([tokens, -tokens]), size, overlap)
        assert both.shape == (2, len(expected), size)
        np.testing.assert_array_equal(both[0], np.reshape(expected, (-1, size)))
        np.testing.assert_array_equal(both[1], -both[0])
        padding = front_padding(length, size, overlap)
        whole = cut(np.pad(tokens + 1, (padding, 0)), size, overlap)
        for start in range(length - overlap):
            span = set(range(start + 1, start + overlap + 2))
            assert any(span <= set(row.tolist()) for row in whole)


def test_front_padding_is_the_least_that_leaves_no_token_over() -> None:
    for size, overlap, held, length in itertools.product((4, 7), (0, 3), range(9), range(1, 30)):
        stride = size - overlap
        right = next(
            p
            for p in range(3 * size)
            if held + p + length >= size and (held + p + length - overlap) % stride == 0
        )
        assert front_padding(length, size, overlap, held) == right
    assert front_padding(0, 7, 3, 3) == 0
    with pytest.raises(ConfigError, match="segment_overlap = 4: must be from 0 to 3"):
        check_overlap(4, 4)
    with pytest.raises(ConfigError, match="segment_overlap = -1"):
        reader(segment_overlap=-1)


@pytest.mark.usefixtures("x64")
def test_any_cut_is_read_as_by_a_loop() -> None:
    stream = reader()
    for length in (2, 3, 4, SIZE, SIZE + 1, 30, 31):
        tokens = text(length)
        rows = padded(tokens, 0)
        rest = tokens[len(rows) * (SIZE - OVERLAP) :]
        if not rows or rest.size > OVERLAP:  # the last, shorter segment
            short = np.arange(SIZE) < rest.size
            last = segments_of(jnp.asarray(np.pad(rest, (0, SIZE - rest.size))[None]), short[None])
            last = last._replace(length=jnp.asarray([rest.size], jnp.int32))
            expected = MODEL.write(PARAMS, read_loop(rows), last)
        else:
            expected = read_loop(rows)
        for edges in ((0, length), (0, 1, length), tuple(range(length + 1))):
            state = stream.start(1)
            for start, stop in itertools.pairwise(edges):
                state = stream.feed(state, tokens[None, start:stop])
            assert_close(stream.finish(state), expected, 1e-10)


def test_a_saved_state_goes_on_and_knows_its_overlap(tmp_path: Path) -> None:
    tokens, file = text(41)[None], tmp_path / "half"
    stream = reader()
    straight = stream.finish(stream.feed(stream.start(1), tokens))
    for at in (2, 10, 23):
        save_stream(file, stream, stream.feed(stream.start(1), tokens[:, :at]))
        resumed = stream.finish(stream.feed(load_stream(file, reader()), tokens[:, at:]))
        assert bits(resumed) == bits(straight)
    with pytest.raises(ConfigError, match="read with segment_overlap = 3, this reader has 2"):
        load_stream(file, reader(segment_overlap=2))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("length", [2, 3, 40, 61])
def test_contexts_have_padding_in_front_and_are_read_in_whole_blocks(length: int) -> None:
    contexts, heard = [Text(length, seed) for seed in (0, 1)], []
    found = read_contexts(reader(), contexts, on_block=heard.append)
    padding = front_padding(length, SIZE, OVERLAP)
    for index, context in enumerate(contexts):
        one = jax.tree.map(lambda leaf, i=index: leaf[:, i : i + 1], found)
        assert_close(one, read_loop(padded(context.tokens, padding)), 1e-10)
    ends = np.array(heard[:-1]) + padding - OVERLAP
    assert all(ends % (2 * (SIZE - OVERLAP)) == 0), "not blocks of two segments"
    assert all(np.diff(ends) == 2 * (SIZE - OVERLAP))
    assert len(heard) <= 2 + length // (2 * (SIZE - OVERLAP))


def reading_model(overlap: int = OVERLAP) -> ReadingModel:
    form = BabilongForm(tokenizer())
    model = ReadingModel(MODEL, PARAMS, form, SIZE, "overlapping", overlap)
    model.__dict__["reader"] = reader(segment_overlap=overlap)
    return model


@pytest.mark.usefixtures("x64")
def test_a_memory_reads_one_text_behind_another(tmp_path: Path) -> None:
    model, file = reading_model(), tmp_path / "memory"
    first, second = text(33), text(18, seed=1)
    memory = Memory(model).read(first)
    rows = padded(first, front_padding(33, SIZE, OVERLAP))
    assert_close(memory.state(), read_loop(rows), 1e-10)
    memory.read(second)
    # The second text begins in a segment of its own, whose first tokens are the first one's last.
    ids = np.concatenate([first[-OVERLAP:], np.zeros(2, np.int32), second])
    assert ids.size == SIZE + 4 * (SIZE - OVERLAP)
    mask = np.ones(ids.size, bool)
    mask[OVERLAP : OVERLAP + 2] = False
    rows += list(zip(cut(ids), cut(mask), strict=True))
    assert_close(memory.state(), read_loop(rows), 1e-10)
    half = Memory(model).read(first)
    with pytest.raises(StoppedError):
        half.read(second, snapshot=file, on_progress=stop_at(9))
    resumed = Memory.load(file, model).read(second)
    assert bits(resumed.state()) == bits(memory.state())
    with pytest.raises(ConfigError, match="read in other segments: segment_overlap 3 there, 2"):
        Memory.load(file, reading_model(2))


@pytest.mark.usefixtures("x64")
def test_a_stream_is_padded_at_its_last_segment_only() -> None:
    tokens = text(24)
    memory = Memory(reading_model()).read(iter([tokens[:5], tokens[5:]]))
    rows = padded(tokens, 0)
    assert len(rows) == 5
    last = np.pad(tokens[20:], (SIZE - 4, 0))  # the overlap and one token
    rows.append((last, np.arange(SIZE) >= SIZE - 4))
    assert_close(memory.state(), read_loop(rows), 1e-10)
    exact = Memory(reading_model()).read(iter([tokens[:23]]))
    assert_close(exact.state(), read_loop(padded(tokens[:23], 0)), 1e-10)


def test_what_is_inspected_is_cut_as_it_is_read() -> None:
    tokens = text(26)
    rows = padded(tokens, front_padding(26, SIZE, OVERLAP))
    for count in (2, 100):
        ids, mask = first_segments(reading_model(), TokenDocument(tokens), count)
        assert len(ids) == min(count, len(rows))
        for row, (expected, real) in zip(zip(ids, mask, strict=True), rows, strict=False):
            np.testing.assert_array_equal(row[0], expected)
            np.testing.assert_array_equal(row[1], real)


def test_distances_are_segments_as_the_reader_cuts_them() -> None:
    fact, noise = segments_of(jnp.asarray(text(SIZE)[None])), text(35, seed=2)
    # Four segments are 19 tokens. 28, four times a segment's, would be six.
    state = MODEL.init_state(1)
    found = fact_strength(reader(), PARAMS, state, fact, noise, [0, 1, 4])
    plain = reader(segment_overlap=0)
    laid_out = np.concatenate(cut(noise))
    expected = fact_strength(plain, PARAMS, state, fact, laid_out, [0, 1, 4])
    np.testing.assert_allclose(found.strength, expected.strength, rtol=1e-6)
    assert len(set(np.round(found.strength[:, 0], 6))) == 3
    with pytest.raises(ConfigError, match="from 0 to 8, the segments of noise"):
        fact_strength(reader(), PARAMS, state, fact, noise, [0, 9])


def test_training_contexts_are_cut_as_they_will_be_read() -> None:
    make = maker(segment_size=24, overlap=9, noise_before=2, noise_behind=3)
    decode, counts, behind = make.books.tokenizer.decode, set(), 0
    for index in range(40):
        example = make.forked(sample_rng(3, index))
        full = example.context_mask[:, 0]
        np.testing.assert_array_equal(example.context_mask, np.repeat(full[:, None], 24, axis=1))
        told = example.context[2:-3][full[2:-3]]
        counts.add(len(told))
        tokens = np.concatenate([told[0], *(row[9:] for row in told[1:])])
        np.testing.assert_array_equal(overlapping(tokens, 24, 9), told)
        assert front_padding(tokens.size, 24, 9) == 0
        assert decode(tokens.tolist()).count(" the ") >= 1
        noise = example.context[-3:][full[-3:]]
        for one, following in itertools.pairwise(noise):
            behind += 1
            np.testing.assert_array_equal(one[-9:], following[:9])
    assert len(counts) > 4
    assert max(counts) == 12
    assert behind > 10


def test_the_overlap_is_kept_in_the_file(tmp_path: Path) -> None:
    """What a saved stream says of itself."""
    stream, file = reader(), tmp_path / "s"
    save_stream(file, stream, stream.start(1))
    header = file.read_bytes()
    size = int.from_bytes(header[:8], "little")
    about = json.loads(header[8 : 8 + size])["__metadata__"]
    assert (about["segment_size"], about["segment_overlap"]) == ("7", "3")
