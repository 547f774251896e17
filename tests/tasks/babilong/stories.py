"""Small things that the tests of BABILong are made of: no file of anybody's."""

from __future__ import annotations

from armt_jax.tasks.babilong.babi import Question
from armt_jax.tasks.babilong.noise import TokenisedBooks
from armt_jax.tasks.babilong.tokenizers import BabilongTokenizer, train_tokenizer

FACTS = ("Mary went to the garden.", "John moved to the office.", "Mary got the milk there.")
QUESTION = Question(FACTS, "Where is the milk? ", "garden", "qa2", (2, 0))


class Texts:
    """Books given as strings."""

    def __init__(self, *texts: str) -> None:
        self.texts = texts

    def __len__(self) -> int:
        return len(self.texts)

    def text(self, index: int) -> str:
        return self.texts[index]

    def fingerprint(self, index: int) -> str:
        return self.texts[index]


def words_tokenizer() -> BabilongTokenizer:
    """One id a byte, but for a few merged pairs: quick to train, every text has ids."""
    return train_tokenizer([" the the the milk"], 262)


def numbered_book(number: int, sentences: int = 40) -> str:
    """Sentences that say where they come from, of different lengths."""
    return " ".join(
        f"Book {number} line {i} has so many words: {'long ' * (i % 5)}." for i in range(sentences)
    )


def small_books(count: int = 5) -> TokenisedBooks:
    return TokenisedBooks(Texts(*map(numbered_book, range(count))), words_tokenizer())
