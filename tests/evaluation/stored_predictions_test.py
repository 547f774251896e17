"""Stored answers of others: files, scores that are known, and the command."""

from __future__ import annotations

import pytest
from absl.testing import flagsaver

from armt_jax.config import ConfigError
from armt_jax.evaluation.babilong_metric import TASK_LABELS
from armt_jax.evaluation.babilong_results import read_cells
from armt_jax.evaluation.stored_predictions import KNOWN_SCORES, read_predictions
from experiments import babilong_scores

MODEL = "gemini-3-flash-preview"
HEADER = ",target,output,question\n"


def write(folder, name, *rows, header=HEADER):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(header + "".join(f"{row}\n" for row in rows))


def score(folder, out=None):
    with flagsaver.flagsaver(predictions=str(folder), out=out):
        babilong_scores.main(["babilong_scores"])


def test_stored_answers_score_what_is_known(data_dir, tmp_path, capsys):
    folder = data_dir / "babilong" / "predictions" / MODEL
    score(folder, str(tmp_path / "babilong_stored.json"))
    wanted = len(KNOWN_SCORES[MODEL]) * len(TASK_LABELS)
    assert f"{wanted} of 55 scores are known, all of them agree" in capsys.readouterr().out
    cells = read_cells(tmp_path / "babilong_stored.json")
    (one,) = (c for c in cells if (c.task, c.length) == ("qa2", "1M"))
    assert (one.label_correct, one.samples, one.given) == (28, 100, "stored answers")


def test_a_wrong_score_is_an_error(tmp_path):
    rows = [f"{i},office,The office.,Where is Mary? " for i in range(75)]
    rows += [f"{i},office,The garden.,Where is Mary? " for i in range(75, 100)]
    folder = tmp_path / MODEL
    write(folder, "qa1_64k_x.csv", *rows)
    score(folder)  # 75 of 100
    write(folder, "qa1_64k_x.csv", *rows[1:], "99,office,The garden.,Where is Mary? ")
    with pytest.raises(ConfigError, match=r"qa1, 64k: 74\.0 %, known 75 %"):
        score(folder)


def test_an_unknown_model_is_scored_and_bad_files_are_named(tmp_path, capsys):
    folder = tmp_path / "other"
    write(folder, "qa1_4k_x.csv", "0,office,office,Where is Mary? ")
    write(folder, "notes.csv", "nothing")
    score(folder)
    assert "0 of 1 scores are known" in capsys.readouterr().out
    (answers,) = read_predictions(folder)
    assert (answers[0].task, answers[0].length, answers[0].output) == ("qa1", "4k", "office")
    write(folder, "qa1_4k_y.csv", "0,office,office,Where is Mary? ")
    with pytest.raises(ConfigError, match=r"is of the task and length of qa1_4k_x\.csv"):
        score(folder)
    (folder / "qa1_4k_y.csv").unlink()
    write(folder, "qa1_4k_x.csv", "0,office,office,Where is Mary? ", "1,office,off")
    with pytest.raises(ConfigError, match="answer 2: has not all columns"):
        score(folder)
    write(folder, "qa1_4k_x.csv", "0,office", header="id,target\n")
    with pytest.raises(ConfigError, match="with the columns target, output, question"):
        score(folder)
    write(folder, "qa1_4k_x.csv")
    with pytest.raises(ConfigError, match="has no answers"):
        score(folder)
    with pytest.raises(ConfigError, match="must be a folder of predictions"):
        score(tmp_path / "none")
