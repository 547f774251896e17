"""How a model takes text: passages, questions and answers as ids.

A model was trained on text in one form and understands no other. ``BabilongForm`` is BABILong's
(sentence by sentence, each with a leading blank, a question ended by ``GEN``), ``PlainForm`` that
of a language model (the text as it is, a question put into a template).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
import tokenizers

from armt_jax.config import ConfigError
from armt_jax.tasks.babilong.sentences import sentence_spans
from armt_jax.tasks.babilong.tokenizers import BabilongTokenizer

# Tasks of bAbI v1.2 whose questions end with the question mark; the others have a blank behind it,
# which is a token of its own.
_WITHOUT_BLANK = ("qa4", *(f"qa{number}" for number in range(15, 21)))
_WORD_BEGINS = re.compile(r"(?<=\S) (?=\w)")


class TextForm(Protocol):
    """Text as ids and back.

    Attributes:
      kind: name of the form.
      fingerprint: hash of all that decides about ids.
      stop_id: ends an answer; None: answers are as long as they may be.
    """

    kind: str
    fingerprint: str
    stop_id: int | None

    def cut(self, text: str) -> int:
        """Characters of ``text`` whose ids are the same whatever comes behind; 0: none."""
        ...

    def passage(self, text: str) -> list[int]:
        """Ids of a text that is read; of one that ``cut`` has cut, what it has in the whole."""
        ...

    def prompt(self, question: str) -> list[int]:
        """Ids of a question, up to where the answer begins.

        Raises:
          ConfigError: characters that the tokenizer does not know.
        """
        ...

    def answer(self, ids: Iterable[int]) -> str:
        """The text of an answer."""
        ...

    def target(self, answer: str) -> list[int]:
        """Ids of a right answer, with what ends it."""
        ...

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """The text of each id by itself."""
        ...


class BabilongForm:
    """Sentences with a leading blank each, as BABILong's contexts; ``question GEN answer``."""

    kind = "babilong"

    def __init__(self, tokenizer: BabilongTokenizer, question_end: str = " ") -> None:
        """``question_end`` stands between a question and GEN: see ``question_end``."""
        self.tokenizer = tokenizer
        self.question_end = question_end
        self.stop_id: int | None = tokenizer.end_id
        self.fingerprint = _fingerprint(self.kind, tokenizer.fingerprint, question_end)

    def cut(self, text: str) -> int:
        """All but the last sentence, whose end is not known yet."""
        spans = sentence_spans(text)
        return spans[-1][0] if spans else 0

    def passage(self, text: str) -> list[int]:
        """Ids of all sentences, each tokenised by itself."""
        sentences = [text[start:stop] for start, stop in sentence_spans(text)]
        return [token for ids in self.tokenizer.sentences(sentences) for token in ids]

    def prompt(self, question: str) -> list[int]:
        """Question and GEN."""
        asked = question.strip()
        ids = self.tokenizer.bare(asked + self.question_end)
        if self.tokenizer.decode(ids).strip() != asked:
            raise ConfigError(
                f"question {asked!r}: has tokens that no question can have; it reads back as "
                f"{self.tokenizer.decode(ids).strip()!r}"
            )
        return [*ids, self.tokenizer.gen_id]

    def answer(self, ids: Iterable[int]) -> str:
        """The text before the end of the answer."""
        return self.tokenizer.decode_answer(ids)

    def target(self, answer: str) -> list[int]:
        """Answer and end."""
        return [*self.tokenizer.bare(answer), self.tokenizer.end_id]

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """The text of each id by itself."""
        return [self.tokenizer.decode([i]) for i in ids]


def question_end(task: str) -> str:
    """What bAbI's files have behind the questions of a task: a blank, or nothing."""
    return "" if task in _WITHOUT_BLANK else " "


class PlainForm:
    """Text as a language model reads it, with any tokenizer of Hugging Face's."""

    kind = "plain"

    def __init__(
        self,
        tokenizer: tokenizers.Tokenizer,
        stop_token: str | None = None,
        template: str = "{question}",
    ) -> None:
        """``template`` has ``{question}`` in it.

        Raises:
          ConfigError: a template without it, a stop token that the tokenizer lacks.
        """
        if "{question}" not in template:
            raise ConfigError(f"template = {template!r}: must have {{question}} in it")
        self.stop_id = None if stop_token is None else tokenizer.token_to_id(stop_token)
        if stop_token is not None and self.stop_id is None:
            raise ConfigError(f"stop_token = {stop_token!r}: must be a token of the tokenizer")
        self.tokenizer, self.stop_token, self.template = tokenizer, stop_token, template
        described = f"{tokenizer.to_str()}\n{self.stop_id}"
        self.fingerprint = _fingerprint(self.kind, described)

    def cut(self, text: str) -> int:
        """In front of the last word that has one blank before it: there every tokenizer cuts."""
        places = [match.start() for match in _WORD_BEGINS.finditer(text)]
        return places[-1] if places else 0

    def passage(self, text: str) -> list[int]:
        """Ids without special tokens."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def prompt(self, question: str) -> list[int]:
        """Ids of the template with the question in it."""
        text = self.template.replace("{question}", question)
        encoded = self.tokenizer.encode(text, add_special_tokens=False)
        _check_known(self.tokenizer, text, encoded, question)
        return encoded.ids

    def answer(self, ids: Iterable[int]) -> str:
        """Ids as text, special tokens left out."""
        return self.tokenizer.decode([int(i) for i in ids], skip_special_tokens=True)

    def target(self, answer: str) -> list[int]:
        """The answer as it stands behind the template, and the stop token if there is one."""
        ids = self.passage(answer)
        return ids if self.stop_id is None else [*ids, self.stop_id]

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """The text of each id by itself."""
        return [self.tokenizer.decode([int(i)]) for i in ids]


class TokenForm:
    """For models without a tokenizer: texts, questions and answers are ids."""

    kind = "tokens"

    def __init__(self, stop_id: int | None = None) -> None:
        self.stop_id = stop_id
        self.fingerprint = _fingerprint(self.kind, str(stop_id))

    def cut(self, text: str) -> int:
        """There is no text here."""
        raise ConfigError(f"text {text[:20]!r}: the model has no tokenizer, give token ids")

    def passage(self, text: str) -> list[int]:
        """There is no text here."""
        raise ConfigError(f"text {text[:20]!r}: the model has no tokenizer, give token ids")

    def prompt(self, question: str) -> list[int]:
        """There is no text here."""
        raise ConfigError(f"question {question!r}: the model has no tokenizer, give token ids")

    def answer(self, ids: Iterable[int]) -> str:
        """Ids in decimal with blanks between."""
        return " ".join(self.pieces(ids))

    def target(self, answer: str) -> list[int]:
        """There is no text here."""
        return self.prompt(answer)

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """Ids in decimal."""
        return [str(int(i)) for i in ids]


def _check_known(tokenizer: tokenizers.Tokenizer, text: str, encoded: Any, question: str) -> None:
    """Refuse what the tokenizer drops in silence or turns into its unknown token."""
    unknown = getattr(tokenizer.model, "unk_token", None)
    covered = np.zeros(len(text), bool)
    for token, (start, stop) in zip(encoded.tokens, encoded.offsets, strict=True):
        if unknown is None or token != unknown:
            covered[start:stop] = True
    lost = "".join(
        char for char, known in zip(text, covered, strict=True) if not (known or char.isspace())
    )
    if lost:
        raise ConfigError(f"question {question!r}: {lost!r} is unknown to the tokenizer")


def _fingerprint(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
