"""Checkpoint folders: a trained model as it is shared, without optimizer moments.

A checkpoint folder has ``config.json``: ``format``, ``name``, ``step``, ``segment_size``, ``form``
with ``question_end`` (``babilong``) or ``stop_token`` (``plain``, see ``forms``), ``model`` (its
settings), ``parameters`` (their digest) and ``experiment``, the settings of the run without the
folders of the machine (versions before it wrote none); ``tokenizer.json``; and
``model.safetensors``, parameters by name (layers stacked).
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError

from armt_jax.config import (
    BabilongExperiment,
    ConfigError,
    LanguageModellingExperiment,
    ModelConfig,
    from_config_dict,
)
from armt_jax.config.babilong import with_later_settings
from armt_jax.interop.weights import SINGLE, Weights, read_file, read_json, save_arrays
from armt_jax.models import create_model
from armt_jax.models.protocol import Params
from armt_jax.reading.forms import BabilongForm, PlainForm, TextForm
from armt_jax.reading.reading_model import ReadingModel, parameters_digest
from armt_jax.reading.run_folder import TOKENIZER, existing, read_run
from armt_jax.tasks.babilong.tokenizers import BabilongTokenizer, load_tokenizer
from armt_jax.training.checkpoints import LATEST
from armt_jax.training.workdir import read_config_values

FORMAT = "armt_jax.checkpoint.1"
CONFIG = "config.json"
_KEYS = ("name", "step", "segment_size", "form", "model", "parameters")
_OF_FORM = {BabilongForm.kind: "question_end", PlainForm.kind: "stop_token"}


def save_checkpoint(
    folder: str | os.PathLike[str], source: str | os.PathLike[str], *, step: int | str = LATEST
) -> ReadingModel:
    """Write the parameters, settings and tokenizer of a run into a folder of their own.

    Args:
      folder: new or empty; it is there when all of it is written, or not at all.
      source: the folder of a run of BABILong or of language modelling.
      step: ``latest``, ``best`` or a number.

    Returns:
      What was written.

    Raises:
      ConfigError: a folder with something in it or that cannot be written, a source that is no run.
      CheckpointError: a run without an undamaged checkpoint of that step.
    """
    folder, run = Path(folder), Path(source)
    _check_new(folder)
    reading, tokenizer, taken = read_run(run, step, lambda text: None)
    form = reading.form
    about = {
        "format": FORMAT,
        "name": reading.name,
        "step": taken,
        "segment_size": reading.segment_size,
        "segment_overlap": reading.segment_overlap,
        "form": form.kind,
        _OF_FORM[form.kind]: getattr(form, _OF_FORM[form.kind]),
        "model": dataclasses.asdict(reading.model.config),
        "parameters": reading.parameters_digest,
        "experiment": _without_folders(read_config_values(run)),
    }
    _write(folder, about, reading.params, tokenizer)
    return reading


def save_changed_checkpoint(
    folder: str | os.PathLike[str],
    source: str | os.PathLike[str],
    params: Params,
    changed: dict[str, Any],
) -> ReadingModel:
    """Write a checkpoint folder whose parameters were changed after training.

    Args:
      folder: as ``save_checkpoint``.
      source: the checkpoint folder they are from; its settings and tokenizer are kept.
      params: of its model.
      changed: what was done to them, beside the settings in ``config.json``.

    Returns:
      What was written.

    Raises:
      ConfigError: as ``save_checkpoint``, a source that is no checkpoint folder, parameters that
        are not of its model.
    """
    folder, source = Path(folder), Path(source)
    _check_new(folder)
    about = read_json(source / CONFIG)
    kept = load_checkpoint(source, about)
    if jax.tree.map(jnp.shape, params) != jax.tree.map(jnp.shape, kept.params):
        raise ConfigError(f"params: must be of the model of {str(source)!r}")
    about |= {**changed, "parameters": parameters_digest(params)}
    _write(folder, about, params, load_tokenizer(source / TOKENIZER))
    return dataclasses.replace(kept, params=params)


def _check_new(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"folder {str(folder)!r}: must be new or empty")


def _write(
    folder: Path, about: dict[str, Any], params: Params, tokenizer: BabilongTokenizer
) -> None:
    """All of it, or nothing."""
    half = folder.parent / f".{folder.name}.{uuid.uuid4().hex}"
    try:
        half.mkdir()
        named = {name: np.asarray(leaf) for name, leaf in _named(params).items()}
        save_arrays(half / SINGLE, named, {"format": FORMAT})
        tokenizer.save(half / TOKENIZER)
        (half / CONFIG).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        half.replace(folder)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"folder {str(folder)!r}: cannot be written ({reason})") from error
    finally:
        shutil.rmtree(half, ignore_errors=True)


def checkpoint_experiment(
    folder: str | os.PathLike[str], workdir: str | os.PathLike[str]
) -> BabilongExperiment | LanguageModellingExperiment:
    """The experiment whose parameters a checkpoint folder has.

    Args:
      folder: what ``save_checkpoint`` wrote.
      workdir: where what is made with the model shall be written, as ``experiment.workdir``.

    Raises:
      ConfigError: no such folder, or one that does not say of what experiment it is.
    """
    path = Path(folder) / CONFIG
    values = read_json(path).get("experiment")
    if not isinstance(values, dict):
        raise ConfigError(
            f"{str(path)!r}: has no experiment; must be written by experiments.export of this "
            "version"
        )
    experiment = from_config_dict(with_later_settings(values | {"workdir": str(workdir)}))
    if not isinstance(experiment, BabilongExperiment | LanguageModellingExperiment):
        raise ConfigError(f"{str(path)!r}: experiment must be BABILong or language modelling")
    return experiment


def _without_folders(values: dict[str, Any]) -> dict[str, Any]:
    """Settings of a run, but for where it lay, read its data from and started."""
    task = values["task"] | {"data_dir": None}
    if "dataset" in task:  # language modelling: a name, or the path of a folder
        task["dataset"] = Path(task["dataset"]).name
    tuning = values.get("tuning", {}) | {"start": None, "teacher": None}
    return values | {"workdir": None, "task": task, "tuning": tuning}


def load_checkpoint(folder: Path, about: dict[str, Any]) -> ReadingModel:
    """The model of a checkpoint folder, whose ``config.json`` is ``about``.

    Raises:
      ConfigError: a file that is damaged, missing, or of another version.
    """
    where = str(folder / CONFIG)
    if about.get("format") != FORMAT:
        raise ConfigError(f"{where!r}: format = {about.get('format')!r}, must be {FORMAT!r}")
    keys = (*_KEYS, *filter(None, [_OF_FORM.get(str(about.get("form")))]))
    missing = [key for key in keys if key not in about]
    if missing:
        raise ConfigError(f"{where!r}: lacks {', '.join(missing)}")
    if about["form"] not in _OF_FORM:
        accepted = f"must be one of {', '.join(_OF_FORM)}"
        raise ConfigError(f"{where!r}: form = {about['form']!r}, {accepted}")
    overlap = about.get("segment_overlap", 0)  # folders of earlier versions know none
    for name, value in (("segment_size", about["segment_size"]), ("segment_overlap", overlap)):
        if not isinstance(value, int):
            raise ConfigError(f"{where!r}: {name} = {value!r}, must be a number")
    try:
        config = ModelConfig(**about["model"])
    except TypeError as error:
        raise ConfigError(f"{where!r}: model: must be settings of a model ({error})") from error
    tokenizer = load_tokenizer(existing(folder / TOKENIZER))
    tokenizer.check_model(config.vocab_size)
    params = _params(read_file(folder / SINGLE), config, f"folder {str(folder)!r}")
    digest = parameters_digest(params)
    if digest != about["parameters"]:
        raise ConfigError(
            f"folder {str(folder)!r}: {SINGLE} is damaged; the digest of its parameters should be "
            f"{about['parameters'][:8]!r} and is {digest[:8]!r}"
        )
    form: TextForm
    if about["form"] == PlainForm.kind:
        form = PlainForm(tokenizer.backend, about["stop_token"])
    else:
        form = BabilongForm(tokenizer, about["question_end"])
    model = create_model(config)
    return ReadingModel(model, params, form, about["segment_size"], about["name"], overlap)


def _params(weights: Weights, config: ModelConfig, what: str) -> Params:
    """Parameters of ``config`` from arrays under the names of ``_named``; dtypes are kept."""
    model = create_model(config)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0)))
    wanted = _named(shapes)
    problems = [f"{name} is missing" for name in wanted if name not in weights.shapes]
    for name, shape in weights.shapes.items():
        if name not in wanted:
            problems.append(f"{name} is not a parameter of this model")
        elif shape != wanted[name].shape:
            problems.append(f"{name} has shape {shape}, must be {wanted[name].shape}")
    if problems:
        raise ConfigError(f"{what} does not fit: " + "; ".join(sorted(problems)))
    leaves = [jnp.asarray(weights.read(name)) for name in wanted]
    return jax.tree.unflatten(jax.tree.structure(shapes), leaves)


def _named(params: Params) -> dict[str, Any]:
    paths = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in paths}
