"""Simulated stories are v1.2's: forms, words, lengths, questions, answers."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Callable, Iterable

import pytest

from armt_jax.config import ConfigError
from armt_jax.tasks.babilong.babi import Question, babi_folder, load_questions
from armt_jax.tasks.babilong.events import SIMULATED_TASKS, read_event
from armt_jax.tasks.babilong.simulator import Simulator
from armt_jax.tasks.babilong.solver import all_questions, answers

# Questions compared with the 1,000 real ones of a test file.
COMPARED = 4_000
# A distance between 1,000 real and 4,000 simulated questions, five to a story and so not
# independent; between two seeds of the simulator it is as large (see BUILD_NOTES.md).
STATISTICS: dict[str, tuple[Callable[[Question], Iterable[object]], float]] = {
    "facts of a question, in tens": (lambda q: [len(q.facts) // 10], 0.10),
    "answer": (lambda q: [q.answer], 0.08),
    "form of the question": (lambda q: [_form(q.question)], 0.05),
    "form of a fact": (lambda q: [_form(fact) for fact in q.facts], 0.03),
    "event after event": (
        lambda q: [
            (read_event(a).kind, read_event(b).kind)
            for a, b in zip(q.facts, q.facts[1:], strict=False)
        ],
        0.03,
    ),
    "age of the first supporting fact": (
        lambda q: [len(q.facts) - q.supporting[0]],
        0.06,
    ),
    "kinds of the supporting facts": (
        lambda q: [tuple(read_event(q.facts[i]).kind for i in q.supporting)],
        0.05,
    ),
}


@functools.cache
def _form(text: str) -> str:
    return re.sub(
        r"\b(?:Mary|John|Daniel|Sandra|Fred|Bill|Jeff|bathroom|bedroom|garden|hallway|kitchen"
        r"|office|apple|football|milk)\b",
        "_",
        text,
    )


def _distance(left: Iterable[object], right: Iterable[object]) -> float:
    """Total variation distance of two samples: half the sum of |p - q|."""
    a, b = Counter(left), Counter(right)
    of_a, of_b = sum(a.values()), sum(b.values())
    return sum(abs(a[key] / of_a - b[key] / of_b) for key in {*a, *b}) / 2


def _words(questions: Iterable[Question]) -> set[str]:
    texts = (text for q in questions for text in (*q.facts, q.question, q.answer))
    return {word for text in texts for word in text.split(" ")}


@pytest.mark.parametrize("task", SIMULATED_TASKS)
def test_simulated_is_as_real(data_dir, task):
    real = load_questions(babi_folder(data_dir), task, "test")
    simulator = Simulator(task, 0)
    made = [simulator.question(index) for index in range(COMPARED)]
    assert _words(made) == _words(real)
    for name, (values, bound) in STATISTICS.items():
        distance = _distance(
            (v for q in real for v in values(q)), (v for q in made for v in values(q))
        )
        print(f"{task}, {name}: total variation distance {distance:.4f}, at most {bound}")
        assert distance <= bound, name


@pytest.mark.parametrize("task", SIMULATED_TASKS)
def test_the_solver_answers_the_real_test_file(data_dir, task):
    wrong = ambiguous = 0
    for question in load_questions(babi_folder(data_dir), task, "test"):
        right = answers(task, question.facts, question.question)
        ambiguous += len(right) > 1
        if len(right) > 1:
            # "What did X give to Y?", and X gave Y two objects: v1.2 asked about one of them.
            assert task == "qa5"
            assert question.question.startswith("What did ")
            assert question.answer in right
        else:
            wrong += right != (question.answer,)
    assert wrong == 0
    assert ambiguous == (13 if task == "qa5" else 0)


@pytest.mark.parametrize("task", SIMULATED_TASKS)
def test_the_world_agrees_with_the_solver(task):
    for index in range(60):
        for question in Simulator(task, 7).story(index):
            right = answers(task, question.facts, question.question)
            assert question.answer in right
            assert len(right) == 1 or task == "qa5"
            asked = dict(all_questions(task, question.facts))
            assert asked.get(question.question, question.answer) == question.answer
            assert question.question in asked or len(right) > 1


def test_any_question_by_its_number():
    for task in SIMULATED_TASKS:
        simulator = Simulator(task, 3)
        stories = [question for index in range(4) for question in simulator.story(index)]
        assert [simulator.question(i) for i in range(len(stories))] == stories
        assert Simulator(task, 3).question(2) == simulator.question(2)
        assert Simulator(task, 4).story(0) != simulator.story(0)
        assert simulator.story(1) != simulator.story(0)
        assert simulator.question(simulator.num_questions - 1).task == task


def test_what_cannot_be_simulated():
    with pytest.raises(ConfigError, match="task = 'qa6': must be one of qa1, qa2, qa3, qa4, qa5"):
        Simulator("qa6", 0)
    with pytest.raises(ConfigError, match="seed = -1: must be 0 or more"):
        Simulator("qa1", -1)


def test_all_questions_of_a_story():
    facts = (
        "Mary went to the garden.",
        "John moved to the office.",
        "Mary got the milk there.",
        "Mary travelled to the office.",
        "Mary put down the milk.",
        "John picked up the milk there.",
        "John went back to the garden.",
        "Daniel took the apple there.",
    )
    assert dict(all_questions("qa1", facts[:2])) == {
        "Where is Mary? ": "garden",
        "Where is John? ": "office",
    }
    assert dict(all_questions("qa2", facts)) == {"Where is the milk? ": "garden"}
    # The garden was visited twice: what counts is the last time.
    assert dict(all_questions("qa3", facts)) == {
        "Where was the milk before the garden? ": "office",
        "Where was the milk before the office? ": "garden",
    }
    assert answers("qa3", facts, "Where was the milk before the kitchen?") == ()
    with pytest.raises(ConfigError, match=r"is no fact of qa1"):
        all_questions("qa1", facts)
    with pytest.raises(ConfigError, match=r"must be a sentence of bAbI's qa1 to qa5"):
        all_questions("qa1", ["It was a dark night."])


def test_all_questions_of_gifts_and_rooms():
    gifts = (
        "Fred got the milk there.",
        "Fred gave the milk to Bill.",
        "Fred picked up the apple there.",
        "Fred handed the apple to Bill.",
    )
    asked = dict(all_questions("qa5", gifts))
    assert asked["Who gave the milk? "] == asked["Who gave the apple to Bill? "] == "Fred"
    assert asked["Who received the apple? "] == "Bill"
    assert asked["Who did Fred give the milk to? "] == "Bill"
    assert "What did Fred give to Bill? " not in asked
    assert answers("qa5", gifts, "What did Fred give to Bill?") == ("apple", "milk")
    rooms = ("The hallway is east of the bathroom.", "The bedroom is west of the bathroom.")
    assert dict(all_questions("qa4", rooms)) == {
        "What is east of the bathroom?": "hallway",
        "What is the bathroom west of?": "hallway",
        "What is west of the hallway?": "bathroom",
        "What is the hallway east of?": "bathroom",
        "What is west of the bathroom?": "bedroom",
        "What is the bathroom east of?": "bedroom",
        "What is east of the bedroom?": "bathroom",
        "What is the bedroom west of?": "bathroom",
    }
