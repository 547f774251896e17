"""Sentences, books and passages: nothing lost, nothing made up, the same at every reading."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest

from armt_jax.config import ConfigError
from armt_jax.tasks.babilong import noise
from armt_jax.tasks.babilong.books import BookFolder, GeneratedBooks, check_apart, load_books
from armt_jax.tasks.babilong.events import read_event
from armt_jax.tasks.babilong.noise import TokenisedBooks, draw_passage, tokenise_book
from armt_jax.tasks.babilong.sample import sample_rng
from armt_jax.tasks.babilong.sentences import sentence_spans, split_sentences
from tests.tasks.babilong.stories import Texts, small_books, words_tokenizer


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("He left.  She\nstayed!", ["He left.", "She\nstayed!"]),
        ('"Why?" he asked. "No." She wept.', ['"Why?" he asked.', '"No."', "She wept."]),
        ("Mr. Smith met Dr. Watson. They spoke.", ["Mr. Smith met Dr. Watson.", "They spoke."]),
        ("J. R. Green wrote it. (He did.) 3 men came.", None),
        ("CHAPTER I\n\nIt rained, i.e. it poured.", ["CHAPTER I", "It rained, i.e. it poured."]),
        (
            "It cost 3.50 in all... and more. Yes?! So",
            ["It cost 3.50 in all... and more.", "Yes?!", "So"],
        ),
        ("", []),
        (" \n\n ", []),
    ],
)
def test_where_sentences_end(text, sentences):
    if sentences is None:
        sentences = ["J. R. Green wrote it.", "(He did.)", "3 men came."]
    assert split_sentences(text) == sentences


def test_no_character_but_blanks_is_lost(data_dir):
    text = BookFolder(data_dir / "books" / "test").text(7)[:200_000]
    spans = sentence_spans(text)
    assert len(spans) > 500
    assert re.sub(r"\s", "", "".join(text[a:b] for a, b in spans)) == re.sub(r"\s", "", text)
    # What follows a place is the same without what stands before it: a passage may begin anywhere.
    middle = spans[300][0]
    later = [(a - middle, b - middle) for a, b in spans[300:]]
    assert sentence_spans(text[middle:]) == later


def test_a_book_keeps_its_long_sentences_but_the_last():
    tokenizer = words_tokenizer()
    text = (
        "A sentence of enough words here. Short! Another one of enough words. The last is dropped."
    )
    book = tokenise_book(text, tokenizer)
    decoded = [tokenizer.decode(book.tokens[a:b]) for a, b in itertools.pairwise(book.ends)]
    assert decoded == [" A sentence of enough words here.", " Another one of enough words."]
    assert [text[start] for start in book.starts] == ["A", "A"]
    assert book.tokens.dtype == np.uint16


def test_passages_are_sentences_in_reading_order():
    books = small_books()
    for index in range(50):
        passage = draw_passage(books, 900, sample_rng(5, index))
        tokens = passage.read(0, 900)
        assert tokens.size == passage.num_tokens == 900
        gaps = [passage.gap(i) for i in range(passage.num_sentences + 1)]
        assert gaps[0] == 0
        assert gaps[-1] == 900
        found = []
        for a, b in itertools.pairwise(gaps):
            sentence = books.tokenizer.decode(tokens[a:b])
            match = re.fullmatch(
                r" Book (\d+) line (\d+) has so many words: (?:long )*\.", sentence
            )
            if match is None:
                assert b == 900, sentence  # only the last one is cut
            else:
                found.append((int(match[1]), int(match[2])))
        assert len(found) >= passage.num_sentences - 1
        for (book, line), (next_book, next_line) in itertools.pairwise(found):
            # The next line, or another book after the last line but one.
            assert (next_book, next_line) == (book, line + 1) or line == 38
        assert all(line < 39 for _, line in found)


def test_passages_begin_everywhere_and_in_every_book():
    books = small_books(3)
    first = [draw_passage(books, 30, sample_rng(1, index)).read(0, 30) for index in range(600)]
    starts = {
        tuple(map(int, re.findall(r"\d+", books.tokenizer.decode(tokens))[:2])) for tokens in first
    }
    assert {book for book, _ in starts} == {0, 1, 2}
    # The first sentence never: the one that the random place cuts in two is dropped.
    assert {line for _, line in starts} == set(range(1, 39))


def test_any_part_of_a_passage():
    books = small_books()
    passage = draw_passage(books, 5_000, sample_rng(2, 0))
    whole = passage.read(0, 5_000)
    for start, stop in ((0, 1), (17, 2_000), (1_999, 2_001), (4_000, 9_999), (5_000, 5_001)):
        np.testing.assert_array_equal(passage.read(start, stop), whole[start:stop])


def test_books_are_tokenised_once_and_memory_is_bounded(tmp_path, monkeypatch):
    made = []

    def counted(text, tokenizer):
        made.append(text)
        return tokenise_book(text, tokenizer)

    monkeypatch.setattr(noise, "tokenise_book", counted)
    texts, tokenizer = small_books().corpus, words_tokenizer()
    books = TokenisedBooks(texts, tokenizer)
    want = [books.book(i) for i in (0, 1, 0, 1, 0)]
    assert len(made) == 2
    tight = TokenisedBooks(texts, tokenizer, memory_tokens=want[0].tokens.size)
    for index in (0, 1, 0):
        tight.book(index)
    assert len(made) == 5
    made.clear()
    said: list[str] = []
    for _ in range(2):
        cached = TokenisedBooks(texts, tokenizer, cache_dir=tmp_path, say=said.append)
        np.testing.assert_array_equal(cached.book(1).tokens, want[1].tokens)
    assert len(made) == 1
    folder = tmp_path / "books"
    line = f"tokenising 5 books, each when it is first read, kept in {folder} for the next run"
    assert said == [line]
    twice = TokenisedBooks(texts, tokenizer, say=said.append)
    for index in (2, 3):
        twice.book(index)
    assert len(said) == 2, "it says so once"
    assert len(made) == 3
    made.pop()
    made.pop()
    (file,) = tmp_path.rglob("*.npz")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    damaged = TokenisedBooks(texts, tokenizer, cache_dir=tmp_path).book(1)
    np.testing.assert_array_equal(damaged.tokens, want[1].tokens)
    assert len(made) == 2
    # Other books or another tokenizer are other files.
    TokenisedBooks(Texts("One more book. " * 9), tokenizer, cache_dir=tmp_path).book(0)
    assert len(list(tmp_path.rglob("*.npz"))) == 2


def test_books_without_sentences_and_folders_without_books(tmp_path, monkeypatch):
    books = TokenisedBooks(Texts("No.", ""), words_tokenizer())
    with pytest.raises(ConfigError, match=r"no sentence of 10 tokens or more in 2 books"):
        draw_passage(books, 5, sample_rng(0, 0))
    with pytest.raises(ConfigError, match=r"must be a folder of books as \.txt files"):
        BookFolder(tmp_path)
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    with pytest.raises(ConfigError, match=r"a\.txt: cannot be read as UTF-8"):
        BookFolder(tmp_path).text(0)
    file = tmp_path / "file"
    file.write_text("in the way")
    with pytest.raises(ConfigError, match="must be a folder that can be written"):
        TokenisedBooks(small_books().corpus, words_tokenizer(), cache_dir=file).book(0)
    monkeypatch.delenv("ARMT_DATA_DIR", raising=False)
    assert isinstance(load_books("train"), GeneratedBooks)
    with pytest.raises(ConfigError, match="split = 'valid': must be one of train, test"):
        load_books("valid")


def test_training_and_test_books_are_kept_apart(data_dir):
    test = load_books("test", data_dir)
    check_apart(Texts("a", "b"), Texts("c"))
    with pytest.raises(ConfigError, match="book 1 of the test corpus is in the training corpus"):
        check_apart(Texts("a", "b"), Texts("c", "a"))
    train = {path.name for path in (data_dir / "books" / "train").glob("*.txt")}
    assert len(test) > 1
    assert len(train) > 1
    assert not train & {path.name for path in (data_dir / "books" / "test").glob("*.txt")}


def test_generated_books_are_prose_of_their_split_and_state_no_facts():
    train, test = GeneratedBooks("train"), GeneratedBooks("test")
    assert train.text(3) == train.text(3) != train.text(4)
    left, right = split_sentences(train.text(0)), split_sentences(test.text(0))
    assert len(left) > 1_000
    assert len(set(left)) > 0.9 * len(left)
    assert not set(left) & set(right)
    for sentence in left + right:
        assert 6 <= len(sentence.split()) <= 45, sentence
        with pytest.raises(ConfigError):
            read_event(sentence)
    with pytest.raises(ConfigError, match="split = 'valid'"):
        GeneratedBooks("valid")


class FixedDraws:
    """Stands for a generator that draws these integers."""

    def __init__(self, *draws: int) -> None:
        self.draws = list(draws)

    def integers(self, end: int) -> int:
        assert self.draws[0] < end
        return self.draws.pop(0)


def test_the_sentence_at_the_random_character_is_dropped():
    books = small_books(1)
    second = int(books.book(0).starts[1])
    for character, line in ((0, 1), (second - 1, 1), (second, 2), (second + 1, 2)):
        passage = draw_passage(books, 20, FixedDraws(0, character))  # pyright: ignore
        assert books.tokenizer.decode(passage.read(0, 20)).startswith(f" Book 0 line {line} ")
