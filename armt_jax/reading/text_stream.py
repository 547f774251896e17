"""Text as its ids come in: every character once it cannot change any more."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from armt_jax.reading.forms import TextForm

# What a decoder writes for bytes that are no character, or not yet.
_UNFINISHED = "\ufffd"


def text_stream(form: TextForm, ids: Iterable[int]) -> Iterator[str]:
    """Pieces that together are ``form.answer(ids)``; none is empty.

    A character of several tokens is held back until its last one. An id is decoded behind those of
    the piece before it, as some decoders drop the blank in front of what they are given; so every
    token costs the same, however long the text.
    """
    context: list[int] = []  # ids of the piece before, whose text is out
    held: list[int] = []
    for token in ids:
        held.append(token)
        piece = _behind(form, context, held)
        if piece and not piece.endswith(_UNFINISHED):
            yield piece
            context, held = held, []
    rest = _behind(form, context, held)
    if rest:
        yield rest


def _behind(form: TextForm, context: list[int], ids: list[int]) -> str:
    return form.answer([*context, *ids])[len(form.answer(context)) :]
