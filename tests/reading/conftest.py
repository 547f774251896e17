"""What several tests of reading share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from absl.testing import flagsaver

from experiments import errors
from tests.reading.cases import make_run


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, to be looked at only: making one takes seconds."""
    folder = tmp_path_factory.mktemp("runs") / "qa1"
    make_run(folder)
    return folder


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Exit code, standard output and error of a command."""

    def call(module: Any, *arguments: object) -> tuple[int, str, str]:
        with flagsaver.flagsaver():
            code = errors.run(lambda: module.main([module.__name__, *map(str, arguments)]))
        out, err = capsys.readouterr()
        return code, out, err

    return call
