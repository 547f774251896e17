"""bAbI and books as TFDS sets: what comes out is what went in."""

from __future__ import annotations

import pytest

from armt_jax.config import ConfigError
from armt_jax.tasks.babilong import BookFolder, TokenisedBooks, draw_passage, sample_rng
from armt_jax.tasks.babilong.babi import babi_folder, load_questions
from armt_jax.tasks.babilong.builders import (
    RecordBooks,
    load_babi_set,
    load_book_set,
    tfds_books,
)
from tests.tasks.babilong.stories import numbered_book, words_tokenizer

STORY = (
    "1 Mary went to the garden.\n2 John got the milk.\n3 Where is Mary? \tgarden\t1\n"
    "4 John moved to the office.\n5 Where is the milk? \toffice\t2 4\n"
)


@pytest.fixture
def babi(tmp_path):
    folder = tmp_path / "babi"
    folder.mkdir()
    (folder / "qa2_two-supporting-facts_test.txt").write_text(STORY)
    return folder


def test_questions_come_back_as_they_were(babi, tmp_path):
    want = load_questions(babi, "qa2", "test", 2)
    assert want[1].supporting == (1, 2)
    sets = tmp_path / "sets"
    assert load_babi_set(babi, "qa2", "test", sets, 2) == want
    (made,) = (sets / "babi_set").iterdir()
    written = {p: p.stat().st_mtime_ns for p in made.rglob("*")}
    assert load_babi_set(babi, "qa2", "test", sets, 2) == want
    assert written == {p: p.stat().st_mtime_ns for p in made.rglob("*")}  # opened, not built
    # Another file is another set.
    (babi / "qa2_two-supporting-facts_test.txt").write_text(STORY.replace("garden", "hallway"))
    assert load_babi_set(babi, "qa2", "test", sets, 2)[0].answer == "hallway"
    assert len(list((sets / "babi_set").iterdir())) == 2


def test_a_damaged_set_and_a_folder_that_cannot_be_written(babi, tmp_path):
    sets = tmp_path / "sets"
    load_babi_set(babi, "qa2", "test", sets, 2)
    (file,) = sets.rglob("*.array_record*")
    file.write_bytes(file.read_bytes()[:10])
    with pytest.raises(ConfigError, match=r"is damaged .*; delete that folder and it is built"):
        load_babi_set(babi, "qa2", "test", sets, 2)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="must be a folder that can be written"):
        load_babi_set(babi, "qa2", "test", tmp_path / "file", 2)


def test_books_of_a_set_are_those_of_the_folder(tmp_path, monkeypatch):
    folder = tmp_path / "books"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.txt").write_text(numbered_book(number) + " Café.\n")
    files, books = BookFolder(folder), load_book_set(folder, tmp_path / "sets")
    assert len(books) == 3
    for index in range(3):
        assert books.text(index) == files.text(index)
        assert books.fingerprint(index) == files.fingerprint(index)
    passages = [
        draw_passage(TokenisedBooks(corpus, words_tokenizer()), 500, sample_rng(0, 0))
        for corpus in (files, books)
    ]
    assert (passages[0].read(0, 500) == passages[1].read(0, 500)).all()
    monkeypatch.setattr("armt_jax.tasks.tfds_sets.MAX_BYTES", 1000)
    with pytest.raises(ConfigError, match="are too many for one set"):
        load_book_set(folder, tmp_path / "sets")


def test_records_of_pg19(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    asked = []

    def data_source(name, split, data_dir):
        asked.append((name, split, data_dir))
        return [{"book_text": b"A caf\xc3\xa9.", "book_id": 1}, {"book_id": 2}]

    monkeypatch.setattr(tfds, "data_source", data_source)
    books = tfds_books("test", tmp_path)
    assert asked == [("pg19", "test", tmp_path)]
    assert (len(books), books.text(0)) == (2, "A café.")
    with pytest.raises(ConfigError, match="book 1: must have a book_text"):
        books.text(1)
    with pytest.raises(ConfigError, match="must hold at least one book"):
        RecordBooks([])

    def no_tensorflow(*args, **options):
        raise ImportError("No module named 'tensorflow'\nand more")

    monkeypatch.setattr(tfds, "data_source", no_tensorflow)
    with pytest.raises(ConfigError, match=r"No module named 'tensorflow'.; it is prepared with"):
        tfds_books("test", tmp_path)


def test_the_real_file(data_dir, tmp_path):
    folder = babi_folder(data_dir)
    assert load_babi_set(folder, "qa5", "test", tmp_path) == load_questions(folder, "qa5", "test")
