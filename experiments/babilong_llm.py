r"""Ask any language model behind an OpenAI-compatible endpoint the questions of BABILong.

    OPENAI_API_KEY=... python -m experiments.babilong_llm --base_url=https://api.openai.com/v1 \
        --llm=NAME --tasks=qa1 --lengths=4k,64k --samples=100 [--retrieval=bm25]

The samples are those of our models' evaluation (``--workdir`` names a run whose tokenizer and books
they are made with), as text in a few-shot prompt; with ``--retrieval`` only what is retrieved of
it. Cells go into ``results/babilong_llm_*.json``, where ``experiments.report table1`` finds them
(``--out`` names another folder). Answers are kept in ``--cache`` as they come, so the same command
goes on wherever a run ended.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from absl import flags

from armt_jax.config import ConfigError
from armt_jax.evaluation.babilong_chat import chat_answers, given_name
from armt_jax.evaluation.babilong_prompts import TASK_PROMPTS
from armt_jax.evaluation.babilong_results import (
    Answer,
    BabilongCell,
    cell,
    read_cells,
    write_cells,
)
from armt_jax.evaluation.babilong_retrieval import Retriever
from armt_jax.evaluation.endpoint import Budget, ChatEndpoint, Patience
from armt_jax.evaluation.endpoint_cache import CompletionCache
from armt_jax.evaluation.results import git_commit
from experiments import babilong_retriever, errors
from experiments.babilong_report import print_cells
from experiments.babilong_samples import sample_source
from experiments.command_line import parse_flags
from experiments.shared_flags import OUT

_BASE_URL = flags.DEFINE_string("base_url", None, "Such as https://api.openai.com/v1.")
_MODEL = flags.DEFINE_string("llm", None, "The model's name at the endpoint.")
_PARAMETERS = flags.DEFINE_string(
    "parameters",
    '{"temperature": 0, "max_tokens": 64}',
    "Further fields of a request as JSON; reasoning models need more tokens and other names.",
)
_KEY = flags.DEFINE_string("key_variable", "OPENAI_API_KEY", "Environment variable of the key.")
_TIMEOUT = flags.DEFINE_float("timeout", 300.0, "Seconds without a byte.")
_RETRIES = flags.DEFINE_integer("retries", 6, "Further tries of a question.")
_REQUESTS = flags.DEFINE_integer("request_budget", None, "Requests that this run may send.")
_TOKENS = flags.DEFINE_integer(
    "token_budget", None, "Tokens of prompts and answers that this run may use."
)
_RETRIEVAL = flags.DEFINE_string("retrieval", None, "bm25 or embeddings; without, all is given.")
_UNIT = flags.DEFINE_string("unit", "sentences", "What is retrieved: sentences or chunks.")
_CACHE = flags.DEFINE_string("cache", "runs/babilong_llm", "Folder of the answers.")


def main(argv: list[str]) -> None:
    """Ask, and write a cell for each task and length as soon as it is there."""
    parse_flags(argv)
    endpoint = _endpoint()
    finder = None
    if _RETRIEVAL.value is not None:
        finder = babilong_retriever.retriever(_RETRIEVAL.value, _UNIT.value)
    source = sample_source()
    path = _cells_path(endpoint.model, finder)
    about = {
        "model": endpoint.model,
        "commit": git_commit(),
        **source.about,
        "given": given_name(finder),
    }
    made: list[BabilongCell] = []
    try:
        for _, length, chosen in source.sets(tuple(TASK_PROMPTS)):
            answers = chat_answers(endpoint, chosen, length, finder)
            made += _ask(answers, path, len(chosen), about)
    finally:
        if made:
            print_cells(made, f"{endpoint.model}, {about['given']}")
        spent = endpoint.budget
        print(f"{spent.requests} requests, {spent.tokens:,} tokens", flush=True)


def _ask(
    answers: Iterable[Answer], path: Path, wanted: int, about: dict[str, Any]
) -> list[BabilongCell]:
    """The cell of all answers, also in the file; of those that came where something ends it."""
    got: list[Answer] = []
    try:
        got.extend(answers)
    finally:
        if got:
            one = cell(got, **about)
            _add_cell(path, one)
            print(f"{one.task}, {one.length}: {len(got)} of {wanted} answers", flush=True)
    return [one]


def _add_cell(path: Path, one: BabilongCell) -> None:
    """Into the file, in place of an older one of the same task and length."""
    path.parent.mkdir(parents=True, exist_ok=True)
    known = read_cells(path) if path.is_file() else []
    place = (one.task, one.length)
    write_cells(path, [*(old for old in known if (old.task, old.length) != place), one])


def _endpoint() -> ChatEndpoint:
    if _BASE_URL.value is None or _MODEL.value is None:
        raise ConfigError("--base_url and --llm: must name an endpoint and one of its models")
    try:
        parameters = json.loads(_PARAMETERS.value)
    except ValueError:
        parameters = None
    if not isinstance(parameters, dict):
        raise ConfigError(f"--parameters = {_PARAMETERS.value!r}: must be a JSON object")
    return ChatEndpoint(
        _BASE_URL.value,
        _MODEL.value,
        parameters,
        CompletionCache(_CACHE.value),
        key_variable=_KEY.value,
        patience=Patience(timeout=_TIMEOUT.value, retries=_RETRIES.value),
        budget=Budget(_REQUESTS.value, _TOKENS.value),
    )


def _cells_path(model: str, finder: Retriever | None) -> Path:
    name = model if finder is None else f"{model} {finder.name}"
    return (
        Path(OUT.value or "results") / f"babilong_llm_{re.sub(r'[^A-Za-z0-9.]+', '_', name)}.json"
    )


if __name__ == "__main__":
    sys.exit(errors.run(lambda: main(sys.argv)))
