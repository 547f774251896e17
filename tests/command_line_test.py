"""What a wrong command line says: one line that names the field, the value, what is accepted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from armt_jax.config import ConfigError
from experiments.command_line import load_config, parse_flags

ROOT = Path(__file__).parent.parent
CONFIG = f"--config={ROOT / 'configs' / 'ar_remember.py'}"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([f"{CONFIG}:huge"], ["variant", "'huge'", "quickstart"]),
        ([CONFIG, "--config.foo=1"], ["config.foo", "curriculum"]),
        ([CONFIG, "--config.train.batch_sise=1"], ["config.train.batch_sise", "batch_size"]),
        ([CONFIG, "--config.train.batch_size=many"], ["config.train.batch_size", "'many'", "int"]),
        ([CONFIG, "--config.train.batch_size", "1.5"], ["config.train.batch_size", "1.5", "int"]),
        ([CONFIG, "--config.seed.deep=1"], ["config.seed.deep", "is a value"]),
        ([CONFIG, "--config.model=3"], ["config.model", "config.model.rule"]),
        (["--config=configs/none.py"], ["configs/none.py", "configs/ar_remember.py"]),
        (["--config=LICENSE"], ["LICENSE", "configs/ar_remember.py"]),
        ([f"--config={__file__}"], ["command_line_test.py", "get_config"]),
        (["--no-such-flag=1"], ["no-such-flag"]),
        (["train"], ["'train'", "--name=value"]),
    ],
)
def test_a_wrong_command_line_is_one_clear_line(arguments: list[str], named: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_flags(["main", *arguments])
    message = str(caught.value)
    assert "\n" not in message
    assert "Traceback" not in message
    for part in named:
        assert part in message


def test_a_variant_is_loaded() -> None:
    config = load_config(f"{ROOT}/configs/ar_remember.py:quickstart").to_dict()
    assert config["task"]["num_pairs"] == 15


@pytest.mark.parametrize(
    ("command", "words", "flag"),
    [
        ("main", "Train and evaluate one experiment.", "--config: Experiment: a file of configs/"),
        ("report", "Tables and figures of the paper", "--results: Folder of the results."),
    ],
)
def test_help_is_the_command_s_own_words_and_its_flags(command: str, words: str, flag: str) -> None:
    whole = [sys.executable, "-m", f"experiments.{command}", "--help"]
    process = subprocess.run(whole, cwd=ROOT, capture_output=True, text=True, check=False)
    assert words in process.stdout
    assert flag in process.stdout
    assert process.stderr == ""


def test_every_command_parses_its_flags_so() -> None:
    texts = {path.stem: path.read_text() for path in (ROOT / "experiments").glob("*.py")}
    commands = {name for name, text in texts.items() if "__main__" in text}
    assert {"main", "report", "ask"} <= commands
    assert [name for name in commands if "parse_flags(argv" not in texts[name]] == []


def test_names_are_taken_where_a_command_has_some() -> None:
    assert parse_flags(["report", "fig3", "table1"], names=True) == ["fig3", "table1"]
