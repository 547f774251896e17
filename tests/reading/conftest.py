"""What several tests of reading share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reading.cases import make_run


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, to be looked at only: making one takes seconds."""
    folder = tmp_path_factory.mktemp("runs") / "qa1"
    make_run(folder)
    return folder
