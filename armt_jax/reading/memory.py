"""``Memory``: what a model keeps of the texts it has read; asked, forked, saved and read on with.

    memory = Memory(load_reading_model("runs/babilong_qa1")).read(Path("book.txt"))
    memory.ask(["Where is Mary?", "Where is John?"])       # nothing is read again
    memory.save("book.memory")
    Memory.load("book.memory", reading_model).fork().read("Mary went to the garden.")

A text ends where a segment ends: what it lacks of a whole number of segments is masked padding in
front of it, as in training. Of a text whose length is not known (an iterable) the padding stands in
front of its last segment.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from armt_jax.config import ConfigError
from armt_jax.evaluation.answers import answer_prompts
from armt_jax.generation import GREEDY, Sampling, check_sampling
from armt_jax.models.protocol import State
from armt_jax.reading import memory_file
from armt_jax.reading.lazy import LazyText, Source, text_source
from armt_jax.reading.memory_file import TextRead
from armt_jax.reading.reading_model import ReadingModel
from armt_jax.streaming import StreamState

ANSWER_TOKENS = 16
_TOGETHER = 32  # questions that are asked at once


class Progress(NamedTuple):
    """How far a text is read: ``tokens`` of ``total``, which is None where nobody knows."""

    name: str
    tokens: int
    total: int | None


OnProgress = Callable[[Progress], None]


class Memory:
    """What one model keeps of some texts, read one after the other.

    Attributes:
      model: what reads and answers.
      texts: what was read; the last one perhaps in part.
    """

    def __init__(self, model: ReadingModel) -> None:
        """An empty memory."""
        self.model = model
        self.texts: tuple[TextRead, ...] = ()
        self._state = model.reader.start(1)
        self._asked: State | None = None

    @property
    def tokens_read(self) -> int:
        """Tokens of all texts, padding not counted."""
        return sum(text.tokens for text in self.texts)

    @property
    def is_reading(self) -> bool:
        """Whether the last text is read in part only."""
        return bool(self.texts) and not self.texts[-1].complete

    def read(
        self,
        stream: Any,
        *,
        snapshot: str | os.PathLike[str] | None = None,
        snapshot_seconds: float = 60.0,
        on_progress: OnProgress | None = None,
    ) -> Memory:
        """Read a text to its end, behind what has been read; a half-read text is gone on with.

        Args:
          stream: the path of a UTF-8 file (a ``Path``), a text (``str``), ids (an integer array
            ``[n]``), a ``Document``, or an iterable of texts or of ids, which is never whole in
            memory.
          snapshot: a file in which the memory is saved every ``snapshot_seconds``, when something
            ends the reading between two blocks, and at the end. ``Memory.load`` of it and ``read``
            of the same text go on from there, to the same memory.
          snapshot_seconds: see ``snapshot``.
          on_progress: is told how far the text is read; what it raises ends the reading.

        Returns:
          This memory.

        Raises:
          ConfigError: an empty text, one that is not UTF-8, another text than the one that is half
            read, tokens that the model does not know.
          OSError: a file that cannot be read or written.
        """
        source = text_source(stream, self.model.form)
        finished, text = self.texts, TextRead(source.name, source.digest, 0, source.num_tokens)
        if self.is_reading:
            finished, text = self.texts[:-1], self._same(source)
        saved = time.monotonic()
        for padding, tokens in self._blocks(source, text.tokens):
            self._feed(padding, tokens)
            text = dataclasses.replace(text, digest=source.digest, tokens=text.tokens + tokens.size)
            self.texts = (*finished, text)
            try:
                if on_progress is not None:
                    on_progress(Progress(source.name, text.tokens, source.num_tokens))
            except BaseException:
                if snapshot is not None:
                    self.save(snapshot)
                raise
            if snapshot is not None and time.monotonic() - saved >= snapshot_seconds:
                self.save(snapshot)
                saved = time.monotonic()
        if text.tokens == 0:
            raise ConfigError(f"text {source.name!r}: is empty, must have a token")
        self._state, self._asked = self._padded(self._state), None
        text = dataclasses.replace(text, total=text.tokens, complete=True)
        self.texts = (*finished, text)
        if snapshot is not None:
            self.save(snapshot)
        return self

    def ask(
        self,
        questions: Sequence[Any] | str,
        *,
        max_new_tokens: int = ANSWER_TOKENS,
        sampling: Sampling = GREEDY,
        rng: jax.Array | None = None,
    ) -> list[str]:
        """An answer to each question, by default the likeliest; the memory is as before.

        Args:
          questions: texts, or integer arrays of ids that end where an answer begins. Each is read
            in a segment of its own, by a copy of the memory.
          max_new_tokens: an answer has no more.
          sampling: how a token is chosen.
          rng: key for a ``sampling`` with a temperature.

        Raises:
          ConfigError: an empty question, one longer than a segment, one that the tokenizer does not
            know, ids outside the vocabulary, a sampling that cannot be.
        """
        check_sampling(sampling, rng)
        prompts = self.model.prompts(questions, max_new_tokens)
        found: list[str] = []
        for start in range(0, len(prompts), _TOGETHER):
            (answers,) = answer_prompts(
                self.model.model,
                self.model.params,
                self.state(),
                [prompts[start : start + _TOGETHER]],
                max_new_tokens=max_new_tokens,
                stop_token=self.model.form.stop_id,
                sampling=sampling,
                rng=None if rng is None else jax.random.fold_in(rng, start),
            )
            found += [self.model.form.answer(ids) for ids in answers]
        return found

    def state(self) -> State:
        """The model's state after all that has been read, on one device; not to be donated."""
        if self._asked is None:
            copy = jax.tree.map(jnp.copy, self._state.memory)
            ended = self._padded(self._state._replace(memory=copy))
            self._asked = jax.device_put(ended.memory, jax.devices()[0])
        return self._asked

    def fork(self) -> Memory:
        """A memory of the same texts that goes its own way."""
        other = Memory(self.model)
        memory = jax.tree.map(jnp.copy, self._state.memory)
        other._state, other.texts = self._state._replace(memory=memory), self.texts
        return other

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all of it to ``path`` or, where that fails, nothing; see ``memory_file``.

        Raises:
          OSError: the folder is missing or unwritable, or the disk is full.
        """
        memory_file.save(path, self.model, self._state, self.texts)

    @classmethod
    def load(cls, path: str | os.PathLike[str], model: ReadingModel) -> Memory:
        """What ``save`` wrote.

        Raises:
          ConfigError: no such file, a damaged one, one of another model, tokenizer or version.
        """
        memory = cls(model)
        memory._state, memory.texts = memory_file.load(path, model, memory._state)
        return memory

    def _same(self, source: Source) -> TextRead:
        """The half-read text, which must be ``source``; of a stream, what was read is passed."""
        text = self.texts[-1]
        if isinstance(source, LazyText):
            source.skip(text.tokens, text.digest)
        elif (source.digest, source.num_tokens) != (text.digest, text.total):
            new = TextRead(source.name, source.digest, 0, source.num_tokens)
            raise ConfigError(
                f"document {source.name!r}: is not the text that the memory has read "
                f"{text.tokens:,} tokens of, {text.describe()}; this one is {new.describe()}"
            )
        return text

    def _blocks(self, source: Source, done: int) -> Iterator[tuple[int, np.ndarray]]:
        """What comes behind ``done`` tokens: places of padding, and tokens behind them."""
        if isinstance(source, LazyText):
            for tokens in source:
                yield 0, tokens
            return
        reader = self.model.reader
        while done < source.num_tokens:
            padding = reader.padding(self._state, source.num_tokens) if done == 0 else 0
            fed = self._state.tokens.shape[1] + padding
            stop = min(done + reader.until_block(fed), source.num_tokens)
            yield padding if done == 0 else 0, source.read(done, stop)
            done = stop

    def _feed(self, padding: int, tokens: np.ndarray) -> None:
        ids = np.pad(tokens, (padding, 0))[None]
        mask = np.arange(ids.shape[1])[None] >= padding
        self._state = self.model.reader.feed(self._state, ids, mask)
        self._asked = None

    def _padded(self, state: StreamState) -> StreamState:
        """``state`` with the rest of its text as a segment, padding in front; ``state`` is fed."""
        rest = state.tokens.shape[1]
        if self.model.reader.unread(state) == 0:
            return state
        padding = np.zeros((1, self.model.segment_size - rest), np.int32)
        tokens = np.concatenate([padding, state.tokens], axis=1)
        mask = np.concatenate([padding.astype(bool), state.mask], axis=1)
        empty = np.zeros((1, 0), np.int32)
        before = state._replace(
            tokens=empty, mask=empty.astype(bool), tokens_read=state.tokens_read - rest
        )
        return self.model.reader.feed(before, tokens, mask)
