"""Tokenizers: ids of GPT-2, blanks where the benchmark has them, errors of one line."""

from __future__ import annotations

import pytest

from armt_jax.config import ConfigError
from armt_jax.tasks.babilong.books import GeneratedBooks
from armt_jax.tasks.babilong.events import ACTORS, LOCATIONS, OBJECTS, VERBS
from armt_jax.tasks.babilong.tokenizers import gpt2_tokenizer, load_tokenizer, train_tokenizer
from armt_jax.tasks.babilong.vocabulary import small_tokenizer


@pytest.fixture(scope="module")
def small():
    return small_tokenizer(GeneratedBooks("train"), 1_024)


def test_gpt2_ids(data_dir):
    gpt2 = gpt2_tokenizer(data_dir / "gpt2-bpe")
    assert gpt2.vocab_size == 50_257
    assert gpt2.bare("Hello world") == [15_496, 995]
    assert gpt2.end_id == 50_256
    assert gpt2.bare("GEN") == [gpt2.gen_id]
    # One token with the leading blank that facts have, two as an answer.
    for room in ("bathroom", "hallway", "kitchen", "garden"):
        assert len(gpt2.sentences([room])[0]) == 1
        assert len(gpt2.bare(room)) == 2
    assert gpt2.sentences(["Mary left.", "So"]) == [gpt2.bare(" Mary left."), gpt2.bare(" So")]
    assert gpt2.decode_answer([*gpt2.bare("bathroom"), gpt2.end_id, 5]) == "bathroom"


def test_words_of_babi_are_one_token_of_the_small_tokenizer(small):
    assert small.vocab_size == 1_024
    words = {word for verbs in VERBS.values() for verb in verbs for word in verb.split()}
    for word in {*LOCATIONS, *OBJECTS, *words}:
        assert len(small.bare(f" {word}")) == 1, word
    for answer in {*LOCATIONS, *OBJECTS, *ACTORS["qa5"]}:
        assert len(small.bare(answer)) == 1, answer
    assert small.dtype == "uint16"


def test_every_text_comes_back(small):
    for text in ("Where is Mary? ", "naïve 東京\n\ttabs", "<|gen|"):
        assert small.decode(small.bare(text)) == text


def test_facts_are_remembered_as_they_are(small):
    facts = ["Mary went to the garden.", "John left.", "Mary went to the garden."]
    assert small.facts(facts) == small.sentences(facts)
    assert small.facts(facts[1:]) == small.sentences(facts[1:])


def test_a_saved_tokenizer_is_the_same(small, tmp_path):
    path = tmp_path / "tokenizer.json"
    small.save(path)
    again = load_tokenizer(path)
    assert again.fingerprint == small.fingerprint
    assert (again.gen_id, again.end_id) == (small.gen_id, small.end_id)
    assert again.bare("Where is Mary? ") == small.bare("Where is Mary? ")
    other = train_tokenizer([" something else entirely"], 300)
    assert other.fingerprint != small.fingerprint


def test_a_tokenizer_that_does_not_fit_a_model(small):
    small.check_model(1_024)
    small.check_model(50_257)
    with pytest.raises(ConfigError, match=r"model\.vocab_size = 1023: must be at least 1024"):
        small.check_model(1_023)


def test_files_that_are_no_tokenizer(tmp_path):
    with pytest.raises(ConfigError, match="no such file; must be a tokenizer"):
        load_tokenizer(tmp_path / "none.json")
    with pytest.raises(ConfigError, match=r"vocab\.json: no such file"):
        load_tokenizer(tmp_path)
    (tmp_path / "vocab.json").write_text("{")
    (tmp_path / "merges.txt").write_text("")
    with pytest.raises(ConfigError, match="is not a GPT-2 vocabulary"):
        gpt2_tokenizer(tmp_path)
    (tmp_path / "vocab.json").write_text('{"a": 0}')
    with pytest.raises(ConfigError, match="has no token 'GEN'"):
        gpt2_tokenizer(tmp_path)
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(ConfigError, match="is not a tokenizer's JSON"):
        load_tokenizer(tmp_path / "a.json")
    with pytest.raises(ConfigError, match="vocab_size = 100: must be at least 258"):
        train_tokenizer(["a"], 100)
