"""Runs of language modelling as models that read, and ``experiments.generate``."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from armt_jax.config import LanguageModellingExperiment, from_config_dict
from armt_jax.generation import generate as generate_ids
from armt_jax.models import create_model
from armt_jax.reading import Memory, PlainForm, load_reading_model, save_checkpoint
from armt_jax.tasks.babilong.tokenizers import train_tokenizer
from armt_jax.training.checkpoints import Checkpoints
from armt_jax.training.state import create_state
from armt_jax.training.workdir import Workdir
from armt_jax.tuning import merge_lora, tuned_model, tuned_optimizer
from configs import wikitext
from experiments import ask, generate
from tests.reading.cases import bits
from tests.small_models import lively_params

TEXT = "the river runs under old stones and cold light , the river runs on . "


def make_run(
    folder: Path, trains: str = "all", dataset: str | None = None
) -> LanguageModellingExperiment:
    """The folder of a run as a training leaves it; segments of 8 tokens."""
    plain: dict[str, Any] = wikitext.get_config("tiny").to_dict() | {"workdir": str(folder)}
    plain["model"] |= {"d_model": 8, "d_ff": 8, "d_mem": 2, "vocab_size": 300, "n_head": 2}
    plain["task"] |= {"segment_size": 8, "dataset": dataset or str(folder.parent / "words")}
    plain["tuning"] |= {"trains": trains, "lora_targets": r"layers\.block\.mlp\..*"}
    config = from_config_dict(plain)
    assert isinstance(config, LanguageModellingExperiment)
    model = tuned_model(config.model, config.tuning)
    optimizer = tuned_optimizer(config.optimizer, config.tuning)
    with Workdir(config) as workdir:
        train_tokenizer([TEXT * 4], 300).save(folder / "tokenizer.json")
        state = create_state(model, optimizer, 0)
        state = state._replace(params=lively_params(model))
        Checkpoints(workdir.checkpoints).save(5, state, {}, None)
    return config


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """To be looked at only."""
    folder = tmp_path_factory.mktemp("runs") / "text"
    make_run(folder)
    return folder


def test_an_exported_folder_is_the_run(run: Path, tmp_path: Path) -> None:
    trained = load_reading_model(run)
    assert isinstance(trained.form, PlainForm)
    assert (trained.segment_size, trained.form.stop_token) == (8, "<|endoftext|>")
    written = save_checkpoint(tmp_path / "small", run)
    small = load_reading_model(tmp_path / "small")
    assert bits(small.params) == bits(trained.params) == bits(written.params)
    assert small.form.fingerprint == trained.form.fingerprint
    assert small.model.config == trained.model.config
    answers = Memory(trained).read(TEXT).ask(["the river"])
    assert Memory(small).read(TEXT).ask(["the river"]) == answers
    about = json.loads((tmp_path / "small" / "config.json").read_text())
    assert str(run.parent) not in json.dumps(about)
    assert about["experiment"]["task"]["dataset"] == "words"


def test_what_was_tuned_by_low_rank_changes_is_read_merged(tmp_path: Path) -> None:
    config = make_run(tmp_path / "tuned", trains="lora")
    found = load_reading_model(tmp_path / "tuned").params
    trained = lively_params(tuned_model(config.model, config.tuning))
    jax.tree.map(np.testing.assert_array_equal, found, merge_lora(config.tuning, trained))
    plain = create_model(config.model)
    assert jax.tree.structure(found) == jax.tree.structure(lively_params(plain))
    exported = save_checkpoint(tmp_path / "small", tmp_path / "tuned")
    assert bits(load_reading_model(tmp_path / "small").params) == bits(exported.params)


def test_a_text_goes_on_over_segments(
    run: Path, tmp_path: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    """Eleven tokens and thirty new ones, in segments of eight."""
    model = load_reading_model(run)
    beginning = tmp_path / "beginning.txt"
    beginning.write_text(TEXT)
    prompt = jnp.asarray(model.form.passage(TEXT), jnp.int32)[None]
    settings: dict[str, Any] = {"segment_size": 8, "max_new_tokens": 30, "new_segments": True}
    settings["stop_token"] = model.form.stop_id
    ids = generate_ids(model.model, model.params, prompt, **settings)
    asked = (f"--workdir={run}", "--max_new_tokens=30")
    code, out, _ = command(generate, *asked, f"--document={beginning}")
    assert (code, out) == (0, model.form.answer(np.asarray(ids)[0]) + "\n")
    drawn = (*asked, f"--prompt={TEXT}", "--temperature=2", "--top_k=20", "--num_texts=2")
    code, out, _ = command(generate, *drawn)
    assert code == 0
    first, second = (text.split("\t") for text in out.split("\n2\t"))
    assert first[0] == "1"
    assert first[1] != second[0]
    assert command(generate, *drawn)[1] == out != command(generate, *drawn, "--seed=1")[1]


def test_what_cannot_be_continued_is_said(
    run: Path, run_folder: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    for arguments, message in (
        ((), "--prompt or --document: one of them must give a text"),
        (("--prompt=a", "--num_texts=2"), "--num_texts = 2: needs --temperature"),
        (("--prompt=", "--temperature=1"), "--prompt = '': has no token"),
        (("--prompt=a", f"--seed={2**70}"), f"--seed = {2**70}: must be in"),
        (("--prompt=a", "--temperature=-1"), "temperature = -1.0: must be 0"),
        (("--prompt=a", "--max_new_tokens=0"), "max_new_tokens = 0: must be at least 1"),
    ):
        code, out, err = command(generate, f"--workdir={run}", *arguments)
        assert (code, out) == (2, "")
        assert message in err
        assert err.count("\n") == 1
    code, _, err = command(generate, f"--workdir={run_folder}", "--prompt=Mary went home.")
    assert code == 2
    assert "reads segments that overlap by 8 tokens; must be a model whose segments do not" in err


def test_answers_are_drawn(
    run: Path, tmp_path: Path, command: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    book = tmp_path / "book.txt"
    book.write_text(TEXT)
    asked = (f"--workdir={run}", f"--document={book}", "--question=the river", "--question=cold")
    likeliest = command(ask, *asked)[1]
    assert likeliest.count("\n") == 2  # a line each, whatever breaks lines in an answer
    drawn = command(ask, *asked, "--temperature=2")[1]
    assert drawn == command(ask, *asked, "--temperature=2")[1] != likeliest
    assert command(ask, *asked, "--temperature=2", "--seed=1")[1] != drawn
    assert command(ask, *asked, "--temperature=2", "--top_k=1")[1] == likeliest
    # Typed: each question draws for itself.
    monkeypatch.setattr(sys, "stdin", io.StringIO("cold\ncold\n"))
    _, out, _ = command(ask, *asked[:1], f"--memory={book}.memory", "--temperature=2")
    first, second = out.splitlines()
    assert first != second
