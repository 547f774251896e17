"""Result rows, their file (round trip, versions, atomicity), the commit, and the tables."""

import io
import json
import os
import subprocess
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from armt_jax.config import ConfigError
from armt_jax.evaluation import results
from armt_jax.evaluation.results import (
    git_commit,
    read_results,
    result_row,
    update_results,
    write_results,
)
from armt_jax.evaluation.tables import markdown_summary, markdown_table, print_table


def make_row(**changes):
    values = {
        "variant": "remember",
        "model": "armt-gpt2",
        "rule": "armt",
        "num_params": 512_000,
        "num_pairs": 50,
        "key_size": 2,
        "value_size": 1,
        "samples": 1000,
        "correct": 700,
        "seed": 0,
        "step": 12_000,
        "commit": "abc",
    }
    return result_row(**(values | changes))


def test_row_derives_exact_match_capacity_and_intervals():
    row = make_row()
    assert row.exact_match == 0.7
    assert row.exact_match_low == pytest.approx(0.67088, abs=1e-5)
    assert row.exact_match_high == pytest.approx(0.72759, abs=1e-5)
    assert row.capacity == pytest.approx(34.0)
    assert row.capacity_low == pytest.approx(50 * (16 * row.exact_match_low - 1) / 15)
    assert row.capacity_high == pytest.approx(50 * (16 * row.exact_match_high - 1) / 15)


def test_rewrite_has_no_capacity():
    row = make_row(variant="rewrite")
    assert (row.capacity, row.capacity_low, row.capacity_high) == (None, None, None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variant": "forget"}, "variant = 'forget': must be one of remember, rewrite"),
        ({"correct": 1001}, "correct = 1001"),
        ({"samples": 0, "correct": 0}, "total = 0"),
        ({"num_pairs": 0}, "num_pairs = 0: must be at least 1"),
        ({"num_params": 0}, "num_params = 0: must be at least 1"),
        ({"step": 1.5}, "step = 1.5: must be an integer"),
    ],
)
def test_impossible_rows_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        make_row(**changes)


def test_round_trip(tmp_path):
    path = tmp_path / "results.json"
    rows = [make_row(), make_row(variant="rewrite", key_size=1, seed=1), make_row(correct=1000)]
    write_results(path, rows)
    assert read_results(path) == rows
    assert read_results(path, path) == rows + rows
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


def test_counts_of_numpy_and_jax_are_written(tmp_path):
    row = make_row(correct=jnp.asarray(700), num_pairs=np.int64(50))
    write_results(tmp_path / "r.json", [row])
    assert read_results(tmp_path / "r.json") == [make_row()]


def test_update_adds_rows_and_replaces_a_repeated_measurement(tmp_path):
    path = tmp_path / "results.json"
    update_results(path, [make_row(), make_row(num_pairs=100)])
    rows = update_results(path, [make_row(correct=900), make_row(step=13_000)])
    assert rows == read_results(path)
    assert [(row.num_pairs, row.correct, row.step) for row in rows] == [
        (50, 900, 12_000),
        (100, 700, 12_000),
        (50, 700, 13_000),
    ]
    rows = update_results(path, [make_row(num_pairs=10)])
    assert [(row.num_pairs, row.step) for row in rows] == [
        (10, 12_000),
        (50, 12_000),
        (100, 12_000),
        (50, 13_000),
    ]


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_schema_version_is_never_read_mixed_or_overwritten(tmp_path, version):
    ours, other = tmp_path / "ours.json", tmp_path / "other.json"
    write_results(ours, [make_row()])
    other.write_text(json.dumps(json.loads(ours.read_text()) | {"schema_version": version}))
    before = other.read_bytes()
    for action in (
        lambda: read_results(other),
        lambda: read_results(ours, other),
        lambda: write_results(other, [make_row()]),
        lambda: update_results(other, [make_row()]),
    ):
        with pytest.raises(ConfigError, match=rf"other.json: schema_version = {version!r}: must"):
            action()
    assert other.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"rows": []}', b"\xff\xfe\x00"])
def test_a_foreign_file_is_refused_and_kept(tmp_path, content):
    path = tmp_path / "notes.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"notes.json: not a results file"):
        write_results(path, [make_row()])
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"correct": 701}, r"rows\[0\].exact_match = 0.7: must be correct / samples"),
        ({"samples": "1000"}, r"rows\[0\].samples = '1000': must be int"),
        ({"seed": True}, r"rows\[0\].seed = True: must be int"),
        ({"capacity": "34"}, r"rows\[0\].capacity = '34'"),
        ({"variant": "forget"}, r"rows\[0\].variant = 'forget'"),
        ({"extra": 1}, r"rows\[0\].extra is an unknown field"),
        ({"step": ...}, r"rows\[0\].step is missing"),
    ],
)
def test_a_damaged_row_is_named(tmp_path, changes, message):
    path = tmp_path / "results.json"
    write_results(path, [make_row()])
    content = json.loads(path.read_text())
    content["rows"][0].update(changes)
    content["rows"][0] = {k: v for k, v in content["rows"][0].items() if v is not ...}
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=message):
        read_results(path)


def test_rows_that_are_no_list_are_refused(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"schema": results.SCHEMA, "schema_version": 1, "rows": {}}))
    with pytest.raises(ConfigError, match="rows must be a list"):
        read_results(path)


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    write_results(path, [make_row()])
    before = path.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="nothing was changed: No space left") as error:
        write_results(path, [make_row(), make_row(seed=1)])
    assert error.value.errno == 28
    assert error.value.filename == str(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


def test_a_missing_folder_is_named(tmp_path):
    path = tmp_path / "none" / "results.json"
    with pytest.raises(FileNotFoundError, match=r"results\.json"):
        write_results(path, [make_row()])


def run_git(folder: Path, *arguments: str) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return done.stdout.strip()


def test_git_commit_of_a_tracked_file(tmp_path, monkeypatch):
    code, other = tmp_path / "code.py", tmp_path / "other.py"
    code.write_text("1")
    run_git(tmp_path, "init", "-q")
    assert git_commit(code) == "unknown"
    run_git(tmp_path, "add", "code.py")
    assert git_commit(code) == "unknown"  # nothing committed yet
    run_git(tmp_path, "commit", "-qm", "first")
    commit = run_git(tmp_path, "rev-parse", "HEAD")
    assert len(commit) == 40
    other.write_text("untracked")
    assert git_commit(code) == commit
    assert git_commit(other) == "unknown"
    # A git hook of another repository is running.
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    assert git_commit(code) == commit
    code.write_text("2")
    assert git_commit(code) == f"{commit}-dirty"


def test_git_commit_without_git(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_commit() == "unknown"


def test_markdown_table_has_every_row_and_column():
    rows = [make_row(num_pairs=200), make_row(), make_row(variant="rewrite", model="a|b")]
    lines = markdown_table(rows).splitlines()
    assert len(lines) == 5
    assert [line.replace("\\|", "").count("|") for line in lines] == [13] * 5
    assert "70.00 [67.09, 72.76]" in lines[2]
    assert "34.0 [32.4, 35.5]" in lines[2]
    assert "| 200 |" in lines[3]
    assert "a\\|b" in lines[4]
    assert "| - |" in lines[4]


def test_summary_puts_rules_side_by_side_and_seeds_together():
    rows = [
        make_row(variant="rewrite", rule=rule, seed=seed, num_pairs=pairs, correct=correct)
        for rule, pairs, correct, seeds in (
            ("armt", 50, 1000, 3),
            ("delta", 50, 990, 1),
            ("delta", 500, 900, 3),
        )
        for seed in range(seeds)
    ]
    lines = markdown_summary(rows, "rewrite").splitlines()
    assert lines[0] == "| updates | armt | delta |"
    # No spread between the seeds, yet 3,000 of 3,000 is not proof of 100 %.
    assert lines[2] == "| 50 | 100.00 [99.87, 100.00], 3 seeds | 99.00 [98.17, 99.46] |"
    assert lines[3] == "| 500 | - | 90.00 [88.87, 91.02], 3 seeds |"


def test_terminal_table_fits_and_tells_common_columns_once():
    rows = [make_row(rule=rule, num_pairs=n) for rule in ("armt", "[red]") for n in (50, 100)]
    text = io.StringIO()
    print_table(rows, title="a run", console=Console(file=text, width=80))
    shown = text.getvalue()
    assert "a run" in shown
    assert shown.count("[red]") == 2
    assert shown.count("armt-gpt2") == 1
    assert "70.00 [67.09, 72.76]" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_terminal_table_drops_the_capacity_of_rewrite():
    text = io.StringIO()
    print_table([make_row(variant="rewrite")], console=Console(file=text, width=80))
    assert "stored pairs" not in text.getvalue()
