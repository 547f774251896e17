"""A run, the folder that is exported of it, and a Hugging Face folder: models that read text."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from armt_jax import ConfigError
from armt_jax.reading import (
    Memory,
    PlainForm,
    load_reading_model,
    save_changed_checkpoint,
    save_checkpoint,
)
from armt_jax.training.checkpoints import CheckpointError
from armt_jax.training.workdir import Workdir
from tests.config_values import changed, retrieval
from tests.hf_files import about, write_folder
from tests.reading.cases import QUESTIONS, TEXT, bits, tiny_experiment, tokenizer
from tests.reading.documents_test import plain_tokenizer


@pytest.fixture(scope="module")
def exported(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "small"
    save_checkpoint(folder, run_folder)
    return folder


def test_an_exported_folder_is_the_run(run_folder: Path, exported: Path) -> None:
    names = {path.name for path in exported.iterdir()}
    assert names == {"config.json", "tokenizer.json", "model.safetensors"}
    trained = load_reading_model(run_folder)
    small = load_reading_model(exported, warn=lambda text: pytest.fail(text))
    assert bits(small.params) == bits(trained.params)
    assert small.parameters_digest == trained.parameters_digest
    assert small.model.config == trained.model.config
    assert small.form.fingerprint == trained.form.fingerprint
    assert (small.segment_size, small.name) == (48, "babilong_qa1")
    memory = Memory(trained).read(TEXT)
    assert Memory(small).read(TEXT).ask(QUESTIONS) == memory.ask(QUESTIONS)
    assert len(set(memory.ask(QUESTIONS))) > 1
    memory.save(exported.parent / "m")  # a memory of the one is a memory of the other
    assert Memory.load(exported.parent / "m", small).ask(QUESTIONS) == memory.ask(QUESTIONS)
    # Nothing of the machine, and no moments.
    text = (exported / "config.json").read_text()
    assert str(run_folder.parent) not in text
    assert json.loads(text)["step"] == 7
    arrays = load_file(exported / "model.safetensors")
    assert sum(a.size for a in arrays.values()) == sum(
        leaf.size for leaf in jax.tree.leaves(trained.params)
    )


def test_changed_parameters_are_a_folder_with_the_rest_as_it_was(
    exported: Path, tmp_path: Path
) -> None:
    before = load_reading_model(exported)
    doubled = jax.tree.map(lambda leaf: 2 * leaf, before.params)
    save_changed_checkpoint(tmp_path / "new", exported, doubled, {"doubled": True})
    after = load_reading_model(tmp_path / "new")
    assert bits(after.params) == bits(doubled)
    assert (after.model.config, after.form.fingerprint) == (
        before.model.config,
        before.form.fingerprint,
    )
    old, new = (
        json.loads((path / "config.json").read_text()) for path in (exported, tmp_path / "new")
    )
    assert new.pop("doubled")
    assert new.pop("parameters") == after.parameters_digest != old.pop("parameters")
    assert new == old


def test_parameters_of_another_model_are_refused(exported: Path, tmp_path: Path) -> None:
    params = load_reading_model(exported).params
    wider = jax.tree.map(lambda leaf: np.concatenate([leaf, leaf], axis=-1), params)
    fewer = {name: params[name] for name in sorted(params)[1:]}
    for other in (wider, fewer):
        with pytest.raises(ConfigError, match=r"params: must be of the model of .*small'"):
            save_changed_checkpoint(tmp_path / "new", exported, other, {})
    assert not (tmp_path / "new").exists()


def test_steps_of_a_run(run_folder: Path, tmp_path: Path) -> None:
    early = load_reading_model(run_folder, step=3)
    assert early.parameters_digest != load_reading_model(run_folder).parameters_digest
    assert save_checkpoint(tmp_path / "early", run_folder, step=3).describe() == early.describe()
    assert json.loads((tmp_path / "early" / "config.json").read_text())["step"] == 3
    with pytest.raises(CheckpointError, match="step = 5: must be latest, best or one of 3, 7"):
        load_reading_model(run_folder, step=5)


def test_a_folder_is_written_whole_or_not_at_all(
    run_folder: Path, exported: Path, tmp_path: Path
) -> None:
    before = (exported / "config.json").read_bytes()
    with pytest.raises(ConfigError, match="small': must be new or empty"):
        save_checkpoint(exported, run_folder)
    assert (exported / "config.json").read_bytes() == before
    with pytest.raises(ConfigError, match="out': cannot be written"):
        save_checkpoint(tmp_path / "missing" / "out", run_folder)
    assert list(tmp_path.iterdir()) == []


def test_weights_that_do_not_fit_are_named_all_at_once(exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(exported, folder)
    arrays = load_file(folder / "model.safetensors")
    missing, wrong = sorted(arrays)[:2]
    changed_arrays = {name: a for name, a in arrays.items() if name != missing}
    changed_arrays[wrong] = np.zeros((5, 3), np.float32)
    save_file({**changed_arrays, "extra.kernel": np.zeros(2)}, folder / "model.safetensors")
    with pytest.raises(ConfigError) as caught:
        load_reading_model(folder)
    message = str(caught.value)
    assert f"{missing} is missing" in message
    assert f"{wrong} has shape (5, 3), must be {arrays[wrong].shape}" in message
    assert "extra.kernel is not a parameter of this model" in message
    arrays[wrong] = arrays[wrong] + 1
    save_file(arrays, folder / "model.safetensors")
    with pytest.raises(ConfigError, match=r"model.safetensors is damaged; the digest of its"):
        load_reading_model(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "armt_jax.checkpoint.2"}, "must be 'armt_jax.checkpoint.1'"),
        ({"form": "verse"}, "form = 'verse', must be one of babilong, plain"),
        ({"segment_size": "48"}, "segment_size = '48', must be a number"),
        ({"model": {"depth": 3}}, "model: must be settings of a model"),
        ({"step": None, "parameters": None}, "lacks parameters"),
    ],
)
def test_descriptions_that_cannot_be_are_refused(
    exported: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    folder = tmp_path / "wrong"
    shutil.copytree(exported, folder)
    content = json.loads((folder / "config.json").read_text())
    content |= change
    content = {key: value for key, value in content.items() if value is not None or key == "step"}
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=message):
        load_reading_model(folder)


def test_folders_without_a_model_are_refused(
    run_folder: Path, exported: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="there is no such folder"):
        load_reading_model(tmp_path / "none")
    with pytest.raises(ConfigError, match=r"config.json': there is no such file"):
        load_reading_model(tmp_path)
    folder = tmp_path / "no_tokenizer"
    shutil.copytree(exported, folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match=r"tokenizer '.*tokenizer.json': there is no such file"):
        load_reading_model(folder)
    with Workdir(tiny_experiment(tmp_path / "untrained")):
        pass
    with pytest.raises(ConfigError, match="has no checkpoint yet"):
        load_reading_model(tmp_path / "untrained")
    with Workdir(retrieval(changed("workdir", str(tmp_path / "pairs")))):
        pass
    with pytest.raises(ConfigError, match="is a run of 'test', which reads no text"):
        load_reading_model(tmp_path / "pairs")
    shutil.copytree(run_folder, tmp_path / "run")
    (tmp_path / "run" / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match=r"tokenizer '.*': there is no such file"):
        load_reading_model(tmp_path / "run")
    assert not (tmp_path / "run" / "tokenizer.json").exists()  # none is made up


@pytest.mark.slow
def test_a_hugging_face_folder_is_read_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "gpt2"
    write_folder(folder, "llama", config=about("llama") | {"eos_token_id": 2})
    backend = plain_tokenizer()
    backend.save(str(folder / "tokenizer.json"))
    size = about("llama")["vocab_size"]
    if backend.get_vocab_size() > size:
        with pytest.raises(ConfigError, match="it belongs to another model"):
            load_reading_model(folder)
        words = dict(sorted(backend.get_vocab().items(), key=lambda item: item[1])[:size])
        content = json.loads((folder / "tokenizer.json").read_text())
        content["model"]["vocab"] = words
        (folder / "tokenizer.json").write_text(json.dumps(content))
    said: list[str] = []
    model = load_reading_model(folder, segment_size=8, warn=said.append)
    assert [text.partition(": ")[2] for text in said] == [
        "its memory was never trained (W_mv is 0), so nothing of one segment of 8 tokens is known "
        "in the next"
    ]
    assert isinstance(model.form, PlainForm)
    assert model.form.stop_id == 2
    assert load_reading_model(folder).segment_size == 512
    memory = Memory(model).read(TEXT)
    memory.save(tmp_path / "m")
    asked = memory.ask([" is garden."], max_new_tokens=3)
    assert Memory.load(tmp_path / "m", model).ask([" is garden."], max_new_tokens=3) == asked
    with pytest.raises(ConfigError, match="question 'who is': 'who' is unknown to the tokenizer"):
        memory.ask(["who is"])


def test_the_tokenizer_travels_with_the_folder(run_folder: Path, exported: Path) -> None:
    small = load_reading_model(exported)
    assert small.form.prompt("Where?") == [*tokenizer().bare("Where? "), tokenizer().gen_id]
