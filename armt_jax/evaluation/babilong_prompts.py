"""Few-shot prompts for qa1 to qa5, for models that read text and follow instructions.

One message: what the task is, examples, the text, then once more what is wanted, and the question.
The examples are stories of our own; their answers are checked by the symbolic solver (see the
tests), and none is a story of the test files.
"""

from __future__ import annotations

from typing import NamedTuple

from armt_jax.config import ConfigError

_PLACES = "Answer with the name of the place alone, one lower-case word, without a full stop."


class Example(NamedTuple):
    """A short text, a question about it, and its answer."""

    text: str
    question: str
    answer: str


class TaskPrompt(NamedTuple):
    """What is said about one task.

    Attributes:
      description: what the facts are, and how they give the answer.
      wanted: the form of an answer.
      examples: at least two.
    """

    description: str
    wanted: str
    examples: tuple[Example, ...]


TASK_PROMPTS = {
    "qa1": TaskPrompt(
        "The facts say where people go. A person is where the last fact about this person says.",
        _PLACES,
        (
            Example(
                "Daniel moved to the kitchen. Sandra travelled to the garden. "
                "Daniel journeyed to the office. Sandra went to the kitchen.",
                "Where is Daniel?",
                "office",
            ),
            Example(
                "Mary went back to the bedroom. John moved to the hallway.",
                "Where is Mary?",
                "bedroom",
            ),
            Example(
                "Sandra journeyed to the bathroom. Sandra went to the garden. "
                "Mary travelled to the bathroom.",
                "Where is Sandra?",
                "garden",
            ),
        ),
    ),
    "qa2": TaskPrompt(
        "The facts say where people go, what they pick up and what they put down. A thing that is "
        "carried is where its carrier is; a thing that was put down stays where it was put down.",
        _PLACES,
        (
            Example(
                "Sandra got the apple there. Sandra moved to the hallway. John went to the office.",
                "Where is the apple?",
                "hallway",
            ),
            Example(
                "Mary travelled to the kitchen. Mary picked up the football there. "
                "Mary went to the garden. Mary dropped the football. Mary moved to the bedroom.",
                "Where is the football?",
                "garden",
            ),
            Example(
                "Daniel journeyed to the office. John grabbed the milk. "
                "John went back to the bathroom. Daniel went to the bedroom.",
                "Where is the milk?",
                "bathroom",
            ),
        ),
    ),
    "qa3": TaskPrompt(
        "The facts say where people go, what they pick up and what they put down. A thing that is "
        "carried goes wherever its carrier goes. The question asks where a thing was before it "
        "came to the place that the question names.",
        _PLACES,
        (
            Example(
                "John took the milk there. John travelled to the office. "
                "John moved to the garden. John left the milk.",
                "Where was the milk before the garden?",
                "office",
            ),
            Example(
                "Sandra went to the bedroom. Sandra grabbed the apple. Mary moved to the kitchen. "
                "Sandra journeyed to the bathroom. Sandra travelled to the hallway. "
                "Sandra dropped the apple there.",
                "Where was the apple before the bathroom?",
                "bedroom",
            ),
            Example(
                "Daniel moved to the hallway. Daniel got the football. "
                "Daniel went back to the kitchen. John went to the garden.",
                "Where was the football before the kitchen?",
                "hallway",
            ),
        ),
    ),
    "qa4": TaskPrompt(
        "The facts say which place lies north, south, east or west of which other place.",
        _PLACES,
        (
            Example(
                "The office is north of the kitchen. The garden is south of the kitchen. "
                "The hallway is west of the garden.",
                "What is north of the kitchen?",
                "office",
            ),
            Example(
                "The bathroom is east of the hallway. The hallway is east of the bedroom. "
                "The kitchen is north of the bedroom.",
                "What is the hallway east of?",
                "bedroom",
            ),
            Example(
                "The kitchen is west of the office. The office is west of the garden. "
                "The bedroom is south of the kitchen.",
                "What is west of the garden?",
                "office",
            ),
        ),
    ),
    "qa5": TaskPrompt(
        "The facts say where people go, what they pick up and put down, and who gives what to "
        "whom. If several facts fit the question, the last one counts.",
        "Answer with one word, without a full stop: the name of a person with a capital letter, "
        "or of a thing in lower case.",
        (
            Example(
                "Mary went back to the garden. Mary picked up the football there. "
                "Bill journeyed to the garden. Mary gave the football to Bill.",
                "Who received the football?",
                "Bill",
            ),
            Example(
                "Jeff got the milk. Fred moved to the office. Jeff passed the milk to Mary. "
                "Mary handed the milk to Jeff.",
                "What did Mary give to Jeff?",
                "milk",
            ),
            Example(
                "Fred took the apple there. Fred handed the apple to Jeff. "
                "Jeff went to the hallway. Jeff left the apple.",
                "Who gave the apple to Jeff?",
                "Fred",
            ),
        ),
    ),
}


def chat_messages(task: str, text: str, question: str) -> list[dict[str, str]]:
    """The conversation that asks ``question`` about ``text``: one message of the user.

    Args:
      task: ``qa1`` to ``qa5``.
      text: the context, or what was retrieved of it.
      question: as in the file.

    Raises:
      ConfigError: a task without a prompt.
    """
    if task not in TASK_PROMPTS:
        raise ConfigError(f"task = {task!r}: must be one of {', '.join(TASK_PROMPTS)}")
    prompt = TASK_PROMPTS[task]
    parts = [
        "You are given a text in which the sentences of a short story are scattered among "
        "passages of books that have nothing to do with it. Answer the question from the facts "
        f"of the story, in their order. {prompt.description} {prompt.wanted}",
        "Examples, without the passages of books:",
        *(_asked("example", one.text, one.question, one.answer) for one in prompt.examples),
        "The text:",
        f"<text>\n{text}\n</text>",
        "Use only the facts of the story in this text, not those of the examples. "
        f"{prompt.description} {prompt.wanted}",
        f"Question: {question.strip()}\nAnswer:",
    ]
    return [{"role": "user", "content": "\n\n".join(parts)}]


def _asked(tag: str, text: str, question: str, answer: str) -> str:
    return f"<{tag}>\n{text}\nQuestion: {question}\nAnswer: {answer}\n</{tag}>"
