"""What no memory may come from: other models, damage, disks that are full."""

from __future__ import annotations

import dataclasses
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors import safe_open

from armt_jax import ConfigError
from armt_jax.reading import BabilongForm, Memory, PlainForm, ReadingModel
from armt_jax.streaming import save_stream
from tests.reading.cases import QUESTIONS, SEGMENT, TEXT, bits, reading_model, tokenizer


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "book.memory"
    Memory(reading_model()).read(TEXT).save(path)
    return path


def refused(path: Path, model: ReadingModel, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"memory file '.*{path.name}': {message}"):
        Memory.load(path, model)


def test_the_file_says_whose_it_is(file: Path) -> None:
    model = reading_model()
    with safe_open(file, framework="numpy") as opened:
        about = opened.metadata()
    assert about["format"] == "armt_jax.memory.1"
    assert about["parameters"] == model.parameters_digest
    assert '"tokens": 145' in about["texts"]
    assert int(about["tokens_read"]) == Memory(model).read(TEXT).tokens_read


def test_memories_of_other_models_are_refused(file: Path) -> None:
    model = reading_model()
    refused(file, reading_model(nu=2), r"is of another model: model\.nu = 3 there, 2 here")
    message = (
        r"was made by other parameters of such a model: parameters .* there, .* here \(seed 1\)"
    )
    refused(file, reading_model(1), message)
    other = dataclasses.replace(model, segment_size=SEGMENT + 1)
    refused(file, other, "was read in other segments: segment_size 24 there, 25 here")
    for form in (BabilongForm(tokenizer(), ""), PlainForm(tokenizer().backend)):
        other = dataclasses.replace(model, form=form)
        refused(file, other, "was read with another tokenizer or form of text: form")


def test_damage_is_found_wherever_it_is(file: Path) -> None:
    model, content = reading_model(), file.read_bytes()
    header = int.from_bytes(content[:8], "little")
    name = content.index(b"tokens_read")
    for place in (len(content) - 3, 8 + header + 100, name + 14):  # two arrays, the metadata
        wrong = bytes([content[place] ^ 1])
        file.write_bytes(content[:place] + wrong + content[place + 1 :])
        refused(file, model, "is damaged")
    for length in (0, 4, 8 + header // 2, 8 + header, len(content) - 1):
        file.write_bytes(content[:length])
        refused(file, model, "is damaged, cut short or no memory file")
    file.write_bytes(content)
    assert bits(Memory.load(file, model).state())


def test_files_of_other_kinds_are_refused(file: Path, tmp_path: Path) -> None:
    model = reading_model()
    refused(tmp_path / "none", model, "there is no such file")
    (tmp_path / "text").write_text("Mary went to the garden.")
    refused(tmp_path / "text", model, "is damaged, cut short or no memory file")
    save_stream(tmp_path / "stream", model.reader, model.reader.start(1))
    refused(
        tmp_path / "stream", model, "has format 'armt_jax.stream.1', must be 'armt_jax.memory.1'"
    )
    newer = file.read_bytes().replace(b"armt_jax.memory.1", b"armt_jax.memory.2")
    (tmp_path / "newer").write_bytes(newer)
    message = r"has format 'armt_jax.memory.2', must be 'armt_jax.memory.1' \(this library is "
    refused(tmp_path / "newer", model, message)


@pytest.fixture
def small_disk() -> Iterator[None]:
    """No file may grow beyond 2,000 bytes: writing more fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_the_file_before(file: Path, request: pytest.FixtureRequest) -> None:
    memory = Memory.load(file, reading_model())
    before, answers = file.read_bytes(), memory.ask(QUESTIONS)
    memory.read(TEXT)
    request.getfixturevalue("small_disk")
    with pytest.raises(OSError, match="cannot be written, nothing was changed"):
        memory.save(file)
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    assert Memory.load(file, reading_model()).ask(QUESTIONS) == answers
