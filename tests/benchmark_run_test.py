"""The benchmark command: the file, the table, the list of benchmarks."""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
import sys
from typing import Any

import pytest

from armt_jax import ConfigError
from benchmarks import plan, runner
from benchmarks.plan import GROUPS, Settings, jobs, left_out, parse_groups
from benchmarks.process import Job, run_job
from benchmarks.report import document, read_report, tables, write_report

ROOT = pathlib.Path(__file__).parents[1]
RESULT = {"platform": "cpu", "devices": 2, "seconds": 0.5, "sgemm_flops_per_second": 2e11}


def row(label: str = "reading", **changes: Any) -> dict[str, Any]:
    job = Job("stream", label, ("benchmarks.stream", "--json"), 60.0)
    good = {
        "group": job.group,
        "label": job.label,
        "command": " ".join(["python", "-m", *job.command]),
        "status": "ok",
        "wall_seconds": 1.5,
        "result": RESULT,
        "error": None,
    }
    return {**good, **changes}


def test_the_file_is_read_back(tmp_path: pathlib.Path) -> None:
    rows = [row(), row("other", result={**RESULT, "devices": 4}), row("again")]
    content = document(rows, "abc", {"quick": True})
    path = tmp_path / "deep" / "benchmarks.json"
    write_report(path, content)
    assert read_report(path) == content
    # One machine, shown as two; what is no description stays out.
    assert content["machines"] == [{"platform": "cpu", "devices": n} for n in (2, 4)]
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_report(path, document([row(result={"seconds": float("nan")})], "abc", {}))
    assert read_report(path) == content


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"status": "fine"}, "status = 'fine': must be ok, failed or timeout"),
        ({"wall_seconds": "1"}, "wall_seconds = '1': must be int"),
        ({"result": None}, "must have a result if status = 'ok', else an error"),
        ({"error": "none"}, "must have a result if status = 'ok', else an error"),
        ({"speed": 1}, "speed is unknown"),
    ],
)
def test_a_wrong_row_is_refused(tmp_path: pathlib.Path, change: dict, message: str) -> None:
    path = tmp_path / "benchmarks.json"
    path.write_text(json.dumps(document([row(**change)], "abc", {})))
    with pytest.raises(ConfigError, match=re.escape(message)) as error:
        read_report(path)
    assert "rows[0]" in str(error.value)


@pytest.mark.parametrize(
    "content", ['{"schema": "armt_jax.results"}', "[]", "no", '{"schema": "armt_jax.benchmarks"}']
)
def test_another_file_is_not_replaced(tmp_path: pathlib.Path, content: str) -> None:
    path = tmp_path / "benchmarks.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"benchmarks\.json: "):
        write_report(path, document([], "abc", {}))
    assert path.read_text() == content


def test_table() -> None:
    stream = {
        "tokens_per_second": 1234.5,
        "sgemm_share": 0.5,
        "sgemm_flops_per_second": 2e11,
        "peak_memory_bytes": 2**30,
    }
    inner = [
        {"schedule": "sequential", "seconds": 2.0, "against_first": 1.0},
        {"schedule": "diagonal", "left_out": "needs 9.0 GiB"},
    ]
    rows = [
        row(result=stream),
        row("broken", status="failed", result=None, error="a|b"),
        row("schedules", result={"rows": inner}),
    ]
    assert tables(rows).splitlines() == [
        "| benchmark | measured | share of sgemm | sgemm, GFLOP/s | peak memory | compiling |",
        "| :--- | ---: | ---: | ---: | ---: | ---: |",
        "| reading | 1,234 tokens/s | 50 % | 200 | 1.00 GiB | - |",
        "| broken | failed: a/b | - | - | - | - |",
        "| schedules | see below | - | - | - | - |",
        "",
        "schedules",
        "",
        "| schedule | seconds | times the first's |",
        "| :--- | ---: | ---: |",
        "| sequential | 2 | 1.00 |",
        "| diagonal (needs 9.0 GiB) | - | - |",
    ]


def test_what_is_measured_is_kept(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A failure does not stop the others; an interruption leaves what was measured."""
    todo = [Job("stream", name, ("benchmarks.stream",), 1.0) for name in ("a", "b", "c")]

    def run(job: Job) -> dict[str, Any]:
        if job.label == "a":
            return row("a", status="failed", result=None, error="out of memory")
        return row(job.label)

    monkeypatch.setattr(runner, "run_job", run)
    assert runner.run_all(todo, tmp_path, {}, ["long texts"]) == 1
    captured = capsys.readouterr()
    last = json.loads(captured.out.splitlines()[-1])
    path = tmp_path / "benchmarks.json"
    assert last == {"file": str(path), "benchmarks": 3, "failed": 1}
    assert "| a | failed: out of memory |" in captured.out
    assert "left out: long texts" in captured.out
    assert "[2/3] b ..." in captured.err
    assert [r["label"] for r in read_report(path)["rows"]] == ["a", "b", "c"]
    assert runner.run_all(todo[1:], tmp_path, {}, json_only=True) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1

    def interrupted(job: Job) -> dict[str, Any]:
        if job.label == "b":
            raise KeyboardInterrupt
        return run(job)

    monkeypatch.setattr(runner, "run_job", interrupted)
    with pytest.raises(KeyboardInterrupt):
        runner.run_all(todo, tmp_path, {})
    assert [r["label"] for r in read_report(path)["rows"]] == ["a"]


def test_groups() -> None:
    assert parse_groups([]) == list(GROUPS)
    assert parse_groups(["memory", "train"]) == ["train", "memory"]
    with pytest.raises(ConfigError, match=r"only = 'speed': must be of machine, train, stream"):
        parse_groups(["speed"])
    changes: list[dict[str, Any]] = [
        {"memory_segments": (1,)},
        {"train_segments": (0,)},
        {"timeout": 0.0},
    ]
    for change in changes:
        with pytest.raises(ConfigError, match=next(iter(change))):
            Settings(quick=False, **change)


def test_every_group_has_benchmarks_and_what_is_left_out_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plan, "has_torch", lambda: True)
    quick, full = Settings(quick=True), Settings(quick=False, train_segments=(2,))
    for settings in (quick, full):
        found = [job.group for job in jobs(settings, GROUPS)]
        assert set(found) == set(GROUPS)
        assert {job.group for job in jobs(settings, ["stream"])} == {"stream"}
    assert "long texts" in left_out(quick, GROUPS)[0]
    assert any("--train_segments" in words for words in left_out(full, GROUPS))
    assert not any("--train_segments" in words for words in left_out(full, ["stream"]))


def test_pytorch_is_left_out_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for quick in (True, False):
        settings = Settings(quick=quick)
        monkeypatch.setattr(plan, "has_torch", lambda: True)
        assert not any("pip install" in words for words in left_out(settings, GROUPS))
        monkeypatch.setattr(plan, "has_torch", lambda: False)
        assert {job.group for job in jobs(settings, GROUPS)} == set(GROUPS) - {"torch"}
        assert any("pip install torch" in words for words in left_out(settings, GROUPS))
        assert not any("pip install" in words for words in left_out(settings, ["stream"]))
        # Asked for alone, it is run and says what is missing.
        assert {job.group for job in jobs(settings, ["torch"])} == {"torch"}


@pytest.mark.parametrize("quick", [False, True])
def test_commands_name_flags_that_there_are(monkeypatch: pytest.MonkeyPatch, quick: bool) -> None:
    monkeypatch.setattr(plan, "has_torch", lambda: True)
    for job in jobs(Settings(quick=quick), GROUPS):
        module, *options = job.command
        source = (ROOT / (module.replace(".", "/") + ".py")).read_text()
        defined = set(re.findall(r'DEFINE_\w+\(\s*"(\w+)"', source))
        used = {option.removeprefix("--").partition("=")[0] for option in options}
        assert used <= defined, job.command


@pytest.mark.slow
def test_a_real_run(tmp_path: pathlib.Path) -> None:
    """Machine and schedules of the tiny case, as the command runs them; and one that fails."""
    schedules = ("benchmarks.schedules", "--case=tiny", "--segments=3", "--rounds=1", "--json")
    todo = [
        Job("schedules", "tiny", (*schedules, "--cpu_devices=1"), 250.0),
        Job("schedules", "no such case", ("benchmarks.schedules", "--case=vast"), 250.0),
    ]
    assert runner.run_all(todo, tmp_path, {"quick": True}) == 1
    good, bad = read_report(tmp_path / "benchmarks.json")["rows"]
    assert good["error"] is None
    names = ["sequential", "chunked", "diagonal", "sequential, layers apart"]
    assert [r["schedule"] for r in good["result"]["rows"]] == names
    for r in good["result"]["rows"]:
        assert r["seconds"] > 0
        assert r["sgemm_share"] > 0
        assert 0 <= r["difference"] <= 1e-3
    assert good["result"]["peak_memory_bytes"] > 2**20
    assert bad["error"].startswith("error: case = 'vast': must be one of tiny, ")


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ("benchmarks.machine",),
        ("benchmarks.schedules", "--case=tiny", "--mode=train", "--rounds=1"),
        ("benchmarks.pipeline", "--case=tiny", "--segments=2,4", "--rounds=1"),
        ("benchmarks.compile_time", "--case=tiny", "--calls=1"),
        (
            *("benchmarks.train_step", "--model=gpt2_small", "--segment=4"),
            *("--pairs=1", "--batch=1", "--steps=1"),
        ),
    ],
    ids=lambda command: command[0],
)
def test_the_other_benchmarks_run(command: tuple[str, ...]) -> None:
    found = run_job(Job("any", "any", (*command, "--json"), 280.0))
    assert found["error"] is None
    assert found["result"]["sgemm_flops_per_second"] > 0
    assert found["result"]["peak_memory_bytes"] > 2**20


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--only=speed", "error: only = 'speed': must be of machine"),
        ("--train_segments=few", "error: train_segments = few: must be numbers"),
    ],
)
def test_a_wrong_setting_is_one_line(flag: str, message: str, tmp_path: pathlib.Path) -> None:
    command = [sys.executable, "-m", "benchmarks.run", flag, f"--out={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(message)
    assert not list(tmp_path.iterdir())
