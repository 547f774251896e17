"""A memory as a ``safetensors`` file: arrays and text, nothing that could run.

Arrays: ``memory.*``, the model's state after the last whole segment, and ``tokens`` and ``mask``,
the beginning of the next one, where a text is half read. Metadata (all strings):

    format          armt_jax.memory.1; another number is another layout
    library         version of the library that wrote it, for people
    model           the settings of the model as JSON
    parameters      digest of its parameters
    form            fingerprint of tokenizer and form of text
    segment_size    tokens of a segment
    segment_overlap tokens of it that repeat the last ones of the segment before
    texts           JSON: of each text its name, digest (SHA-256), tokens read, tokens, complete
    tokens_read     of all texts
    fed             tokens fed, padding counted
    digest          SHA-256 of all of the above and of the arrays
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors import numpy as safetensors_numpy

from armt_jax.config import ConfigError, ModelConfig
from armt_jax.evaluation.results import atomic_write
from armt_jax.reading.reading_model import ReadingModel
from armt_jax.streaming import StreamState

FORMAT = "armt_jax.memory.1"
_LETTERS = 8  # of a digest in a message


@dataclasses.dataclass(frozen=True)
class TextRead:
    """What was read of one text.

    Attributes:
      name: of the file, or what the caller says.
      digest: SHA-256 of its bytes (of ids: of their int32 bytes; of a stream: of what was read).
      tokens: read so far, padding not counted.
      total: tokens of the text; None where nobody knows yet.
      complete: read to its end.
    """

    name: str
    digest: str
    tokens: int
    total: int | None
    complete: bool = False

    def describe(self) -> str:
        """Such as ``'book.txt' (12,345 tokens, digest 1f0c77a2)``."""
        total = "" if self.total is None else f"{self.total:,} tokens, "
        return f"{self.name!r} ({total}digest {self.digest[:_LETTERS]})"


def save(
    path: str | os.PathLike[str],
    model: ReadingModel,
    state: StreamState,
    texts: Sequence[TextRead],
) -> None:
    """Write a memory to ``path``, all of it or nothing: a file that is there stays till then.

    Raises:
      OSError: the folder is missing or unwritable, or the disk is full.
    """
    arrays = {name: np.asarray(leaf) for name, leaf in _named(state.memory).items()}
    arrays |= {"tokens": state.tokens, "mask": state.mask}
    # The writer takes the bytes as they lie: a transposed view would be written wrongly.
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    about = {
        "format": FORMAT,
        "library": _version(),
        "model": json.dumps(dataclasses.asdict(model.model.config), sort_keys=True),
        "parameters": model.parameters_digest,
        "form": model.form.fingerprint,
        "segment_size": str(model.segment_size),
        "segment_overlap": str(model.segment_overlap),
        "texts": json.dumps([dataclasses.asdict(text) for text in texts]),
        "tokens_read": str(sum(text.tokens for text in texts)),
        "fed": str(state.tokens_read),
    }
    about["digest"] = _digest(about, arrays)
    atomic_write(path, safetensors_numpy.save(arrays, about))


def load(
    path: str | os.PathLike[str], model: ReadingModel, empty: StreamState
) -> tuple[StreamState, tuple[TextRead, ...]]:
    """What ``save`` wrote, for the same model; ``empty`` is a state of the shape that is wanted.

    Raises:
      ConfigError: no such file, a damaged one, one of another format, model, tokenizer or segment
        size: what was expected and what was found.
    """
    where = f"memory file {str(path)!r}"
    about, arrays = _read(Path(path), where)
    _check_model(about, model, where)
    wanted = _named(empty.memory)
    found = {name for name in arrays if name not in ("tokens", "mask")}
    wrong = sorted(found ^ wanted.keys()) + [
        name for name in sorted(found & wanted.keys()) if arrays[name].shape != wanted[name].shape
    ]
    if wrong:
        raise ConfigError(f"{where}: {', '.join(wrong)}: must be the arrays of this model's state")
    leaves = [jnp.asarray(arrays[name], leaf.dtype) for name, leaf in wanted.items()]
    memory = jax.tree.unflatten(jax.tree.structure(empty.memory), leaves)
    # Where the reader has it: a mesh, or one device.
    shardings = jax.tree.map(lambda leaf: leaf.sharding, empty.memory)
    memory = jax.device_put(memory, shardings)
    texts = tuple(TextRead(**text) for text in json.loads(about["texts"]))
    state = StreamState(memory, arrays["tokens"], arrays["mask"], int(about["fed"]), empty.ticket)
    return state, texts


def _read(path: Path, where: str) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """Metadata and arrays, if they are what was saved."""
    if not path.is_file():
        raise ConfigError(f"{where}: there is no such file")
    try:
        with safe_open(path, framework="numpy") as file:
            about: dict[str, str] = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ConfigError(f"{where}: is damaged, cut short or no memory file ({error})") from error
    if about.get("format") != FORMAT:
        raise ConfigError(
            f"{where}: has format {about.get('format')!r}, must be {FORMAT!r} (this library is "
            f"{_version()}, the file's {about.get('library')})"
        )
    expected = about.pop("digest", "")
    found = _digest(about, arrays)
    if expected != found:
        raise ConfigError(
            f"{where}: is damaged; its digest should be {expected[:_LETTERS]!r} and is "
            f"{found[:_LETTERS]!r}"
        )
    return about, arrays


def _as_json(config: ModelConfig) -> dict[str, Any]:
    """Settings as the file has them: lists for tuples."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def _check_model(about: Mapping[str, str], model: ReadingModel, where: str) -> None:
    # A file of a version whose models had fewer settings has the defaults of the others.
    stored = {**_as_json(ModelConfig()), **json.loads(about["model"])}
    ours = _as_json(model.model.config)
    differing = [
        f"model.{name} = {stored.get(name)!r} there, {ours.get(name)!r} here"
        for name in sorted(stored.keys() | ours.keys())
        if stored.get(name) != ours.get(name)
    ]
    if differing:
        raise ConfigError(f"{where}: is of another model: {'; '.join(differing)}")
    for name, expected, what in (
        ("parameters", model.parameters_digest, "was made by other parameters of such a model"),
        ("form", model.form.fingerprint, "was read with another tokenizer or form of text"),
        ("segment_size", str(model.segment_size), "was read in other segments"),
        ("segment_overlap", str(model.segment_overlap), "was read in other segments"),
    ):
        # Files of earlier versions know no overlap: they have none.
        stored = about.get(name, "0")
        if stored != expected:
            raise ConfigError(
                f"{where}: {what}: {name} {stored[:_LETTERS]} there, "
                f"{expected[:_LETTERS]} here ({model.name})"
            )


def _named(memory: Any) -> dict[str, jax.Array]:
    leaves = jax.tree_util.tree_leaves_with_path(memory)
    name = jax.tree_util.keystr
    return {f"memory.{name(path, simple=True, separator='.')}": leaf for path, leaf in leaves}


def _digest(about: Mapping[str, str], arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256(json.dumps(dict(about), sort_keys=True).encode())
    for name in sorted(arrays):
        values = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {values.dtype} {values.shape}\n".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def _version() -> str:
    try:
        return importlib.metadata.version("armt_jax")
    except importlib.metadata.PackageNotFoundError:  # used from its sources
        return "unknown"
