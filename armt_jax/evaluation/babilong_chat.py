"""BABILong's questions for a language model behind an endpoint."""

from __future__ import annotations

import re
from collections.abc import Iterator

from armt_jax.evaluation.babilong_prompts import chat_messages
from armt_jax.evaluation.babilong_results import Answer
from armt_jax.evaluation.babilong_retrieval import Retriever
from armt_jax.evaluation.endpoint import ChatEndpoint
from armt_jax.tasks.babilong.evaluation_sets import EvaluationSet
from armt_jax.tasks.babilong.frozen import set_name
from armt_jax.tasks.babilong.passages import context_text
from armt_jax.tasks.babilong.sample import BabilongSample
from armt_jax.tasks.babilong.tokenizers import BabilongTokenizer

_THOUGHT = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)


def given_name(retriever: Retriever | None) -> str:
    """What the model is given, for tables: ``few-shot, whole context``."""
    return f"few-shot, {'whole context' if retriever is None else retriever.name}"


def question_messages(
    sample: BabilongSample, tokenizer: BabilongTokenizer, retriever: Retriever | None = None
) -> list[dict[str, str]]:
    """The conversation about one sample: its whole context, or what ``retriever`` finds in it."""
    question = sample.question
    if retriever is None:
        text = context_text(sample, tokenizer)
    else:
        text = "\n".join(one.text.strip() for one in retriever.find(sample, tokenizer))
    return chat_messages(question.task, text, question.question)


def chat_answers(
    endpoint: ChatEndpoint,
    chosen: EvaluationSet,
    length: str,
    retriever: Retriever | None = None,
) -> Iterator[Answer]:
    """The answers to a set, one by one in its order: who stops early has the first ones.

    Raises:
      EndpointError: see ``ChatEndpoint.complete``; answers that were given stay in its cache.
    """
    name = set_name(chosen)
    for index, id_ in enumerate(chosen.ids):
        sample = chosen[index]
        messages = question_messages(sample, chosen.books.tokenizer, retriever)
        yield Answer(
            task=sample.question.task,
            length=length,
            set=name,
            id=id_,
            question=sample.question.question,
            target=sample.question.answer,
            output=spoken(endpoint.complete(messages).text),
            step=None,
        )


def spoken(text: str) -> str:
    """An answer without blanks around it and without what the model thought before it.

    Reasoning models behind servers that leave their thoughts in begin with ``<think>...</think>``.
    """
    return _THOUGHT.sub("", text).strip()
