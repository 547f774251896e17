"""Samples: the authors' sequence, exact sizes, facts in order, the same in whatever blocks."""

from __future__ import annotations

import numpy as np
import pytest

from armt_jax.config import ConfigError
from armt_jax.tasks.babilong.babi import Question
from armt_jax.tasks.babilong.noise import TokenisedBooks
from armt_jax.tasks.babilong.sample import (
    build_sample,
    make_query,
    sample_rng,
    tokens_of_length,
    tokens_of_segments,
)
from tests.tasks.babilong.stories import FACTS, QUESTION, Texts, small_books, words_tokenizer

SIZE = 1_200


@pytest.fixture(scope="module")
def books() -> TokenisedBooks:
    return small_books()


def sample(books, index=0, size=SIZE, **settings):
    return build_sample(books, QUESTION, size, sample_rng(3, index), **settings)


def test_context_holds_the_facts_in_order_and_only_noise_besides(books):
    for index in range(40):
        made = sample(books, index)
        context = made.context()
        assert context.dtype == np.int32
        assert context.size == made.num_tokens == SIZE
        spans = made.fact_spans
        assert [books.tokenizer.decode(context[a:b]) for a, b in spans] == [f" {f}" for f in FACTS]
        assert (np.diff(spans.reshape(-1)) >= 0).all()
        rest = np.delete(context, np.concatenate([np.arange(a, b) for a, b in spans]))
        text = books.tokenizer.decode(rest)
        assert text.startswith(" Book ")
        assert "Mary" not in text
        # Facts stand between sentences, never inside one.
        for a, b in spans:
            # Only the last noise sentence is cut, and facts may follow it.
            facts_only = int((spans[:, 1] - spans[:, 0])[spans[:, 0] >= a].sum()) == SIZE - a
            assert a == 0 or facts_only or books.tokenizer.decode(context[:a]).endswith(".")
            after = books.tokenizer.decode(context[b : b + 6])
            assert after in (" Mary ", " John ") or " Book ".startswith(after)


def test_the_noise_of_a_sample_is_that_of_the_books(books):
    """Without its facts a context is a passage: nothing between sentences is lost or repeated."""
    made = sample(books, 4)
    tokens = np.concatenate([made.read(int(a), int(b)) for a, b in made.fact_spans])
    assert tokens.size + made._noise.num_tokens == SIZE
    parts = np.split(np.arange(SIZE), made.fact_spans.reshape(-1))[::2]
    noise = np.concatenate([made.context()[part] for part in parts])
    np.testing.assert_array_equal(noise, made._noise.read(0, SIZE))


@pytest.mark.parametrize("block", [1, 7, 64, 999, SIZE, 10**6])
def test_blocks_of_any_size_are_the_same_sample(books, block):
    blocks = list(sample(books, 1).blocks(block))
    assert all(part.size == block for part in blocks[:-1])
    np.testing.assert_array_equal(np.concatenate(blocks), sample(books, 1).context())


def test_a_seed_is_a_sample(books):
    np.testing.assert_array_equal(sample(books, 2).context(), sample(small_books(), 2).context())
    assert (sample(books, 2).context() != sample(books, 3).context()).any()


def test_gaps_are_sorted_uniform_draws():
    """Three facts, gaps of one-sized sentences: positions are order statistics of uniform draws."""
    lines = " ".join(f"Line {i:03} of the only book of all." for i in range(900))
    books = TokenisedBooks(Texts(lines), words_tokenizer())
    places = np.array([sample(books, i, 3_000).fact_spans[:, 0] / 3_000 for i in range(2_000)])
    # Means of the order statistics of three uniform draws: 1/4, 2/4, 3/4, each +- 0.006.
    np.testing.assert_allclose(places.mean(axis=0), [0.25, 0.5, 0.75], atol=0.02)
    # Their variance is k (4 - k) / 80: 3/80, 4/80, 3/80.
    np.testing.assert_allclose(places.var(axis=0), [0.0375, 0.05, 0.0375], atol=0.004)
    assert places.min() == 0.0


def test_depth_bounds_the_facts(books):
    size = 6_000
    for depth in ((0.0, 0.1), (0.45, 0.55), (0.9, 1.0)):
        for index in range(30):
            spans = sample(books, index, size, depth=depth).fact_spans
            fact_tokens = int((spans[:, 1] - spans[:, 0]).sum())
            # A sentence is at most 60 tokens here, and depth counts sentences.
            assert spans.min() >= depth[0] * (size - fact_tokens) - 250
            assert spans.max() <= depth[1] * (size - fact_tokens) + fact_tokens + 250
    for depth in ((0.5, 0.5), (-0.1, 1.0), (0.0, 1.1), (0.7, 0.2)):
        with pytest.raises(ConfigError, match="depth = "):
            sample(books, depth=depth)


def test_the_authors_sequence(books):
    made = sample(books)
    tokenizer = books.tokenizer
    query = made.query
    assert tokenizer.decode(query.tokens) == "Where is the milk? garden"
    asked, right = tokenizer.bare("Where is the milk? "), tokenizer.bare("garden")
    want = [*made.context(), *asked, tokenizer.gen_id, *right, tokenizer.end_id]
    assert made.sequence().tolist() == want
    assert query.prompt.tolist() == [*asked, tokenizer.gen_id]
    # The position before each scored token: the answer's, and the end.
    scored = query.tokens[1:][query.loss_mask[:-1]]
    assert scored.tolist() == [*right, tokenizer.end_id]
    assert not query.loss_mask[-1]


def test_a_context_of_facts_alone(books):
    made = sample(books, size=0)
    assert books.tokenizer.decode(made.context()) == "".join(f" {fact}" for fact in FACTS)
    assert sample(books, size=made.num_tokens).num_tokens == made.num_tokens
    with pytest.raises(ConfigError) as error:
        sample(books, size=made.num_tokens - 1)
    assert str(error.value) == (
        f"num_tokens = {made.num_tokens - 1}: must be at least {made.num_tokens}, the tokens of "
        "the 3 facts of this question of qa2"
    )


def test_a_question_without_facts(books):
    made = build_sample(books, Question((), "Who?", "John", "qa16"), 100, sample_rng(0, 0))
    assert made.fact_spans.shape == (0, 2)
    assert made.context().size == 100


def test_fifty_million_tokens_are_a_list_of_places():
    """Two blocks far apart of a sample that would take 200 MB; the plan is made at once."""
    books = TokenisedBooks(
        Texts(*("A sentence of some words here. " * 4_000,) * 3), words_tokenizer()
    )
    made = sample(books, size=50_000_000)
    assert made.num_tokens == 50_000_000
    first, last = int(made.fact_spans[0, 0]), int(made.fact_spans[2, 0])
    assert last - first > 1_000
    for start, fact in ((first, FACTS[0]), (last, FACTS[2])):
        tokens = made.read(start, start + len(books.tokenizer.bare(f" {fact}")))
        assert books.tokenizer.decode(tokens) == f" {fact}"
    assert made.read(49_999_990, 60_000_000).size == 10


def test_names_of_lengths():
    names = {"0k": 0, "4k": 4_000, "128k": 128_000, "1M": 1_000_000, "50M": 50_000_000, "777": 777}
    assert {name: tokens_of_length(name) for name in names} == names
    for name in ("k", "4K", "1.5M", "-4k", ""):
        with pytest.raises(ConfigError, match="must be a number of tokens, such as 4k or 1M"):
            tokens_of_length(name)
    assert tokens_of_segments(32, 512) == 32 * 512 - 20
    with pytest.raises(ConfigError, match="num_segments = 1 of 16 tokens"):
        tokens_of_segments(1, 16)


def test_a_query_is_without_leading_blanks(data_dir):
    from armt_jax.tasks.babilong.tokenizers import gpt2_tokenizer

    gpt2 = gpt2_tokenizer(data_dir / "gpt2-bpe")
    query = make_query(gpt2, "Where is Sandra? ", "kitchen")
    assert query.tokens.tolist() == [8_496, 318, 32_464, 30, 220, 35_353, 15_813, 6_607, 50_256]
    assert query.loss_mask.tolist() == [False] * 5 + [True] * 3 + [False]
