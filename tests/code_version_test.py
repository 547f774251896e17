"""A result's version of the code: changed by what computes numbers, and by nothing else."""

from __future__ import annotations

from pathlib import Path

import armt_jax
from armt_jax.evaluation.code_version import PARTS, code_version

SOURCE = '''"""What it does."""


def double(x):
    """Twice ``x``."""
    return 2 * x
'''


def version(root: Path, name: str, source: str) -> str:
    folder = root / f"{len(list(root.iterdir()))}"
    path = folder / name
    path.parent.mkdir(parents=True)
    path.write_text(source)
    return code_version(folder)


def test_words_and_layout_do_not_count(tmp_path: Path) -> None:
    first = version(tmp_path, "memory/rules.py", SOURCE)
    other = SOURCE.replace("Twice ``x``.", "``x`` and again ``x``.").replace("\n\n\n", "\n# why\n")
    assert version(tmp_path, "memory/rules.py", other) == first
    assert len(first) == 12


def test_code_and_its_place_count(tmp_path: Path) -> None:
    versions = {
        version(tmp_path, "memory/rules.py", SOURCE),
        version(tmp_path, "memory/rules.py", SOURCE.replace("2 *", "3 *")),
        version(tmp_path, "models/rules.py", SOURCE),
        version(tmp_path, "models/inner/rules.py", SOURCE),
    }
    assert len(versions) == 4
    # No part of what computes a number.
    outside = {version(tmp_path, "evaluation/tables.py", text) for text in (SOURCE, "x = 1\n")}
    assert len(outside) == 1


def test_every_part_is_there() -> None:
    root = Path(armt_jax.__file__).parent
    assert all(list(root.glob(part)) for part in PARTS)
    assert code_version() == code_version(root)
