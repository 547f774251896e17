"""Language modelling as an experiment: settings, a run up to its figure, the commands."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from armt_jax.config import (
    ConfigError,
    LanguageModellingCurriculum,
    LanguageModellingExperiment,
    from_config_dict,
)
from armt_jax.evaluation.language_modelling_results import read_rows
from armt_jax.tasks.babilong.tokenizers import train_tokenizer
from armt_jax.tasks.language_modelling import setup
from armt_jax.training.experiment_stages import create_stages
from configs import wikitext
from experiments.train import train_and_evaluate

ROOT = Path(__file__).parent.parent


def values(variant: str = "tiny", **task: Any) -> dict[str, Any]:
    plain = wikitext.get_config(variant).to_dict()
    plain["task"] |= task
    return plain


def tiny(folder: Path, **task: Any) -> LanguageModellingExperiment:
    """The smoke run on a small text of its own, in half the steps."""
    text = folder / "text"
    text.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    words = ["the", "river", "runs", "under", "old", "stones", "and", "cold", "light", "."]
    for split, count in (("train", 4), ("valid", 3), ("test", 3)):
        documents = [" ".join(rng.choice(words, 400)) for _ in range(count)]
        titled = "".join(f" = Title = \n {one} \n" for one in documents)
        (text / f"{split}.txt").write_text(titled)
    plain = values(dataset=str(text), **task)
    plain["workdir"] = str(folder / "run")
    plain["model"] |= {"vocab_size": 300}
    plain["curriculum"] = {
        "num_segments": (4,),
        "segment_size": (0,),
        "repeats": (0,),
        "max_steps": (3,),
    }
    plain["train"]["eval_every"] = 3
    config = from_config_dict(plain)
    assert isinstance(config, LanguageModellingExperiment)
    return config


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ARMT_CACHE_DIR", str(tmp_path / "cache"))


@pytest.mark.parametrize("variant", wikitext.VARIANTS)
def test_presets_are_complete_and_valid(variant: str) -> None:
    plain = values(variant)
    config = from_config_dict(plain)
    assert isinstance(config, LanguageModellingExperiment)
    assert plain.keys() == {field.name for field in dataclasses.fields(config)}
    for name, group in plain.items():
        if isinstance(group, dict):
            fields = dataclasses.fields(getattr(config, name))
            assert group.keys() == {field.name for field in fields}, name
    with pytest.raises(ConfigError, match="variant = 'big': must be one of default, paper, tiny"):
        wikitext.get_config("big")


def test_the_paper_preset_is_the_papers_experiment() -> None:
    config = from_config_dict(values("paper"))
    assert isinstance(config, LanguageModellingExperiment)
    assert (config.task.dataset, config.task.segment_size) == ("wikitext-103", 128)
    assert config.curriculum.num_segments[-1] == 8
    assert (config.evaluation.num_segments, config.evaluation.first_segment) == (15, 8)
    model = config.model
    assert (model.backbone, model.n_layer, model.d_model, model.rule) == ("gpt2", 12, 768, "armt")


@pytest.mark.parametrize("family", ["armt", "rmt", "transformer", "mamba", "gated_delta_net"])
def test_every_family_has_the_same_configuration(family: str) -> None:
    plain = values("default")
    plain["model"]["family"] = family
    assert from_config_dict(plain).model.family == family


@pytest.mark.parametrize(
    ("group", "field", "value", "message"),
    [
        ("task", "name", "lm", "task.name = 'lm': must be one of babilong, mqar, "),
        ("task", "memory", "half", "task.memory = 'half': must be one of kept, reset"),
        ("task", "tokenizer", "bytes", "task.tokenizer = 'bytes': must be one of gpt2, small"),
        ("task", "segment_size", 0, "task.segment_size = 0: must be at least 1"),
        ("curriculum", "max_steps", [1], r"curriculum.max_steps = \(1,\): needs 2 entries"),
        ("curriculum", "num_segments", [0, 1], r"num_segments\[0\] = 0: must be at least 1"),
        ("evaluation", "first_segment", 7, "first_segment = 7: must be at most .* = 6"),
        ("evaluation", "horizons", [4], r"horizons\[0\] = 4: must be at least 1, and below .* = 4"),
        ("evaluation", "samples", -1, r"evaluation.samples = -1: must be 0 \(all\) or more"),
        ("mesh", "stage", 2, "mesh.stage = 2: must be 1: a pipeline trains on queries"),
        ("curriculum", "segment_size", (0,), r"curriculum.segment_size = \(0,\): needs 2 entries"),
        ("curriculum", "segment_size", (-1, 0), r"segment_size\[0\] = -1: must be at least 0"),
        ("curriculum", "repeats", (0, 0, 0), r"curriculum.repeats = \(0, 0, 0\): needs 2 entries"),
        ("curriculum", "repeats", (5, 0), r"repeats\[0\] = 5: must be 0 .* or at least 6 tokens"),
        ("curriculum", "repeats", (0, 9), r"repeats\[-1\] = 9: must be 0, the text as it is"),
        ("curriculum", "segment_size", (8, 8), r"\[-1\] = 8: must be 0 or task.segment_size = 16"),
    ],
)
def test_impossible_settings_are_refused(group: str, field: str, value: Any, message: str) -> None:
    plain = values()
    plain[group][field] = value
    with pytest.raises(ConfigError, match=message):
        from_config_dict(plain)


def test_a_text_longer_than_full_attention_is_refused_unless_segments_are_apart() -> None:
    plain = values()
    plain["model"] |= {"family": "transformer", "context_tokens": 95}
    with pytest.raises(
        ConfigError, match=r"text length = 96: must be at most model.context_tokens"
    ):
        from_config_dict(plain)
    plain["task"]["memory"] = "reset"
    from_config_dict(plain)


def test_figures_are_of_the_stages_that_are_evaluated(tmp_path: Path) -> None:
    config = tiny(tmp_path)
    curriculum = LanguageModellingCurriculum((64, 2, 5, 3), (4, 16, 0, 0), (0,) * 4, (1,) * 4)
    assert dataclasses.replace(config, curriculum=curriculum).trained_segments == 5


def test_a_text_of_short_segments_may_be_too_long_too() -> None:
    plain = values()
    plain["model"] |= {"family": "transformer", "context_tokens": 96}
    from_config_dict(plain)
    plain["curriculum"] |= {"num_segments": (25, 4), "segment_size": (4, 0)}
    with pytest.raises(ConfigError, match=r"text length = 100: must be at most"):
        from_config_dict(plain)


def test_stages_read_the_training_split_and_validate_on_another(tmp_path: Path) -> None:
    config = tiny(tmp_path)
    Path(config.workdir).mkdir()
    curriculum = LanguageModellingCurriculum((1, 4), (6, 0), (9, 0), (2, 3))
    config = dataclasses.replace(config, curriculum=curriculum)
    first, second = create_stages(config)
    assert [stage.max_steps for stage in (first, second)] == [2, 3]
    assert re.fullmatch(
        r".*text, \d+ contexts of 1 segment of 6 tokens, pieces of up to 9 read twice", first.label
    )
    assert first.data.validation(3).context.shape == (3, 1, 6)
    assert re.fullmatch(r".*text, \d+ contexts of 4 segments of 16 tokens", second.label)
    place = {"start": 0, "num_workers": 0, "stage": 0, "shard_index": 0, "shard_count": 1}
    stream = second.data.stream(0, 8, **place)
    batch = next(stream)
    stream.close()
    assert batch.context.shape == batch.targets.shape == (8, 4, 16)
    held_out = second.data.validation(second.data.validation_size)
    assert held_out.context_mask.sum() == held_out.targets.astype(bool).sum()
    again = create_stages(config)[1].data.validation(5)  # the tokenizer of the run's folder
    assert again.context.shape == (5, 4, 16)
    np.testing.assert_array_equal(again.context[[0, -1]], held_out.context[[0, -1]])


def test_tokens_are_kept_and_made_anew_where_they_are_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(tmp_path)
    tokenizer = train_tokenizer(setup.documents(config.task, "train"), 300)
    first = setup.token_documents(config.task, "test", tokenizer)
    (path,) = (tmp_path / "cache" / "language_modelling").iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(setup, "tokenise_documents", None)  # not called
        second = setup.token_documents(config.task, "test", tokenizer)
    path.write_bytes(path.read_bytes()[:-30])
    third = setup.token_documents(config.task, "test", tokenizer)
    for found in (second, third):
        np.testing.assert_array_equal(found.tokens, first.tokens)
        np.testing.assert_array_equal(found.starts, first.starts)
    other = train_tokenizer(setup.documents(config.task, "train"), 280)
    setup.token_documents(config.task, "test", other)
    assert len(list(path.parent.iterdir())) == 2


def test_a_run_that_starts_from_another_has_its_tokenizer(tmp_path: Path) -> None:
    config = tiny(tmp_path)
    Path(config.workdir).mkdir()
    create_stages(config)
    (tmp_path / "text" / "train.txt").write_text(" other words , other text \n" * 50)
    alone = dataclasses.replace(config, workdir=str(tmp_path / "alone"))
    tuning = dataclasses.replace(config.tuning, start=config.workdir)
    second = dataclasses.replace(config, tuning=tuning, workdir=str(tmp_path / "second"))
    for one in (alone, second):
        Path(one.workdir).mkdir()
        create_stages(one)
    first, own, taken = (
        (Path(one.workdir) / "tokenizer.json").read_text() for one in (config, alone, second)
    )
    assert taken == first != own


@pytest.mark.parametrize("memory", ["kept", pytest.param("reset", marks=pytest.mark.slow)])
def test_a_run_trains_evaluates_and_reports(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], memory: str
) -> None:
    config = tiny(tmp_path, memory=memory)
    train_and_evaluate(config)
    out, err = capsys.readouterr()
    saved = r" gain=-?\d\.\d{4}" if memory == "kept" else ""
    assert re.fullmatch(
        rf"wikitext: loss=\d\.\d{{4}} bits_per_byte=\d\.\d{{4}}{saved} segments=4-6 "
        r"train_seconds=\d+",
        out.splitlines()[-1],
    )
    assert "layers.memory.W_mv.kernel" in err
    assert "parameters, all trained" in err
    folder = tmp_path / "run" / "evaluation"
    kept, reset = read_rows(folder / "language_modelling.json")
    assert (kept.memory, reset.memory, kept.trained_memory) == ("kept", "reset", memory)
    assert kept.tokens == reset.tokens
    assert len(kept.losses) == 6
    assert kept.losses[0] == pytest.approx(reset.losses[0], rel=1e-5)
    assert kept.mean_loss_low < kept.mean_loss < kept.mean_loss_high
    part = slice(3, None)
    mean = np.average(kept.losses[part], weights=kept.tokens[part])
    assert kept.mean_loss == pytest.approx(mean)
    assert kept.gain == pytest.approx(1 - kept.mean_loss / reset.mean_loss)
    assert kept.horizons.keys() == {"1"}
    assert kept.writes is not None
    assert all(len(layers) == 1 for layers in kept.writes.values())
    assert (folder / "segment_losses.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_commands_as_a_user_types_them(tmp_path: Path) -> None:
    environment = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    folder = tmp_path / "run"

    def run(module: str, *arguments: str) -> str:
        command = [sys.executable, "-m", f"experiments.{module}", *arguments]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    config = "--config=configs/wikitext.py:tiny"
    out = run("main", config, f"--workdir={folder}")
    assert out.splitlines()[-1].startswith("wikitext: loss=")
    results = folder / "evaluation" / "language_modelling.json"
    before = read_rows(results)
    run("evaluate", f"--workdir={folder}", "--step=latest")
    assert [one.losses for one in read_rows(results)] == [one.losses for one in before]
    results.rename(tmp_path / results.name)
    run("report", "fig6", f"--results={tmp_path}", f"--out={tmp_path}")
    assert (tmp_path / "fig6.png").is_file()
    tuned = tmp_path / "tuned"
    run("main", config, f"--workdir={tuned}", f"--config.tuning.start={folder}",
        "--config.tuning.trains=lora")  # fmt: skip
    assert (tuned / "evaluation" / "language_modelling.json").is_file()
