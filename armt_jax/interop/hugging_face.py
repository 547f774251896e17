"""Hugging Face folders (GPT-2, GPT-NeoX, Llama): ``config.json``, ``safetensors``, a tokenizer.

    params, config = armt_jax.interop.load_hugging_face("SmolLM2-135M")
    save_hugging_face("mine", params, config, source="SmolLM2-135M")

A folder that ``save_hugging_face`` wrote has the memory beside the backbone, in a file of its own
and under ``armt_jax`` in ``config.json``: transformers reads the backbone and passes over both.
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
from safetensors import SafetensorError
from tokenizers import Tokenizer

from armt_jax.config import ConfigError, ModelConfig
from armt_jax.interop.hf_config import backbone_fields, config_json
from armt_jax.interop.names import HEADS, ROOTS
from armt_jax.interop.pretrained import export_arrays, import_params
from armt_jax.interop.weights import (
    Weights,
    open_folder,
    read_file,
    read_json,
    save_arrays,
    write_shards,
)
from armt_jax.models.protocol import Params

CONFIG, MEMORY_FILE, OURS = "config.json", "armt_jax_memory.safetensors", "armt_jax"
# What a tokenizer or a generation needs beside the weights.
COMPANIONS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "generation_config.json",
)


def load_hugging_face(
    folder: str | os.PathLike[str],
    *,
    rng: jax.Array | None = None,
    dtype: jax.typing.DTypeLike | None = None,
    **settings: Any,
) -> tuple[Params, ModelConfig]:
    """A pretrained backbone with an associative memory, which starts as the backbone itself.

    Args:
      folder: with ``config.json`` and weights in one file or several.
      rng: for the fresh memory; ``jax.random.key(0)`` by default.
      dtype: of the parameters; by default JAX's float (float32 unless x64 is enabled).
      settings: fields of ``ModelConfig`` that are not the backbone's: ``num_mem_tokens`` (16 by
        default), ``d_mem`` (64), ``nu``, ``rule``, ``wrap_pos``, ``matmul_precision``.

    Returns:
      Parameters and the configuration they are for.

    Raises:
      ConfigError: an architecture that is not built here, weights that are missing, left over or of
        another shape (all listed at once), a damaged or missing file.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ConfigError(f"folder {str(folder)!r}: there is no such folder")
    about = read_json(folder / CONFIG)
    fields = backbone_fields(about, str(folder / CONFIG))
    ours = about.get(OURS)
    config = model_config(fields, settings) if ours is None else _ours(ours, fields, settings)
    weights = _with_root(open_folder(folder), config)
    if ours is not None:
        weights = _joined(weights, read_file(folder / MEMORY_FILE))
    what = f"folder {str(folder)!r}"
    return import_params(weights, config, what=what, rng=rng, dtype=dtype), config


def save_hugging_face(
    folder: str | os.PathLike[str],
    params: Params,
    config: ModelConfig,
    *,
    source: str | os.PathLike[str] | None = None,
    max_shard_bytes: int = 5_000_000_000,
) -> None:
    """Write what ``load_hugging_face`` reads and, but for the memory, transformers too.

    Args:
      folder: a new or empty one; it is there when all of it is written, or not at all.
      params: in the dtype to be written.
      config: of the parameters.
      source: the folder they once came from: its tokenizer is copied, and what its ``config.json``
        says beyond the shape (token ids, names) is kept.
      max_shard_bytes: weights beyond it go into several files with an index.

    Raises:
      ConfigError: a folder with something in it, or that cannot be written.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"folder {str(folder)!r}: must be new or empty")
    if max_shard_bytes < 1:
        raise ConfigError(f"max_shard_bytes = {max_shard_bytes}: must be at least 1")
    kept = {} if source is None else read_json(Path(source) / CONFIG)
    # An older file's rotary settings would stand against the ones written here.
    kept = {key: kept[key] for key in kept if key not in ("rope_parameters", "rope_scaling", OURS)}
    about = kept | config_json(config) | {OURS: dataclasses.asdict(config)}
    backbone, memory = export_arrays(params, config)
    half = folder.parent / f".{folder.name}.{uuid.uuid4().hex}"
    try:
        half.mkdir()
        write_shards(half, backbone, max_shard_bytes)
        save_arrays(half / MEMORY_FILE, memory)
        (half / CONFIG).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        for name in COMPANIONS if source is not None else ():
            if (Path(source or "") / name).is_file():
                shutil.copyfile(Path(source or "") / name, half / name)
        half.replace(folder)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"folder {str(folder)!r}: cannot be written ({reason})") from error
    finally:
        shutil.rmtree(half, ignore_errors=True)


def load_tokenizer(folder: str | os.PathLike[str], config: ModelConfig) -> Tokenizer:
    """The tokenizer of a folder (or a ``tokenizer.json``), if its ids are the model's.

    Raises:
      ConfigError: no such file, a damaged one, or ids that the model has no embedding for.
    """
    path = Path(folder)
    path = path / "tokenizer.json" if path.is_dir() else path
    where = f"tokenizer {str(path)!r}"
    if not path.is_file():
        raise ConfigError(f"{where}: there is no such file")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception
        raise ConfigError(f"{where}: is damaged or no tokenizer ({error})") from error
    check_tokenizer(tokenizer, config, where)
    return tokenizer


def check_tokenizer(tokenizer: Tokenizer, config: ModelConfig, where: str) -> None:
    """Refuse a tokenizer with ids beyond the model's vocabulary.

    Raises:
      ConfigError: the largest id and what it must be below.
    """
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    if largest >= config.vocab_size:
        raise ConfigError(
            f"{where}: has ids up to {largest}, must be below model.vocab_size = "
            f"{config.vocab_size}: it belongs to another model"
        )


def model_config(fields: dict[str, Any], settings: dict[str, Any]) -> ModelConfig:
    """The configuration of a backbone with a fresh memory.

    Raises:
      ConfigError: settings that are the backbone's own, unknown, or impossible.
    """
    known = {field.name for field in dataclasses.fields(ModelConfig)}
    for name, value in settings.items():
        if name not in known:
            raise ConfigError(f"model.{name} = {value!r}: is no setting of a model")
        if name in fields and fields[name] != value:
            raise ConfigError(f"model.{name} = {value!r}: must be the backbone's {fields[name]!r}")
    # The paper's sizes for a pretrained GPT-2.
    return ModelConfig(**{"num_mem_tokens": 16, "d_mem": 64, **fields, **settings})


def _ours(ours: Any, fields: dict[str, Any], settings: dict[str, Any]) -> ModelConfig:
    """The configuration that ``save_hugging_face`` wrote, if the rest of the file agrees."""
    try:
        config = ModelConfig(**{**ours, **settings})
    except TypeError as error:
        raise ConfigError(
            f"{CONFIG}: {OURS} = {ours!r}: must be the settings of a model"
        ) from error
    resolved = dataclasses.asdict(config)
    resolved |= {"tie_embeddings": config.is_tied, "n_kv_head": config.kv_heads}
    resolved |= {"d_ff": config.ff_dim}
    for name, value in fields.items():
        if value is not None and resolved[name] != value:
            raise ConfigError(
                f"{CONFIG}: {OURS}.{name} = {resolved[name]!r}: must be {value!r}, as beside it"
            )
    return config


def _with_root(weights: Weights, config: ModelConfig) -> Weights:
    """``weights`` with the root of the backbone's names, which a model saved without head lacks."""
    root = ROOTS[config.backbone]
    if any(name.startswith(root) for name in weights.shapes):
        return weights
    head = HEADS[config.backbone]
    return weights.renamed(lambda name: name if name == head else root + name)


def _joined(one: Weights, other: Weights) -> Weights:
    owners = {name: weights for weights in (one, other) for name in weights.shapes}
    return Weights(one.shapes | other.shapes, lambda name: owners[name].read(name))
