"""Folders that a model which reads text is loaded from, and the small one it is shared as.

``load_reading_model`` takes

- the folder of a run of BABILong (``config.json``, ``tokenizer.json``, Orbax checkpoints),
- a checkpoint folder: what ``save_checkpoint`` makes of such a run, without optimizer moments,
- a Hugging Face folder (``config.json``, ``tokenizer.json``, ``safetensors``).

A checkpoint folder has ``config.json``: ``format``, ``name``, ``step``, ``segment_size``, ``form``
and ``question_end`` (see ``forms``), ``model`` (its settings), ``parameters`` (their digest) and
``experiment``, the settings of the run without the folders of the machine (versions before it
wrote none); ``tokenizer.json``; and ``model.safetensors``, parameters by name (layers stacked).
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

from armt_jax.config import BabilongExperiment, ConfigError, ModelConfig, from_config_dict
from armt_jax.config.babilong import with_later_settings
from armt_jax.interop import hugging_face
from armt_jax.interop.weights import SINGLE, Weights, read_file, read_json, save_arrays
from armt_jax.models import create_model
from armt_jax.models.protocol import Params
from armt_jax.reading.forms import BabilongForm, PlainForm, question_end
from armt_jax.reading.reading_model import ReadingModel, parameters_digest
from armt_jax.tasks.babilong import setup
from armt_jax.tasks.babilong.tokenizers import load_tokenizer
from armt_jax.training.checkpoints import LATEST, Checkpoints, Restored
from armt_jax.training.optimizer import create_optimizer
from armt_jax.training.state import abstract_state
from armt_jax.training.workdir import read_config, read_config_values

FORMAT = "armt_jax.checkpoint.1"
CONFIG, TOKENIZER = "config.json", setup.TOKENIZER_FILE
_SEGMENT = 512  # of a model without a table of positions, where nobody says otherwise
_KEYS = ("name", "step", "segment_size", "form", "question_end", "model", "parameters")


def load_reading_model(
    folder: str | os.PathLike[str],
    *,
    step: int | str = LATEST,
    segment_size: int | None = None,
    warn: Any = lambda text: None,
) -> ReadingModel:
    """The model of a folder, with its tokenizer, ready to read.

    Args:
      folder: see the module.
      step: of a run: ``latest``, ``best`` or a number.
      segment_size: of a Hugging Face folder, whose model was trained on none; by default as many
        tokens as its positions have room for, at most 512.
      warn: is told about damaged checkpoints that were passed over.

    Raises:
      ConfigError: no such folder, nothing of the above in it, or a file that is damaged or missing.
      CheckpointError: a run without an undamaged checkpoint of that step.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ConfigError(f"folder {str(folder)!r}: there is no such folder")
    about = read_json(folder / CONFIG)
    if "format" in about:
        return _load_checkpoint(folder, about)
    if "model_type" in about:
        return _load_hugging_face(folder, about, segment_size)
    return _read_run(folder, step, warn)[0]


def save_checkpoint(
    folder: str | os.PathLike[str], source: str | os.PathLike[str], *, step: int | str = LATEST
) -> ReadingModel:
    """Write the parameters, settings and tokenizer of a run into a folder of their own.

    Args:
      folder: new or empty; it is there when all of it is written, or not at all.
      source: the folder of a run of BABILong.
      step: ``latest``, ``best`` or a number.

    Returns:
      What was written.

    Raises:
      ConfigError: a folder with something in it or that cannot be written, a source that is no run.
      CheckpointError: a run without an undamaged checkpoint of that step.
    """
    folder, run = Path(folder), Path(source)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"folder {str(folder)!r}: must be new or empty")
    reading, found = _read_run(run, step, lambda text: None)
    form = reading.form
    assert isinstance(form, BabilongForm)
    about = {
        "format": FORMAT,
        "name": reading.name,
        "step": found.step,
        "segment_size": reading.segment_size,
        "segment_overlap": reading.segment_overlap,
        "form": form.kind,
        "question_end": form.question_end,
        "model": dataclasses.asdict(reading.model.config),
        "parameters": reading.parameters_digest,
        "experiment": _without_folders(read_config_values(run)),
    }
    half = folder.parent / f".{folder.name}.{uuid.uuid4().hex}"
    try:
        half.mkdir()
        named = {name: np.asarray(leaf) for name, leaf in _named(reading.params).items()}
        save_arrays(half / SINGLE, named, {"format": FORMAT})
        form.tokenizer.save(half / TOKENIZER)
        (half / CONFIG).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        half.replace(folder)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"folder {str(folder)!r}: cannot be written ({reason})") from error
    finally:
        shutil.rmtree(half, ignore_errors=True)
    return reading


def checkpoint_experiment(
    folder: str | os.PathLike[str], workdir: str | os.PathLike[str]
) -> BabilongExperiment:
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
    if not isinstance(experiment, BabilongExperiment):
        raise ConfigError(f"{str(path)!r}: experiment must be one of BABILong")
    return experiment


def _without_folders(values: dict[str, Any]) -> dict[str, Any]:
    """Settings of a run, but for where it lay, read its data from and started."""
    task, tuning = values["task"] | {"data_dir": None}, values.get("tuning", {}) | {"start": None}
    return values | {"workdir": None, "task": task, "tuning": tuning}


def _load_checkpoint(folder: Path, about: dict[str, Any]) -> ReadingModel:
    where = str(folder / CONFIG)
    if about["format"] != FORMAT:
        raise ConfigError(f"{where!r}: format = {about['format']!r}, must be {FORMAT!r}")
    missing = [key for key in _KEYS if key not in about]
    if missing:
        raise ConfigError(f"{where!r}: lacks {', '.join(missing)}")
    if about["form"] != BabilongForm.kind:
        raise ConfigError(f"{where!r}: form = {about['form']!r}, must be {BabilongForm.kind!r}")
    overlap = about.get("segment_overlap", 0)  # folders of earlier versions know none
    for name, value in (("segment_size", about["segment_size"]), ("segment_overlap", overlap)):
        if not isinstance(value, int):
            raise ConfigError(f"{where!r}: {name} = {value!r}, must be a number")
    try:
        config = ModelConfig(**about["model"])
    except TypeError as error:
        raise ConfigError(f"{where!r}: model: must be settings of a model ({error})") from error
    tokenizer = load_tokenizer(_existing(folder / TOKENIZER))
    tokenizer.check_model(config.vocab_size)
    params = _params(read_file(folder / SINGLE), config, f"folder {str(folder)!r}")
    digest = parameters_digest(params)
    if digest != about["parameters"]:
        raise ConfigError(
            f"folder {str(folder)!r}: {SINGLE} is damaged; the digest of its parameters should be "
            f"{about['parameters'][:8]!r} and is {digest[:8]!r}"
        )
    form = BabilongForm(tokenizer, about["question_end"])
    model = create_model(config)
    return ReadingModel(model, params, form, about["segment_size"], about["name"], overlap)


def _read_run(folder: Path, step: int | str, warn: Any) -> tuple[ReadingModel, Restored]:
    experiment = read_config(folder)
    if not isinstance(experiment, BabilongExperiment):
        raise ConfigError(
            f"folder {str(folder)!r}: is a run of {experiment.name!r}, which reads no text; must "
            "be one of BABILong"
        )
    if not (folder / "checkpoints").is_dir():
        raise ConfigError(f"folder {str(folder)!r}: has no checkpoint yet")
    task, config = experiment.task, experiment.model
    if task.tokenizer == "small":  # which a training would make where it is missing
        _existing(folder / TOKENIZER)
    tokenizer = setup.tokenizer(task, config.vocab_size, folder)
    template = abstract_state(create_model(config), create_optimizer(experiment.optimizer))
    checkpoints = Checkpoints(folder / "checkpoints", read_only=True)
    found = checkpoints.restore(template, step, warn=warn)
    if found is None:
        raise ConfigError(f"folder {str(folder)!r}: has no checkpoint yet")
    form = BabilongForm(tokenizer, question_end(task.task))
    reading = ReadingModel(
        create_model(config),
        found.state.params,
        form,
        task.segment_size,
        experiment.name,
        task.segment_overlap,
    )
    return reading, found


def _load_hugging_face(
    folder: Path, about: dict[str, Any], segment_size: int | None
) -> ReadingModel:
    params, config = hugging_face.load_hugging_face(folder)
    tokenizer = hugging_face.load_tokenizer(folder, config)
    stop = about.get("eos_token_id")
    stop = stop[0] if isinstance(stop, list) and stop else stop
    stop_token = tokenizer.id_to_token(stop) if isinstance(stop, int) else None
    if segment_size is None:
        taken = 0 if config.wrap_pos else config.memory_positions
        room = config.n_positions - taken if config.has_learned_positions else _SEGMENT
        segment_size = max(1, min(_SEGMENT, room))
    form = PlainForm(tokenizer, stop_token)
    return ReadingModel(create_model(config), params, form, segment_size, folder.name)


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


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise ConfigError(f"tokenizer {str(path)!r}: there is no such file")
    return path
