"""Which code computed a number: a hash of what trains and evaluates, comments left out.

A commit says more and less: it changes with every word of documentation, and says nothing of a
working tree that differs from it. Two results of one code version came from the same program.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
# What a number of associative retrieval depends on besides the settings, which are kept with it.
PARTS = (
    "memory/*.py",
    "models/**/*.py",
    "state_space/*.py",
    "recurrence/*.py",
    "tasks/*.py",
    "training/*.py",
    "evaluation/capacity.py",
    "evaluation/evaluate.py",
    "evaluation/exact_match.py",
    "evaluation/intervals.py",
    "evaluation/scoring.py",
)
_WITH_DOCSTRING = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@functools.cache
def code_version(root: Path = _ROOT) -> str:
    """12 hexadecimal digits of the files of ``PARTS`` under ``root``, read as Python reads them.

    Comments, docstrings and layout do not count. Python's own reading differs a little from one
    minor version to the next, so the digits do too.
    """
    digest = hashlib.sha256()
    for path in sorted({path for part in PARTS for path in root.glob(part)}):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0")
        digest.update(_meaning(path.read_text(encoding="utf-8")).encode() + b"\0")
    return digest.hexdigest()[:12]


def _meaning(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, _WITH_DOCSTRING) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)
