"""A memory is the same however its text was read, and is kept, forked and asked as it is."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from armt_jax import ConfigError
from armt_jax.evaluation.answers import answer_prompts
from armt_jax.evaluation.long_contexts import read_contexts
from armt_jax.reading import Document, Memory, Progress, ReadingModel, TokenDocument
from armt_jax.reading import documents as documents_module
from armt_jax.reading import lazy as lazy_module
from tests.reading.cases import (
    QUESTIONS,
    SEGMENT,
    TEXT,
    StoppedError,
    bits,
    reading_model,
    stop_at,
)
from tests.small_models import assert_close, quick_jit, segments_of

BOOK = TEXT * 4


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A text comes in many."""
    for module in (documents_module, lazy_module):
        monkeypatch.setattr(module, "PIECE", 100)


@functools.cache
def writer(model: ReadingModel) -> Callable[[Any, Any], Any]:
    return quick_jit(functools.partial(model.model.write, model.params))


def slowly(model: ReadingModel, rows: list[tuple[np.ndarray, np.ndarray]]) -> Any:
    """The state after segments ``(tokens, mask)``, one after the other."""
    state = model.model.init_state(1)
    for tokens, mask in rows:
        state = writer(model)(state, segments_of(jnp.asarray(tokens[None]), mask[None]))
    return state


def padded(tokens: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Segments of tokens, padding in front of the first one."""
    padding = -tokens.size % SEGMENT
    ids = np.pad(tokens, (padding, 0)).reshape(-1, SEGMENT)
    mask = (np.arange(ids.size) >= padding).reshape(-1, SEGMENT)
    return list(zip(ids, mask, strict=True))


@pytest.mark.usefixtures("x64")
def test_a_text_leaves_the_memory_of_its_segments_padding_in_front() -> None:
    model = reading_model()
    heard: list[Progress] = []
    document = Document.of_text(BOOK, model.form)
    memory = Memory(model).read(BOOK, on_progress=heard.append)
    tokens = document.read(0, document.num_tokens)
    assert tokens.size % SEGMENT
    assert_close(memory.state(), slowly(model, padded(tokens)), 1e-10)
    assert [one.tokens for one in heard][-1] == memory.tokens_read == tokens.size
    assert {(one.name, one.total) for one in heard} == {("text", tokens.size)}
    assert len(heard) > 5
    # A second text begins a new segment, and the first one is still there.
    memory.read(TEXT)
    again = Document.of_text(TEXT, model.form)
    both = padded(tokens) + padded(again.read(0, again.num_tokens))
    assert_close(memory.state(), slowly(model, both), 1e-10)
    assert [text.complete for text in memory.texts] == [True, True]


@pytest.mark.usefixtures("x64")
def test_a_stream_of_unknown_length_is_padded_at_its_last_segment() -> None:
    model = reading_model()
    document = Document.of_text(BOOK, model.form)
    tokens = document.read(0, document.num_tokens)
    whole = tokens.size // SEGMENT * SEGMENT
    expected = slowly(
        model,
        [(row, np.ones(SEGMENT, bool)) for row in tokens[:whole].reshape(-1, SEGMENT)]
        + padded(tokens[whole:]),
    )
    parts = (BOOK[i : i + 50] for i in range(0, len(BOOK), 50))
    memory = Memory(model).read(parts)
    assert_close(memory.state(), expected, 1e-10)
    assert memory.texts[0].total == tokens.size
    ids = Memory(model).read(iter([tokens[:5], tokens[5:5], tokens[5:]]))
    assert bits(ids.state()) == bits(memory.state())
    # Asking in the middle closes the segment for the question only.
    half = Memory(model)
    with pytest.raises(StoppedError):
        half.read([tokens[:30], tokens[30:]], on_progress=stop_at(30))
    first = slowly(model, [(tokens[:SEGMENT], np.ones(SEGMENT, bool)), *padded(tokens[SEGMENT:30])])
    assert_close(half.state(), first, 1e-10)
    half.read([tokens])
    assert bits(half.state()) == bits(memory.state())


@pytest.mark.parametrize("lazily", [False, True], ids=["document", "stream"])
def test_a_resumed_reading_ends_bit_identical(tmp_path: Path, lazily: bool) -> None:
    model = reading_model()
    path, file = tmp_path / "book.txt", tmp_path / "memory"
    path.write_text(BOOK)

    def stream() -> Any:
        return (BOOK[i : i + 61] for i in range(0, len(BOOK), 61)) if lazily else path

    straight = Memory(model).read(stream())
    total = straight.tokens_read
    for cuts in ((1,), (100, 101, 400), (total,), tuple(range(30, total - 150, 97))):
        file.unlink(missing_ok=True)
        for cut in cuts:
            memory = Memory.load(file, model) if file.exists() else Memory(model)
            with pytest.raises(StoppedError):
                memory.read(stream(), snapshot=file, on_progress=stop_at(cut))
            assert Memory.load(file, model).is_reading
        memory = Memory.load(file, model)
        asked = memory.ask(QUESTIONS)  # between two parts: changes nothing
        assert memory.ask(QUESTIONS) == asked
        memory.read(stream(), snapshot=file)
        for one in (memory, Memory.load(file, model)):
            assert bits(one.state()) == bits(straight.state())
            assert one.texts == straight.texts
            assert not one.is_reading


def test_snapshots_are_taken_by_the_clock(tmp_path: Path) -> None:
    model, file = reading_model(), tmp_path / "memory"
    seen: list[int] = []

    def look(progress: Progress) -> None:
        seen.append(Memory.load(file, model).tokens_read if file.exists() else 0)

    Memory(model).read(BOOK, snapshot=file, snapshot_seconds=0.0, on_progress=look)
    assert seen == sorted(set(seen))  # what was saved grows from block to block
    assert len(seen) > 5


def test_another_text_cannot_be_gone_on_with(tmp_path: Path) -> None:
    model, file = reading_model(), tmp_path / "memory"
    with pytest.raises(StoppedError):
        Memory(model).read(BOOK, snapshot=file, on_progress=stop_at(50))
    before = file.read_bytes()
    with pytest.raises(ConfigError, match=r"document 'text': is not the text that the memory"):
        Memory.load(file, model).read(BOOK.replace("cups", "cats"), snapshot=file)
    assert file.read_bytes() == before
    lazily = tmp_path / "lazy"
    with pytest.raises(StoppedError):
        Memory(model).read([BOOK], snapshot=lazily, on_progress=stop_at(50))
    for other in (["Nobody. " * 900], [BOOK[:40]]):
        with pytest.raises(ConfigError, match="text 'stream': begins with other tokens than the"):
            Memory.load(lazily, model).read(other)


def test_many_questions_are_answered_as_each_by_itself(tmp_path: Path) -> None:
    model = reading_model()
    memory = Memory(model).read(BOOK)
    before = bits(memory.state())
    many = [f"{question[:-1]} {i}?" for i in range(11) for question in QUESTIONS]  # 33 of them
    answers = memory.ask(many)
    assert answers == [memory.ask(question)[0] for question in many]
    assert len(set(answers)) > 3  # questions matter
    assert Memory(model).ask(many) != answers  # what was read matters
    assert bits(memory.state()) == before
    assert memory.ask([]) == []


def test_it_answers_as_the_evaluation_of_the_benchmark_does() -> None:
    model = reading_model()
    document = Document.of_text(BOOK, model.form)
    state = read_contexts(model.reader, [document])
    prompts = [np.array(model.form.prompt(question)) for question in QUESTIONS]
    stop = model.form.stop_id
    assert stop is not None
    (ids,) = answer_prompts(
        model.model, model.params, state, [prompts], max_new_tokens=16, stop_token=stop
    )
    memory = Memory(model).read(BOOK)
    assert bits(memory.state()) == bits(state)
    assert memory.ask(QUESTIONS) == [model.form.answer(one) for one in ids]


def test_forks_go_their_own_way() -> None:
    model = reading_model()
    memory = Memory(model).read(BOOK)
    state, answers = bits(memory.state()), memory.ask(QUESTIONS)
    fork = memory.fork()
    assert bits(fork.state()) == state
    fork.read(TEXT)
    assert bits(fork.state()) != state
    assert bits(memory.state()) == state
    other = memory.fork()
    memory.read("John left.")
    assert bits(other.state()) == state
    assert other.ask(QUESTIONS) == answers
    assert [len(one.texts) for one in (memory, fork, other)] == [2, 2, 1]


def test_a_saved_memory_is_the_memory(tmp_path: Path) -> None:
    model = reading_model()
    memory = Memory(model).read(BOOK)
    memory.save(tmp_path / "a.memory")
    assert [path.name for path in tmp_path.iterdir()] == ["a.memory"]
    fresh = ReadingModel(model.model, model.params, model.form, SEGMENT, "another name")
    loaded = Memory.load(tmp_path / "a.memory", fresh)
    assert bits(loaded.state()) == bits(memory.state())
    assert loaded.texts == memory.texts
    assert loaded.ask(QUESTIONS) == memory.ask(QUESTIONS)
    loaded.save(tmp_path / "b.memory")
    again = Memory.load(tmp_path / "b.memory", model)
    assert (bits(again.state()), again.texts) == (bits(memory.state()), memory.texts)


@pytest.mark.parametrize(
    ("question", "message"),
    [
        (" ", "question 1: is empty, must have text"),
        ("a\udcff", "question 1: must be UTF-8 text; byte 1 is none"),
        (
            "Where is he who was late? ",
            r"question 1 \('Where .*'\): has 2\d tokens, must be at most",
        ),
        (np.zeros((2, 2), int), "question 1: must be text, or ids"),
        (np.zeros(0, int), "question 1: must be text, or ids"),
        (np.array([262]), r"question 1: has ids outside \[0, 262\)"),
    ],
)
def test_questions_that_cannot_be_asked_are_refused(question: Any, message: str) -> None:
    model = reading_model()
    with pytest.raises(ConfigError, match=message):
        model.prompts([question], 16)
    with pytest.raises(ConfigError, match="question 2: is empty"):
        model.prompts(["Why?", ""], 16)
    with pytest.raises(ConfigError, match=r"an answer of up to 60: segment length = \d+: must be"):
        model.prompts(["Where?"], 60)
    with pytest.raises(ConfigError, match="max_new_tokens = 0"):
        model.prompts(["Where?"], 0)


def test_texts_that_cannot_be_read_leave_the_memory_as_it_was(tmp_path: Path) -> None:
    model = reading_model()
    memory = Memory(model).read(TEXT)
    before = bits(memory.state())
    for bad, message in (
        ("", "is empty, must have text"),
        (tmp_path / "none", "there is no such file"),
        (iter([]), "text 'stream': is empty, must have a token"),
        (TokenDocument(np.array([300])), r"token id 300: must be in \[0, 262\)"),
    ):
        with pytest.raises(ConfigError, match=message):
            memory.read(bad)
    assert bits(memory.fork().state()) == before
