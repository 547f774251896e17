"""A text handed out in pieces is the text, and no piece has half a character."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from armt_jax.reading.forms import PlainForm, TextForm, TokenForm
from armt_jax.reading.text_stream import text_stream

TEXT = " the river \u2014 na\u00efve, \u4e2d\u6587 and \U0001f600\n the end "


def _byte_level() -> PlainForm:
    """A token for every byte: the worst that a character can be cut."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = tokenizers.Tokenizer(models.BPE({name: i for i, name in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PlainForm(tokenizer)


def _metaspace() -> PlainForm:
    """A token for every word, whose decoder drops the first blank, as Llama's does."""
    words = ["<unk>", *("\u2581" + word for word in TEXT.split())]
    tokenizer = tokenizers.Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(words)}, "<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return PlainForm(tokenizer)


@pytest.mark.parametrize("form", [_byte_level(), _metaspace(), TokenForm()], ids=lambda f: f.kind)
def test_pieces_are_the_text(form: TextForm) -> None:
    ids = list(range(9)) if isinstance(form, TokenForm) else form.passage(TEXT)
    pieces = list(text_stream(form, ids))
    assert "".join(pieces) == form.answer(ids)
    assert len(pieces) > 5
    assert not any("\ufffd" in piece for piece in pieces)


def test_a_piece_is_there_before_the_next_token() -> None:
    form = _byte_level()
    taken = 0

    def ids() -> Iterator[int]:
        nonlocal taken
        for token in form.passage("a\u4e2db"):
            taken += 1
            yield token

    seen = [(piece, taken) for piece in text_stream(form, ids())]
    assert seen == [("a", 1), ("\u4e2d", 4), ("b", 5)]


def test_a_character_that_never_ends_comes_at_the_end() -> None:
    form = _byte_level()
    ids = form.passage("a\u4e2d")[:-1]
    assert "".join(text_stream(form, ids)) == form.answer(ids)
    assert list(text_stream(form, [])) == []
