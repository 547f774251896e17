"""The commands as they are typed: ask, export, inspect."""

from __future__ import annotations

import io
import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from armt_jax.reading import Memory, load_reading_model, save_checkpoint
from armt_jax.training.interruption import SignalWatch
from experiments import ask, export, inspect
from tests.reading.cases import QUESTIONS, TEXT


@pytest.fixture(scope="module")
def checkpoint(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("exported") / "small"
    save_checkpoint(folder, run_folder)
    return f"--checkpoint={folder}"


@pytest.fixture
def book(tmp_path: Path) -> Path:
    path = tmp_path / "book.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture
def no_reading(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Once called, whoever reads a token fails."""

    def forbid() -> None:
        monkeypatch.setattr(Memory, "_feed", lambda *args: pytest.fail("reads again"))

    return forbid


def answers_of(checkpoint: str, questions: list[str]) -> str:
    model = load_reading_model(checkpoint.removeprefix("--checkpoint="))
    found = Memory(model).read(TEXT).ask(questions)
    return "".join(f"{q}\t{a}\n" for q, a in zip(questions, found, strict=True))


def test_a_text_is_read_once_and_asked_again_and_again(
    run_folder: Path, checkpoint: str, book: Path, no_reading: Any, command: Any
) -> None:
    expected = answers_of(checkpoint, QUESTIONS)
    many = [f"--question={question}" for question in QUESTIONS]
    code, out, err = command(ask, f"--workdir={run_folder}", f"--document={book}", *many)
    assert (code, out) == (0, expected)
    memory = book.with_name("book.txt.memory")
    assert f"tokens/s), memory in {memory}" in err
    no_reading()
    # The run and what is exported of it are one model; the document may be named again.
    for extra in ([f"--memory={memory}"], [f"--document={book}"]):
        assert command(ask, checkpoint, *extra, *many)[:2] == (0, expected)
    file = book.with_name("questions.txt")
    file.write_text("\n".join(QUESTIONS) + "\n\n")
    found = command(ask, checkpoint, f"--memory={memory}", f"--questions={file}")
    assert found[:2] == (0, expected)


@pytest.mark.slow
def test_questions_come_from_standard_input(
    checkpoint: str, book: Path, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [QUESTIONS[0], "W" * 60, QUESTIONS[1]]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(asked)))
    code, out, err = command(ask, checkpoint, f"--document={book}", "--memory", book.parent / "m")
    assert (code, out) == (0, answers_of(checkpoint, QUESTIONS[:2]))
    assert "error: question 1 ('WWW" in err  # and the next one was answered
    terminal = io.StringIO()
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    typed = iter([*QUESTIONS, ""])
    monkeypatch.setattr(sys, "stdin", terminal)
    monkeypatch.setattr("builtins.input", lambda prompt: next(typed))
    code, out, err = command(ask, checkpoint, f"--memory={book.parent / 'm'}")
    lines = answers_of(checkpoint, QUESTIONS).splitlines()
    assert out.splitlines() == [line.split("\t", 1)[1] for line in lines]
    assert "an empty one ends" in err


@pytest.mark.slow
def test_a_stopped_reading_goes_on(
    checkpoint: str, book: Path, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory, question = book.with_name("m"), f"--question={QUESTIONS[0]}"
    arguments = (checkpoint, f"--document={book}", f"--memory={memory}", question)
    model = "armt_jax.reading.reading_model._BLOCK_TOKENS"
    monkeypatch.setattr(model, 48)
    enter = SignalWatch.__enter__

    def interrupted(watch: SignalWatch) -> SignalWatch:
        watch.received = signal.SIGTERM
        return enter(watch)

    with monkeypatch.context() as patch:
        patch.setattr(SignalWatch, "__enter__", interrupted)
        code, out, err = command(ask, *arguments)
    assert (code, out) == (128 + signal.SIGTERM, "")
    assert "stopped by SIGTERM after 25 of 145 tokens, saved; the same command goes on" in err
    code, out, err = command(ask, checkpoint, f"--memory={memory}", question)
    assert code == 2
    assert "has 25 tokens of 'book.txt' (145 tokens, digest" in err
    book.write_text(TEXT.replace("cups", "cats"))
    code, out, err = command(ask, *arguments)
    assert code == 2
    assert "is not the text that the memory has read 25 tokens of" in err
    book.write_text(TEXT)
    code, out, err = command(ask, *arguments)
    assert (code, out) == (0, answers_of(checkpoint, QUESTIONS[:1]))
    assert "going on from token 25" in err


def test_errors_are_one_line(checkpoint: str, book: Path, command: Any) -> None:
    document, question = f"--document={book}", "--question=Where?"
    assert command(ask, checkpoint, document, question)[0] == 0
    before = sorted(path.name for path in book.parent.iterdir())
    (book.parent / "empty.txt").write_text("\n")
    (book.parent / "latin.txt").write_bytes("Where is the café?".encode("latin-1"))
    (book.parent / "other.txt").write_text("Nobody.")
    folder, memory = book.parent, f"--memory={book}.memory"
    for arguments, message in (
        ((document, question), "--workdir or --checkpoint: one of them must name a folder"),
        ((checkpoint, "--workdir=x", document), "--workdir or --checkpoint: one of them must"),
        ((checkpoint, question), "--document or --memory: must name a text to read"),
        (("--checkpoint=none", document, question), "folder 'none': there is no such folder"),
        ((checkpoint, f"--document={folder}/none", question), "none': there is no such file"),
        ((checkpoint, f"--memory={folder}/none", question), "none': there is no such file"),
        ((checkpoint, f"--document={folder}/empty.txt", question), "'empty.txt': is empty"),
        ((checkpoint, f"--document={folder}/latin.txt", question), r"byte 16 (0xe9) is none"),
        ((checkpoint, document, f"--questions={folder}/none"), "none': there is no such file"),
        ((checkpoint, document, f"--questions={folder}/empty.txt"), "empty.txt': has no question"),
        ((checkpoint, document, f"--questions={folder}/latin.txt"), r"byte 16 (0xe9) is none"),
        ((checkpoint, document, "--question= "), "question 1: is empty, must have text"),
        ((checkpoint, document, f"--question={'W' * 60}"), "has 62 tokens, must be at most 48"),
        ((checkpoint, document, "--question=a<|gen|>"), "has tokens that no question can have"),
        ((checkpoint, f"--memory={book}", question), "is damaged, cut short or no memory file"),
        ((checkpoint, memory, f"--document={folder}/other.txt", question), "is of 'book.txt' ("),
        ((checkpoint, document, f"--memory={folder}/no/m", question), "/no/m: cannot be written"),
        ((checkpoint, document, "--step=x", question), "--step = 'x': must be latest, best"),
    ):
        code, out, err = command(ask, *arguments)
        assert (code, out) == (2, ""), arguments
        lines = err.strip().splitlines()
        assert lines[-1].startswith("error: "), arguments
        assert message in lines[-1], arguments
        assert "Traceback" not in err
    after = sorted(path.name for path in book.parent.iterdir())
    assert set(after) - set(before) == {"empty.txt", "latin.txt", "other.txt"}


def test_export_and_its_errors(run_folder: Path, tmp_path: Path, command: Any) -> None:
    code, out, _ = command(export, f"--workdir={run_folder}", f"--out={tmp_path / 'x'}")
    assert code == 0
    assert "parameters" in out
    assert load_reading_model(tmp_path / "x").name == "babilong_qa1"
    for arguments, message in (
        ((f"--workdir={run_folder}",), "--workdir and --out: must name"),
        ((f"--workdir={run_folder}", f"--out={tmp_path / 'x'}"), "must be new or empty"),
        ((f"--workdir={tmp_path}", f"--out={tmp_path / 'y'}"), "has no config.json"),
    ):
        code, _, err = command(export, *arguments)
        assert code == 2
        assert message in err


@pytest.mark.slow
def test_inspect_writes_pictures_and_numbers(
    checkpoint: str, book: Path, tmp_path: Path, command: Any
) -> None:
    out = tmp_path / "seen"
    arguments = (checkpoint, f"--document={book}", f"--out={out}", "--most_segments=3")
    more = ("--fact=Mary went to the garden.", "--question=Where is Mary?", "--answer=garden")
    code, text, err = command(inspect, *arguments, *more)
    assert code == 0, err
    content = json.loads((out / "inspection.json").read_text())
    assert [len(one["tokens"]) for one in content["segments"]] == [25, 48, 48]
    assert f" {TEXT}".startswith("".join(content["segments"][0]["tokens"]))
    assert content["strength"]["distances"] == [0, 1, 2, 3]
    assert content["strength"]["strength"][0] == [1.0]
    assert len(content["strength"]["answer_probability"]) == 4
    for name in ("gates", "sizes", "keys", "strength"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert f"{name}.png" in text
    code, _, err = command(inspect, *arguments, more[1])
    assert code == 2
    assert "--question and --answer: must be given together" in err
    code, _, err = command(inspect, *arguments, f"--fact={TEXT}")
    assert code == 2
    assert "--fact: has 145 tokens, must be at most 48, a segment" in err
    code, _, err = command(inspect, checkpoint)
    assert "--document: must name a text" in err
