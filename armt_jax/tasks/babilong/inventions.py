"""Which facts are invented for a task, and how long its questions get."""

from __future__ import annotations

import functools

from armt_jax.config.babilong import INVENTED_DIFFICULTIES
from armt_jax.tasks.babilong.invented import Invention, invented_moves, sentence_forms
from armt_jax.tasks.babilong.invented_carrying import carrying_forms, invented_carrying
from armt_jax.tasks.babilong.invented_gifts import gift_forms, invented_gifts
from armt_jax.tasks.babilong.invented_relations import invented_relations, relation_forms
from armt_jax.tasks.babilong.tokenizers import BabilongTokenizer

# GEN, an answer of one token, end.
_ANSWER = 3
_OTHERS = {
    "qa2": invented_carrying,
    "qa3": functools.partial(invented_carrying, history=True),
    "qa4": invented_relations,
    "qa5": invented_gifts,
}


def invention(task: str, difficulty: int) -> Invention:
    """What makes up the facts of ``task``; moves, where the task has nothing of its own."""
    if task in INVENTED_DIFFICULTIES:
        return functools.partial(_OTHERS[task], difficulty)
    return invented_moves


def longest_query(task: str, tokenizer: BabilongTokenizer, names: int) -> int:
    """Tokens of the longest question about invented facts with GEN, answer and end.

    Raises:
      ConfigError: see the forms of the invention.
    """
    if task in ("qa2", "qa3"):
        carrying = carrying_forms(tokenizer, names, task == "qa3")
        questions = [form.ids for form in carrying.questions]
    elif task == "qa4":
        relations = relation_forms(tokenizer, names)
        asked = (*relations.what.values(), *relations.of_what.values())
        questions = [form.ids for form in asked]
    elif task == "qa5":
        questions = [form.ids for form in gift_forms(tokenizer, names).questions]
    else:
        questions = [sentence_forms(tokenizer, names).question]
    return max(map(len, questions)) + _ANSWER
