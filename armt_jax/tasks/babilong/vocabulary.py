"""What a small tokenizer is trained on: simulated stories, and sentences of books."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from armt_jax.tasks.babilong.books import Corpus
from armt_jax.tasks.babilong.events import SIMULATED_TASKS
from armt_jax.tasks.babilong.sentences import split_sentences
from armt_jax.tasks.babilong.simulator import Simulator
from armt_jax.tasks.babilong.tokenizers import BabilongTokenizer, train_tokenizer

_STORIES = 150
_BOOKS = 40
_CHARACTERS_PER_BOOK = 20_000


def small_tokenizer(
    corpus: Corpus, vocab_size: int = 2048, tasks: Sequence[str] = SIMULATED_TASKS, seed: int = 0
) -> BabilongTokenizer:
    """A tokenizer for models trained from scratch: bAbI's words are one token each.

    Args:
      corpus: training books, for common English.
      vocab_size: ids; 1,024 to 2,048 keep bAbI's words whole and cut English into pieces.
      tasks: whose words come whole.
      seed: of the simulated stories.
    """
    return train_tokenizer(training_texts(corpus, tasks, seed), vocab_size)


def training_texts(corpus: Corpus, tasks: Sequence[str], seed: int) -> Iterator[str]:
    """Facts, questions and answers of stories, then sentences of up to 40 books."""
    for task in tasks:
        simulator = Simulator(task, seed)
        for index in range(_STORIES):
            questions = simulator.story(index)
            yield from (f" {fact}" for fact in questions[-1].facts)
            for question in questions:
                yield question.question
                # Often: a word counts here as often as it comes, and these come alone.
                yield from (question.answer,) * 20
    # Books spread over the corpus, which is sorted by author.
    for index in range(0, len(corpus), max(1, len(corpus) // _BOOKS)):
        for sentence in split_sentences(corpus.text(index)[:_CHARACTERS_PER_BOOK]):
            yield f" {sentence}"
