"""Read a text once, keep the memory as a file, and answer questions from it.

    python -m experiments.ask --workdir=runs/babilong_qa1 --document=book.txt \
        --question="Where is Mary?"
    python -m experiments.ask --workdir=runs/babilong_qa1 --memory=book.txt.memory \
        --questions=questions.txt

``--checkpoint=FOLDER`` takes a folder of ``experiments.export``, or of Hugging Face, instead of a
run. The memory is written to ``--memory``, by default beside the document; with ``--memory`` alone
nothing is read. ``--question`` may be given several times, ``--questions`` has one on each line;
without either they come from the terminal (or from standard input). Answers go to standard output,
one a line: question, tab, answer. ``--temperature`` (with ``--top_k``, ``--top_p``, ``--seed``)
draws answers instead of the likeliest. A reading that was stopped goes on with the same command.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
from absl import flags

from armt_jax.config import ConfigError
from armt_jax.reading import Memory, ReadingModel, TextRead
from armt_jax.reading.documents import decoded
from armt_jax.reading.memory import ANSWER_TOKENS
from experiments import errors, sampling_flags
from experiments.command_line import parse_flags
from experiments.reading_flags import DOCUMENT, QUESTION, load_document, load_model
from experiments.reading_progress import read_with_progress

_MEMORY = flags.DEFINE_string("memory", None, "File of the memory; written, or read if it exists.")
_QUESTIONS = flags.DEFINE_string("questions", None, "File of questions, one a line.")
_SNAPSHOT = flags.DEFINE_float("snapshot_seconds", 60.0, "A half-read memory is kept so often.")
_SUFFIX = ".memory"


def main(argv: list[str]) -> None:
    """Parse the flags, read if there is something to read, and answer."""
    parse_flags(argv)
    questions = _given_questions()
    path = _memory_path()
    how: dict[str, Any] = sampling_flags.settings()
    how["max_new_tokens"] = sampling_flags.new_tokens(ANSWER_TOKENS)
    model = load_model()
    if questions is not None:  # what is wrong with them is said before the reading
        model.prompts(questions, how["max_new_tokens"])
    memory = _memory(model, path)
    if questions is not None:
        answers = memory.ask(questions, **how)
        for question, answer in zip(questions, answers, strict=True):
            print(f"{question}\t{_one_line(answer)}", flush=True)
        return
    _converse(memory, how)


def _given_questions() -> list[str] | None:
    """Those of the flags; None where they are to be typed.

    Raises:
      ConfigError: a file that is missing, not UTF-8 or without a question.
    """
    found = list(QUESTION.value)
    if _QUESTIONS.value is not None:
        found += _lines(Path(_QUESTIONS.value))
    return found or None


def _lines(path: Path) -> list[str]:
    where = f"--questions = {str(path)!r}"
    if not path.is_file():
        raise ConfigError(f"{where}: there is no such file")
    text = decoded(path.read_bytes(), where).removeprefix("\ufeff")
    found = [line.strip() for line in text.splitlines() if line.strip()]
    if not found:
        raise ConfigError(f"{where}: has no question")
    return found


def _memory_path() -> Path:
    if _MEMORY.value:
        return Path(_MEMORY.value)
    if not DOCUMENT.value:
        raise ConfigError("--document or --memory: must name a text to read, or a saved memory")
    document = Path(DOCUMENT.value)
    return document.with_name(document.name + _SUFFIX)


def _memory(model: ReadingModel, path: Path) -> Memory:
    """The memory of the flags: loaded, read to its end, or both."""
    memory = Memory.load(path, model) if path.is_file() or not DOCUMENT.value else Memory(model)
    if not DOCUMENT.value:
        if memory.is_reading:
            half = memory.texts[-1]
            raise ConfigError(
                f"memory file {str(path)!r}: has {half.tokens:,} tokens of {half.describe()}; must "
                "be read to the end first: give --document"
            )
        return memory
    document = load_document(model)
    if memory.texts and not memory.is_reading:
        known = memory.texts[-1]
        if known.digest != document.digest:
            new = TextRead(document.name, document.digest, 0, document.num_tokens)
            raise ConfigError(
                f"memory file {str(path)!r}: is of {known.describe()}, --document is "
                f"{new.describe()}; choose another --memory"
            )
        print(f"{path}: the memory of {known.describe()}, not read again", file=sys.stderr)
        return memory
    read_with_progress(memory, document, path, _SNAPSHOT.value)
    return memory


def _converse(memory: Memory, how: Any) -> None:
    """Questions as they are typed; one that cannot be asked is no end."""
    for count, question in enumerate(_typed()):
        rng = jax.random.fold_in(how["rng"], count)
        try:
            (answer,) = memory.ask([question], **{**how, "rng": rng})
        except ConfigError as error:
            errors.complain(errors.one_line(error))
            continue
        answer = _one_line(answer)
        print(answer if sys.stdin.isatty() else f"{question}\t{answer}", flush=True)


def _one_line(answer: str) -> str:
    """An answer is a line, whatever a language model writes."""
    return " ".join(answer.splitlines())


def _typed() -> Iterator[str]:
    if not sys.stdin.isatty():
        yield from _stripped(sys.stdin)
        return
    print("Questions, one a line; an empty one ends.", file=sys.stderr)
    while True:
        try:
            question = input("> ").strip()
        except EOFError:
            print(file=sys.stderr)
            return
        if not question:
            return
        yield question


def _stripped(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        if line.strip():
            yield line.strip()


if __name__ == "__main__":
    sys.exit(errors.run(lambda: main(sys.argv)))
