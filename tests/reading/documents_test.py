"""Texts in pieces: the same tokens whatever is read at once, and what is wrong said at once."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from armt_jax import ConfigError
from armt_jax.reading import BabilongForm, Document, PlainForm, TextForm, TokenDocument, TokenForm
from armt_jax.reading import documents as documents_module
from armt_jax.reading import lazy as lazy_module
from armt_jax.reading.forms import question_end
from armt_jax.reading.lazy import LazyText, text_source
from tests.reading.cases import TEXT, tokenizer

LONG = TEXT * 3 + "no end of a sentence and no full stop " * 4


def plain_tokenizer() -> Tokenizer:
    """Words, blanks in front, and nothing for unknown ones."""
    words = sorted({f" {w}" for w in LONG.split()} | set(LONG.split()) | {" ", "  "} | set("\n.?"))
    backend = Tokenizer(models.WordLevel({"[UNK]": 0} | {w: i for i, w in enumerate(words, 1)}))
    backend.model.unk_token = "[UNK]"
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_next")  # pyright: ignore
    return backend


FORMS: list[TextForm] = [BabilongForm(tokenizer()), PlainForm(plain_tokenizer())]


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than any sentence of ``TEXT``, shorter than the text."""
    for module in (documents_module, lazy_module):
        monkeypatch.setattr(module, "PIECE", 100)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.kind)
def test_pieces_have_the_tokens_of_the_whole(form: TextForm, tmp_path: Path) -> None:
    text = TEXT * 4
    expected = form.passage(text)
    path = tmp_path / "book.txt"
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    document = Document.of_file(path, form)
    assert document.num_tokens == len(expected)
    assert len(document._offsets) > 5
    assert document.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    np.testing.assert_array_equal(document.read(0, 10**9), expected)
    for start, stop in ((0, 1), (17, 40), (39, len(expected)), (5, 5)):
        np.testing.assert_array_equal(document.read(start, stop), expected[start:stop])
    np.testing.assert_array_equal(Document.of_text(text, form).read(0, 10**9), expected)
    for size in (1, 7, 99, 1000):
        parts = (text[i : i + size] for i in range(0, len(text), size))
        found = np.concatenate(list(LazyText(parts, form)))
        np.testing.assert_array_equal(found, expected)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("text", ["x" * 1000, "\r" * 201, "a \r\n" * 90, ". . ." * 70, "é" * 333])
def test_a_text_without_an_end_is_cut_the_same_way_by_all(text: str) -> None:
    form = BabilongForm(tokenizer())
    document = Document.of_text(text, form, "x") if text.strip() else None
    found = np.concatenate([np.zeros(0, int), *LazyText([text[:99], text[99:]], form)])
    expected = [] if document is None else document.read(0, 10**9)
    np.testing.assert_array_equal(found, expected)
    if document is not None:
        kept = "".join(tokenizer().decode(found).split())
        assert kept == "".join(text.split())  # nothing is lost


def test_a_question_is_put_as_it_was_in_training() -> None:
    tokens = tokenizer()
    form = BabilongForm(tokens)
    assert form.prompt(" Where is Mary?") == [*tokens.bare("Where is Mary? "), tokens.gen_id]
    assert question_end("qa1") == " "
    assert question_end("qa4") == question_end("qa20") == ""
    bare = BabilongForm(tokens, "")
    assert bare.prompt("Where is Mary?") == [*tokens.bare("Where is Mary?"), tokens.gen_id]
    assert bare.fingerprint != form.fingerprint
    assert form.answer([*tokens.bare("garden"), tokens.end_id, 5]) == "garden"
    assert form.answer(form.target("garden")) == "garden"
    assert "".join(form.pieces(form.passage("A cup. Two"))) == " A cup. Two"
    with pytest.raises(ConfigError, match=r"question 'is <\|gen\|>': has tokens that no question"):
        form.prompt("is <|gen|>")


def test_a_plain_question_of_unknown_words_is_refused() -> None:
    form = PlainForm(plain_tokenizer(), stop_token=".", template="the {question}")
    assert form.prompt("milk") == form.passage("the milk")
    assert form.answer(form.target(" milk")) == " milk ."
    with pytest.raises(ConfigError, match="question 'quark': 'quark' is unknown to the tokenizer"):
        form.prompt("quark")
    no_unknown = Tokenizer(models.BPE({"a": 0, "b": 1}, []))  # drops what it does not know
    with pytest.raises(ConfigError, match=r"question 'abz': 'z' is unknown"):
        PlainForm(no_unknown).prompt("abz")
    with pytest.raises(ConfigError, match=r"template = 'x': must have \{question\} in it"):
        PlainForm(plain_tokenizer(), template="x")
    with pytest.raises(ConfigError, match="stop_token = '<end>': must be a token"):
        PlainForm(plain_tokenizer(), stop_token="<end>")


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "document 'x.txt': is empty, must have text"),
        (b" \n\r\n ", "document 'x.txt': is empty, must have text"),
        (b"ab\xffcd", r"document 'x.txt': must be UTF-8 text; byte 2 \(0xff\) is none"),
        (("é" * 300).encode() + b"a\xe2\x82", r"byte 601 \(0xe2\) is none"),
        (b"word. " * 200 + b"\x80", r"byte 1200 \(0x80\) is none"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        Document.of_file(path, FORMS[0])


def test_other_bad_texts_are_refused(tmp_path: Path) -> None:
    form = FORMS[0]
    with pytest.raises(ConfigError, match="there is no such file"):
        Document.of_file(tmp_path / "none", form)
    with pytest.raises(ConfigError, match="is a folder, must be a text file"):
        Document.of_file(tmp_path, form)
    with pytest.raises(ConfigError, match="document 'text': must be UTF-8 text; byte 2 is none"):
        Document.of_text("ab\udcff", form)
    with pytest.raises(ConfigError, match="must be integers"):
        TokenDocument(np.zeros(3))
    with pytest.raises(ConfigError, match="stream of type int: must be a Path"):
        text_source(3, form)
    with pytest.raises(ConfigError, match="block of float64"):
        list(LazyText([np.zeros(3)], form))
    with pytest.raises(ConfigError, match="has no tokenizer, give token ids"):
        Document.of_text("abc", TokenForm())


@pytest.mark.usefixtures("small_pieces")
def test_a_file_that_changes_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_text(TEXT * 4)
    document = Document.of_file(path, FORMS[0])
    path.write_text(TEXT * 2 + TEXT.replace("cups", "small cups") * 2)
    with pytest.raises(ConfigError, match=r"document 'book.txt': has changed while it was read"):
        document.read(0, document.num_tokens)
