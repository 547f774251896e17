"""What retrieval finds, and what the prompt makes of it."""

from __future__ import annotations

import numpy as np
import pytest

from armt_jax.config import ConfigError
from armt_jax.evaluation.babilong_chat import given_name, question_messages, spoken
from armt_jax.evaluation.babilong_prompts import TASK_PROMPTS, chat_messages
from armt_jax.evaluation.babilong_retrieval import Retriever, set_recall, supporting_fact_recall
from armt_jax.evaluation.passage_scores import BM25
from armt_jax.tasks.babilong import EvaluationSet, Question, answers, load_questions
from armt_jax.tasks.babilong.babi import babi_folder
from armt_jax.tasks.babilong.passages import context_text
from tests.tasks.babilong.stories import FACTS, QUESTION, small_books


class Marked:
    """Fits where a word is; equals are equal."""

    name = "mark"

    def __init__(self, *words):
        self.words = words

    def scores(self, question, passages):
        return np.array([float(any(word in one for word in self.words)) for one in passages])


@pytest.fixture(scope="module")
def chosen():
    return EvaluationSet(small_books(), [QUESTION] * 4, range(4), 2000)


def test_the_best_come_in_the_order_of_the_text(chosen):
    for sample in chosen:
        tokenizer = chosen.books.tokenizer
        found = Retriever(Marked("milk", "garden"), top=2).find(sample, tokenizer)
        assert [one.text.strip() for one in found] == [FACTS[0], FACTS[2]]
        # Of equals the first; where too few fit, the first of the others.
        (found,) = Retriever(Marked("."), top=1).find(sample, tokenizer)
        assert found.start == 0
        assert len(Retriever(Marked("milk"), top=5).find(sample, tokenizer)) == 5
        (chunk,) = Retriever(Marked("milk"), "chunks", top=1).find(sample, tokenizer)
        assert chunk.stop - chunk.start in (512, 2000 % 512)
        assert "milk" in chunk.text


def test_recall_counts_questions_whose_facts_are_all_there(chosen):
    assert set_recall(Retriever(Marked("milk", "garden"), top=2), chosen)[:3] == (4, 4, 1.0)
    assert set_recall(Retriever(Marked("milk", "office"), top=2), chosen)[:3] == (0, 4, 0.0)
    # The first of the facts with "to": never the milk. With BM25 "milk" is the rarest word.
    assert set_recall(Retriever(Marked(" to "), top=1), chosen).found == 0
    one = Question(FACTS, "Where is the milk? ", "garden", "qa2", (2,))
    alone = EvaluationSet(chosen.books, [one] * 3, range(3), 2000)
    recall = set_recall(Retriever(BM25(), top=1), alone)
    assert recall.found == 3
    assert recall.low < 1.0 == recall.high
    with pytest.raises(ConfigError, match="must hold at least one"):
        supporting_fact_recall(Retriever(BM25()), [], chosen.books.tokenizer)


def test_settings_of_retrieval():
    assert Retriever(BM25()).name == "5 sentences by BM25"
    assert Retriever(BM25(), "chunks", 3).name == "3 chunks of 512 tokens by BM25"
    with pytest.raises(ConfigError, match="unit = 'pages': must be one of sentences, chunks"):
        Retriever(BM25(), "pages")
    with pytest.raises(ConfigError, match="top = 0"):
        Retriever(BM25(), top=0)


@pytest.mark.parametrize("task", TASK_PROMPTS)
def test_examples_are_right_and_prompts_say_what_they_must(task):
    prompt = TASK_PROMPTS[task]
    assert len(prompt.examples) >= 2
    for example in prompt.examples:
        facts = [f"{fact.strip()}." for fact in example.text.split(".") if fact.strip()]
        assert answers(task, facts, example.question) == (example.answer,)
    (message,) = chat_messages(task, "Once upon a time.", "Where is Mary? ")
    assert message["role"] == "user"
    content = message["content"]
    for example in prompt.examples:
        assert f"{example.text}\nQuestion: {example.question}\nAnswer: {example.answer}" in content
    assert content.count(prompt.wanted) == 2  # before and behind the text
    assert "<text>\nOnce upon a time.\n</text>" in content
    assert content.endswith("Question: Where is Mary?\nAnswer:")
    examples_end = content.rindex("</example>")
    assert examples_end < content.index("<text>") < content.rindex(prompt.wanted)


def test_no_example_is_a_test_story(data_dir):
    for task, prompt in TASK_PROMPTS.items():
        stories = {" ".join(q.facts) for q in load_questions(babi_folder(data_dir), task, "test")}
        assert not stories & {example.text for example in prompt.examples}


def test_a_task_without_a_prompt():
    with pytest.raises(ConfigError, match="task = 'qa6': must be one of qa1, qa2"):
        chat_messages("qa6", "", "")


def test_the_model_is_given_the_whole_context_or_what_was_retrieved(chosen):
    sample, tokenizer = chosen[0], chosen.books.tokenizer
    (whole,) = question_messages(sample, tokenizer)
    assert f"<text>\n{context_text(sample, tokenizer)}\n</text>" in whole["content"]
    assert all(fact in whole["content"] for fact in FACTS)
    assert "Book " in whole["content"]
    retriever = Retriever(Marked("milk", "garden"), top=2)
    (found,) = question_messages(sample, tokenizer, retriever)
    assert f"<text>\n{FACTS[0]}\n{FACTS[2]}\n</text>" in found["content"]
    assert "Book " not in found["content"]
    assert given_name(None) == "few-shot, whole context"
    assert given_name(retriever) == "few-shot, 2 sentences by mark"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (" office\n", "office"),
        ("<think>\nThe kitchen? No.\n</think>\n\noffice", "office"),
        ("office <think>no</think>", "office <think>no</think>"),
        ("<think>never ends", "<think>never ends"),
    ],
)
def test_what_was_said(text, said):
    assert spoken(text) == said
