"""Distillation: the loss is its definition, the teacher stays as it is and out of what is kept."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from armt_jax import forward
from armt_jax.config import (
    AnyExperiment,
    ConfigError,
    MeshConfig,
    ModelConfig,
    from_config_dict,
)
from armt_jax.evaluation.distillation import Teacher, divergence
from armt_jax.evaluation.next_tokens import NextTokens
from armt_jax.interop import load_hugging_face
from armt_jax.models import Segment, create_model
from armt_jax.sharding import create_mesh
from armt_jax.sharding.rules import leaf_names
from armt_jax.tasks.language_modelling.stage_data import language_modelling_data
from armt_jax.training.checkpoints import Checkpoints
from armt_jax.training.start import start_state
from armt_jax.training.state import abstract_state, create_state
from armt_jax.training.step import train_step
from armt_jax.tuning import (
    parameter_rows,
    plain_params,
    rate_factors,
    tuned_model,
    tuned_optimizer,
    tuned_scoring,
)
from configs import babilong
from experiments.restoring import restore
from experiments.train import train_and_evaluate
from tests.hf_files import write_folder
from tests.language_modelling_experiment_test import tiny
from tests.next_tokens_test import cross_entropy, whole_batch
from tests.small_models import assert_close, quick_jit
from tests.tuning.start_test import begin, save_run
from tests.tuning.tuning_test import SCORING, experiment, gradients, noisy


@pytest.fixture
def taught(tmp_path: Path) -> tuple[AnyExperiment, Any]:
    """An ARMT that a transformer's run teaches, and the parameters of both."""
    folder = str(tmp_path / "teacher")
    save_run(experiment(folder, family="transformer"), seed=5)
    config = experiment(teacher=folder, distill_weight=0.3, temperature=2.0)
    params = begin(config)
    return config, noisy(params, 1) | {"teacher": params["teacher"]}


def tuned(config: AnyExperiment) -> Any:
    return tuned_model(config.model, config.tuning)


def softmax(x: np.ndarray) -> np.ndarray:
    top = np.exp(x - x.max(-1, keepdims=True))
    return top / top.sum(-1, keepdims=True)


@pytest.mark.usefixtures("x64")
def test_the_divergence_and_its_gradient_are_their_definitions() -> None:
    rng = np.random.default_rng(0)
    said, wanted, heat = rng.normal(size=(5, 9)), rng.normal(size=(5, 9)), 2.5
    p, q = softmax(wanted / heat), softmax(said / heat)
    expected = heat**2 * (p * np.log(p / q)).sum(-1)
    assert_close(divergence(jnp.asarray(said), jnp.asarray(wanted), heat), expected, 1e-12)
    slope = jax.grad(lambda x: divergence(x, jnp.asarray(wanted), heat).sum())(jnp.asarray(said))
    assert_close(slope, heat * (q - p), 1e-12)
    np.testing.assert_allclose(divergence(jnp.asarray(wanted), jnp.asarray(wanted), heat), 0)


def whole_logits(config: ModelConfig, params: Any, batch: Any, segment_size: int) -> np.ndarray:
    """``[b, s, t, v]`` of contexts that are read as one text."""
    rows, count, size = batch.context.shape
    texts, masks = (x.reshape(rows, -1) for x in (batch.context, batch.context_mask))
    read = quick_jit(
        lambda p, t, m: (
            forward(create_model(config), p, t, segment_size=segment_size, attention_mask=m).logits
        )
    )
    return np.asarray(read(params, texts, masks)).reshape(rows, count, size, -1)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("reset", [False, True])
def test_the_loss_has_the_texts_share_and_the_teachers(
    taught: tuple[AnyExperiment, Any], reset: bool
) -> None:
    """The teacher reads a context whole, also where the memory of the other is reset."""
    config, params = taught
    batch = whole_batch()
    rows, count, size = batch.context.shape
    own, teacher = (
        plain_params(config, params),
        dataclasses.replace(config.model, family="transformer"),
    )
    wanted = softmax(whole_logits(teacher, params["teacher"], batch, count * size) / 2)
    if reset:
        apart = batch._replace(**{k: v.reshape(-1, 1, size) for k, v in batch._asdict().items()})
        logits = whole_logits(config.model, own, apart, size).reshape(rows, count, size, -1)
    else:
        logits = whole_logits(config.model, own, batch, size)
    said = softmax(logits / 2)
    losses = cross_entropy(logits, batch.targets)
    mixed = 0.7 * losses + 0.3 * 4 * (wanted * np.log(wanted / said)).sum(-1)
    expected = np.where(batch.context_mask, mixed, 0).sum()
    scoring, model = tuned_scoring(NextTokens(reset), config.tuning), tuned(config)
    found = quick_jit(lambda p, b: scoring.score(model, p, b))(params, batch)
    assert_close(found.loss, expected, 1e-9)
    right = ((logits.argmax(-1) == batch.targets) & batch.context_mask).sum()
    assert int(found.matches.correct) == right


def test_a_student_that_is_its_teacher_has_nothing_to_learn(tmp_path: Path) -> None:
    folder = str(tmp_path / "teacher")
    trained = save_run(experiment(folder, family="transformer"), seed=5)
    config = experiment(family="transformer", start=folder, teacher=folder, distill_weight=1.0)
    params = begin(config)
    assert_close(plain_params(config, params), trained, 0)
    scores, slopes = gradients(config, params)
    np.testing.assert_allclose(scores.loss, 0, atol=1e-4)
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(slopes)) < 1e-6
    away = {**noisy(params, 2), "teacher": params["teacher"]}
    assert float(gradients(config, away)[0].loss) > 1


def test_the_teacher_stays_as_it_is(taught: tuple[AnyExperiment, Any]) -> None:
    config, params = taught
    model, optimizer = tuned(config), tuned_optimizer(config.optimizer, config.tuning)
    state = create_state(model, optimizer, 0)._replace(params=params)
    scoring = tuned_scoring(SCORING, config.tuning)
    step = jax.jit(
        lambda s, b: train_step(model, optimizer, s, b, jnp.float32(0.1), scoring=scoring)
    )
    after, _ = step(state, whole_batch())
    for name, leaf in leaf_names(after.params):
        same = np.array_equal(leaf, dict(leaf_names(params))[name])
        assert same == name.startswith("teacher."), name
    moments = {name for name, _ in leaf_names(after.opt_state) if "teacher" in name}
    assert not moments
    frozen = {n for n, f in leaf_names(rate_factors(config.tuning, params)) if not f}
    assert frozen == {n for n, _ in leaf_names(params) if n.startswith("teacher.")}
    rates = {row.name: row.rate for row in parameter_rows(config.optimizer, config.tuning, params)}
    assert rates["teacher.embed.wte"] == 0 < rates["embed.wte"]
    assert not any(n.startswith("teacher") for n, _ in leaf_names(plain_params(config, params)))


def test_a_teacher_lies_over_a_mesh_as_the_model_does(taught: tuple[AnyExperiment, Any]) -> None:
    config, params = taught
    optimizer = tuned_optimizer(config.optimizer, config.tuning)
    mesh = create_mesh(MeshConfig(data=2, fsdp=2, tensor=1, stage=1), 4)
    spread = start_state(config, tuned(config), optimizer, mesh).params
    assert spread["teacher"]["embed"]["wte"].sharding.spec == spread["embed"]["wte"].sharding.spec
    assert_close(spread["teacher"], params["teacher"], 0)


def test_a_hugging_face_teacher_reads_contexts_whole(tmp_path: Path) -> None:
    """GPT-2 of 20 positions: contexts of 20 tokens go, longer ones are refused."""
    folder = str(write_folder(tmp_path / "gpt2", "gpt2"))
    params, imported = load_hugging_face(folder, num_mem_tokens=2, d_mem=4)
    config = experiment(teacher=folder, distill_weight=1.0)
    fitting = dataclasses.replace(config.model, vocab_size=imported.vocab_size, context_tokens=20)
    config = dataclasses.replace(config, model=fitting)
    teacher = begin(config)["teacher"]
    names = {name for name, _ in leaf_names(teacher)}
    assert names == {n for n, _ in leaf_names(params) if "memory" not in n}
    assert_close(teacher, only(params, names), 0)
    with_room = tuned(config).teacher.config
    assert (with_room.family, with_room.context_tokens) == ("transformer", 20)


def only(params: Any, names: set[str], prefix: str = "") -> Any:
    """The part of nested parameters with these names."""
    kept = {}
    for key, value in params.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            below = only(value, names, f"{name}.")
            kept |= {key: below} if below else {}
        elif name in names:
            kept[key] = value
    return kept


def test_a_run_is_taught_and_goes_on_without_what_taught_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the command's inside: training, evaluation and checkpoints of a taught model."""
    monkeypatch.setenv("ARMT_CACHE_DIR", str(tmp_path / "cache"))
    first = tiny(tmp_path)
    first = dataclasses.replace(first, model=dataclasses.replace(first.model, family="transformer"))
    train_and_evaluate(first)
    tuning = dataclasses.replace(first.tuning, teacher=first.workdir, distill_weight=0.5)
    config = dataclasses.replace(tiny(tmp_path), workdir=str(tmp_path / "student"), tuning=tuning)
    train_and_evaluate(config)
    assert "segments=" in capsys.readouterr().out
    there = [Path(one.workdir) / "tokenizer.json" for one in (first, config)]
    assert there[0].read_text() == there[1].read_text()
    found = restore(config, Path(config.workdir), "latest")
    names = {name for name, _ in leaf_names(found.state.params)}
    assert "embed.memory" in names
    assert not any(name.startswith("teacher") for name in names)
    template = abstract_state(tuned(config), tuned_optimizer(config.optimizer, config.tuning))
    kept = Checkpoints(Path(config.workdir) / "checkpoints", read_only=True).restore(
        template, warn=print
    )
    theirs = restore(first, Path(first.workdir), "best").state.params
    assert kept is not None
    for name, leaf in leaf_names(theirs):
        there = dict(leaf_names(kept.state.params["teacher"]))[name]
        assert np.array_equal(leaf, there), name


def test_teachers_that_cannot_be_are_refused(tmp_path: Path) -> None:
    folder = str(tmp_path / "teacher")
    save_run(experiment(folder, family="transformer"), seed=5)
    config = experiment(teacher=folder)
    other = dataclasses.replace(config.model, vocab_size=99)
    with pytest.raises(ConfigError, match=r"has a vocabulary of 23 tokens, must have .* = 99"):
        tuned_model(other, config.tuning)
    with pytest.raises(ConfigError, match=r"tuning.teacher = .*none': must be the folder of a run"):
        tuned(experiment(teacher=str(tmp_path / "none")))
    with pytest.raises(ConfigError, match=r"distill_weight = 0.0: must be above 0, at most 1"):
        experiment(teacher=folder, distill_weight=0.0)
    with pytest.raises(ConfigError, match=r"temperature = -1.0: must be positive"):
        experiment(teacher=folder, temperature=-1.0)
    values = babilong.get_config("qa1,tiny").to_dict()
    values["tuning"]["teacher"] = folder
    with pytest.raises(ConfigError, match=r"teacher = .*: must be None but for language modelling"):
        from_config_dict(values)
    with pytest.raises(ConfigError, match=r"mesh.tensor = 2: must be 1 with tuning.teacher"):
        dataclasses.replace(config, mesh=MeshConfig(data=1, fsdp=1, tensor=2, stage=1))
    short = dataclasses.replace(config.model, family="transformer", context_tokens=8)
    teacher = Teacher(create_model(short), {}, 0.5, 1.0)
    tokens = jnp.zeros((3, 2, 4), jnp.int32)
    with pytest.raises(ConfigError, match="context_tokens"):
        teacher.read(Segment(tokens, tokens == 0))


def test_a_teacher_of_other_tokens_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARMT_CACHE_DIR", str(tmp_path / "cache"))
    first = tiny(tmp_path)
    Path(first.workdir).mkdir()
    language_modelling_data(first)
    config = dataclasses.replace(
        first,
        workdir=str(tmp_path / "student"),
        tuning=dataclasses.replace(first.tuning, teacher=first.workdir),
    )
    Path(config.workdir).mkdir()
    (tmp_path / "text" / "train.txt").write_text(" other words , other text \n" * 50)
    language_modelling_data(config)  # with the teacher's tokens
    (Path(first.workdir) / "tokenizer.json").unlink()
    language_modelling_data(first)
    with pytest.raises(ConfigError, match=r"tuning.teacher = .*: has another tokenizer; \d+ of"):
        language_modelling_data(config)
