"""Every token of every document is predicted once a pass, whatever the sizes; nothing else is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from armt_jax.config import ConfigError
from armt_jax.tasks.babilong.tokenizers import BabilongTokenizer, train_tokenizer
from armt_jax.tasks.language_modelling import (
    Contexts,
    TokenDocuments,
    articles,
    context_stream,
    load_documents,
    tokenise_documents,
)

END = 999
WIKITEXT = (
    " \n = First = \n \n Some text , and more . \n = = Part = = \n \n x = 3 = y \n = Next = \n ö\n"
)


def numbered(*sizes: int) -> TokenDocuments:
    """Documents whose tokens are 0, 1, 2, ... through all of them."""
    names = iter(range(sum(sizes)))
    tokens = [[END, *(next(names) for _ in range(size))] for size in sizes]
    starts = np.cumsum([0, *(len(one) for one in tokens)])
    return TokenDocuments(np.concatenate(tokens), starts)


DOCUMENTS = numbered(7, 1, 12, 13, 30)


def predicted(context: Any) -> list[int]:
    return context.targets[context.context_mask].tolist()


@pytest.mark.parametrize(("segments", "size"), [(3, 4), (1, 5), (2, 40), (12, 1)])
def test_contexts_predict_every_token_once_and_in_order(segments: int, size: int) -> None:
    contexts = Contexts(DOCUMENTS, segments, size)
    found = [contexts[index] for index in range(len(contexts))]
    assert [token for one in found for token in predicted(one)] == list(range(63))
    for index, one in enumerate(found):
        assert one.context.shape == one.context_mask.shape == one.targets.shape == (segments, size)
        mask = one.context_mask.reshape(-1)
        count = int(mask.sum())
        assert count == contexts.predicted(index) >= 1
        assert mask[:count].all(), "padding stands at the end"
        read, targets = one.context.reshape(-1), one.targets.reshape(-1)
        np.testing.assert_array_equal(read[1:count], targets[: count - 1])
        assert not read[count:].any()
        assert not targets[count:].any()
        # Begins a document, or goes on behind the context before it.
        first = predicted(one)[0]
        begins = contexts.document(index) != (contexts.document(index - 1) if index else -1)
        assert read[0] == (END if begins else first - 1)


def test_an_index_out_of_range_and_documents_without_tokens_are_refused() -> None:
    contexts = Contexts(DOCUMENTS, 3, 4)
    for index in (-1, len(contexts)):
        with pytest.raises(IndexError):
            contexts[index]
    with pytest.raises(ConfigError, match="have no token to predict"):
        Contexts(numbered(0, 0), 3, 4)


def draw(contexts: Contexts, batches: int, size: int = 2, **place: Any) -> list[Any]:
    stream = context_stream(contexts, 3, size, **place)
    found = [next(stream) for _ in range(batches)]
    stream.close()
    return found


def test_every_pass_of_the_stream_predicts_every_token_once() -> None:
    contexts = Contexts(DOCUMENTS, 2, 3)  # 13 contexts: batches of 2 cross the passes' border
    rows = [jax.tree.map(lambda x, i=i: x[i], b) for b in draw(contexts, 13) for i in range(2)]
    first, second = rows[:13], rows[13:]
    orders = [[predicted(row)[0] for row in rows] for rows in (first, second)]
    for rows in (first, second):
        assert sorted(token for row in rows for token in predicted(row)) == list(range(63))
    assert orders[0] != orders[1], "each pass has an order of its own"
    assert orders[0] != sorted(orders[0]), "contexts are shuffled"


def test_the_stream_goes_on_from_a_number_and_shards_are_parts_of_it() -> None:
    contexts = Contexts(DOCUMENTS, 2, 3)
    whole = draw(contexts, 12, size=4)
    jax.tree.map(np.testing.assert_array_equal, draw(contexts, 5, size=4, start=7), whole[7:])
    shards = [draw(contexts, 12, size=4, shard_index=i, shard_count=2) for i in range(2)]
    joined = [
        jax.tree.map(lambda a, b: np.concatenate([a, b]), *pair)
        for pair in zip(*shards, strict=True)
    ]
    jax.tree.map(np.testing.assert_array_equal, joined, whole)
    other = draw(contexts, 12, size=4, stage=1)
    assert any((a.targets != b.targets).any() for a, b in zip(other, whole, strict=True))
    stream = context_stream(contexts, 3, 4)
    next(stream)
    state = stream.get_state()
    after = [next(stream) for _ in range(3)]
    stream.set_state(state)
    jax.tree.map(np.testing.assert_array_equal, [next(stream) for _ in range(3)], after)
    stream.close()
    with pytest.raises(ConfigError, match="batch_size = 3: must be a multiple of shard_count = 2"):
        context_stream(contexts, 3, 3, shard_count=2)


@pytest.fixture(scope="module")
def tokenizer() -> BabilongTokenizer:
    return train_tokenizer([WIKITEXT, "some more text , and more of the text ."] * 3, 300)


def test_tokens_stand_for_all_bytes_of_a_text(tokenizer: BabilongTokenizer) -> None:
    sizes = tokenizer.token_bytes()
    for text in (WIKITEXT, "naïve 東京 \t\r\n  x", "", "a <|endoftext|> b"):
        ids = tokenizer.whole([text])[0]
        assert sizes[ids].sum() == len(text.encode())
    documents = tokenise_documents(["more text", "ö"], tokenizer)
    assert documents.starts[-1] == documents.tokens.size
    for i, text in enumerate(("more text", "ö")):
        one = documents.tokens[documents.starts[i] : documents.starts[i + 1]]
        assert one[0] == tokenizer.end_id
        assert tokenizer.decode(one[1:]) == text


def test_articles_begin_at_titles_and_are_the_whole_text() -> None:
    pieces = articles(WIKITEXT)
    assert "".join(pieces) == WIKITEXT
    assert [piece.split(" = ")[1] for piece in pieces] == ["First", "Next"]
    assert articles("no title\n") == ["no title\n"]


def test_a_split_is_a_file_or_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wiki").mkdir()
    (tmp_path / "wiki" / "wiki.train.tokens").write_bytes(WIKITEXT.encode())
    (tmp_path / "own" / "train").mkdir(parents=True)
    (tmp_path / "own" / "train" / "b.txt").write_bytes(b"two\r\nlines")
    (tmp_path / "own" / "train" / "a.txt").write_bytes(b" = A = \n = B = \n")
    monkeypatch.setenv("ARMT_DATA_DIR", str(tmp_path))
    assert load_documents("wiki", None, "train") == articles(WIKITEXT)
    expected = [" = A = \n = B = \n", "two\r\nlines"]
    assert load_documents("own", None, "train") == expected
    monkeypatch.delenv("ARMT_DATA_DIR")
    assert load_documents(str(tmp_path / "own"), None, "train") == expected
    train, valid, test = (load_documents("built_in", None, s) for s in ("train", "valid", "test"))
    assert len({*train, *valid, *test}) == len(train) + len(valid) + len(test) == 30


def test_text_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ARMT_DATA_DIR", raising=False)
    with pytest.raises(ConfigError, match=r"dataset = 'none': there is no folder 'none' \(ARMT_"):
        load_documents("none", None, "train")
    with pytest.raises(ConfigError, match=r"must have one of valid.txt, .*; has none"):
        load_documents(str(tmp_path), None, "valid")
    (tmp_path / "train.txt").write_bytes(b"\xff\xfe text")
    with pytest.raises(ConfigError, match=r"train.txt: cannot be read as UTF-8"):
        load_documents(str(tmp_path), None, "train")
    (tmp_path / "train.txt").write_bytes(b" \n")
    with pytest.raises(ConfigError, match=r"train.txt: has no text"):
        load_documents(str(tmp_path), None, "train")
    (tmp_path / "test").mkdir()
    with pytest.raises(ConfigError, match=r"test: has no .txt file"):
        load_documents(str(tmp_path), None, "test")
    with pytest.raises(ConfigError, match="split = 'dev': must be one of train, valid, test"):
        load_documents(str(tmp_path), None, "dev")


def test_wikitext_2_as_it_is(data_dir: Path) -> None:
    test = load_documents("wikitext-2", str(data_dir), "test")
    assert "".join(test).encode() == (data_dir / "wikitext-2" / "test.txt").read_bytes()
    assert 55 <= len(test) <= 65  # 60 articles, and lines of formulas that look like titles
