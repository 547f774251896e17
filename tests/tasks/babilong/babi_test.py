"""bAbI's files: what is read, and what a file that is wrong says."""

from __future__ import annotations

import pytest

from armt_jax.config import ConfigError
from armt_jax.tasks.babilong.babi import (
    TASKS,
    Question,
    babi_folder,
    load_questions,
    read_questions,
)

STORY = """1 Mary went to the garden.
2 John moved to the office.
3 Where is Mary? \tgarden\t1
4 Mary got the milk there.
5 Where is the milk? \tgarden\t4 1
1 John moved to the hallway.
2 Where is John? \thallway\t1
"""


def test_questions_have_the_facts_before_them_and_no_questions(tmp_path):
    path = tmp_path / "story.txt"
    path.write_text(STORY)
    first, second, third = read_questions(path, "qa2")
    assert first == Question(
        ("Mary went to the garden.", "John moved to the office."),
        "Where is Mary? ",
        "garden",
        "qa2",
        (0,),
    )
    assert second.facts == (*first.facts, "Mary got the milk there.")
    assert second.supporting == (2, 0)
    assert third.facts == ("John moved to the hallway.",)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("Mary went to the garden.", "is not 'ID text'"),
        ("9 Mary went to the garden.", "id 9 follows 7; ids count from 1"),
        ("8 Where is Mary? \tgarden", "a question must be"),
        ("8 Where is Mary? \t\t1", "a question must be"),
        ("8 Where is Mary? \tgarden\t3", "supporting ids '3' must name earlier facts"),
        ("8 Where is Mary? \tgarden\tone", "supporting ids 'one' must name earlier facts"),
        ("", "is not 'ID text'"),
    ],
)
def test_a_malformed_line_is_one_error_with_file_and_line(tmp_path, line, says):
    path = tmp_path / "story.txt"
    head = "1 A.\n2 B.\n3 Q? \ta\t1\n4 C.\n5 D.\n6 E.\n7 F.\n"
    path.write_text(f"{head}{line}\n8 G.\n")
    with pytest.raises(ConfigError) as error:
        read_questions(path, "qa1")
    assert str(error.value).startswith(f"{path}, line 8: ")
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_are_missing_or_cut_short(tmp_path):
    with pytest.raises(ConfigError, match=r"no such file; bAbI tasks v1\.2"):
        load_questions(tmp_path, "qa1", "test")
    path = tmp_path / "qa1_single-supporting-fact_test.txt"
    path.write_text(STORY)
    with pytest.raises(ConfigError, match="3 questions, must be 1000: cut short"):
        load_questions(tmp_path, "qa1", "test")
    assert len(load_questions(tmp_path, "qa1", "test", num_questions=3)) == 3
    path.write_text("1 Mary went to the garden.\n")
    with pytest.raises(ConfigError, match="ends without a question"):
        load_questions(tmp_path, "qa1", "test")
    path.write_bytes(b"\xff\xfe1 Mary")
    with pytest.raises(ConfigError, match="cannot be read as text"):
        load_questions(tmp_path, "qa1", "test")
    with pytest.raises(ConfigError, match="task = 'qa21': must be one of qa1, "):
        load_questions(tmp_path, "qa21", "test")
    with pytest.raises(ConfigError, match="split = 'valid': must be one of train, test"):
        load_questions(tmp_path, "qa1", "valid")


def test_every_real_test_file_is_read(data_dir):
    for task in TASKS:
        questions = load_questions(babi_folder(data_dir), task, "test")
        assert len(questions) == 1_000
        for question in questions:
            assert question.facts or task == "qa16"
            assert all(0 <= i < len(question.facts) for i in question.supporting)
