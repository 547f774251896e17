"""Named arrays in files: ``safetensors`` in one file or several, and PyTorch's own format.

Nothing here executes what a file says. PyTorch's ``.bin`` is a pickle; it is left to
``torch.load(weights_only=True)``, where torch is installed.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from armt_jax.config import ConfigError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_TORCH_SINGLE, _TORCH_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
# Before 2.6 ``weights_only`` could be led to execute code (CVE-2025-32434).
_SAFE_TORCH = (2, 6)
_CONVERT = (
    'python -c "import torch, safetensors.torch as s; '
    "s.save_file({k: v.clone() for k, v in torch.load('pytorch_model.bin', "
    "map_location='cpu', weights_only=True).items()}, 'model.safetensors')\""
)


@dataclasses.dataclass(frozen=True)
class Weights:
    """Arrays that are read when they are asked for.

    Attributes:
      shapes: of all arrays, by name.
      read: the array of a name.
    """

    shapes: dict[str, tuple[int, ...]]
    read: Callable[[str], np.ndarray]

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> Weights:
        """Arrays in memory."""
        return cls({name: np.shape(array) for name, array in arrays.items()}, arrays.__getitem__)

    def renamed(self, new_name: Callable[[str], str]) -> Weights:
        """The same arrays under other names, which must differ from each other."""
        old = {new_name(name): name for name in self.shapes}
        shapes = {name: self.shapes[old[name]] for name in old}
        return Weights(shapes, lambda name: self.read(old[name]))


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """All arrays of a file or folder, by name: what ``load_official`` takes.

    Args:
      path: a ``.safetensors`` file, a PyTorch file, or a folder as ``open_folder`` reads it.

    Raises:
      ConfigError: no such file, or one that is damaged or cannot be read safely here.
    """
    path = Path(path)
    weights = open_folder(path) if path.is_dir() else read_file(path)
    return {name: weights.read(name) for name in weights.shapes}


def open_folder(folder: Path) -> Weights:
    """The weights of a Hugging Face folder: safetensors, else PyTorch's; one file or several.

    Raises:
      ConfigError: no weights, a file of the index that is missing or elsewhere, a damaged file.
    """
    for single, index in ((SINGLE, INDEX), (_TORCH_SINGLE, _TORCH_INDEX)):
        if (folder / index).is_file():
            return _open_sharded(folder, index)
        if (folder / single).is_file():
            return read_file(folder / single)
    raise ConfigError(f"folder {str(folder)!r}: has no {SINGLE} or {INDEX} (or {_TORCH_SINGLE})")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
      ConfigError: no such file, or something else in it.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{str(path)!r}: there is no such file") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{str(path)!r}: is damaged or no JSON file ({error})") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{str(path)!r}: must be a JSON object")
    return found


def write_shards(folder: Path, arrays: Mapping[str, np.ndarray], max_shard_bytes: int) -> None:
    """One ``safetensors`` file, or numbered ones of at most ``max_shard_bytes`` with an index."""
    shards: list[dict[str, np.ndarray]] = [{}]
    size = 0
    for name, array in arrays.items():
        if shards[-1] and size + array.nbytes > max_shard_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = array
        size += array.nbytes
    # What transformers looks for before it reads a file.
    about = {"format": "pt"}
    if len(shards) == 1:
        save_arrays(folder / SINGLE, shards[0], about)
        return
    files = [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    for file, shard in zip(files, shards, strict=True):
        save_arrays(folder / file, shard, about)
    index = {
        "metadata": {"total_size": sum(array.nbytes for array in arrays.values())},
        "weight_map": {name: f for f, s in zip(files, shards, strict=True) for name in s},
    }
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def save_arrays(
    path: Path, arrays: Mapping[str, np.ndarray], about: dict[str, str] | None = None
) -> None:
    """A safetensors file, with the rights that any new file has here.

    Raises:
      OSError, SafetensorError: it cannot be written.
    """
    path.touch()
    rights = path.stat().st_mode  # the writer puts a file for its owner alone in the place of this
    # It takes the bytes as they lie: a transposed view would be written wrongly.
    save_file({name: np.ascontiguousarray(arrays[name]) for name in arrays}, path, about)
    path.chmod(rights)


def read_file(path: Path) -> Weights:
    """The arrays of one file, of which kind its name says.

    Raises:
      ConfigError: no such file, or one that is damaged or cannot be read safely here.
    """
    if not path.is_file():
        raise ConfigError(f"weights {str(path)!r}: there is no such file")
    if path.suffix == ".safetensors":
        return _open_safetensors(path)
    return Weights.of(_read_torch(path))


def _open_safetensors(path: Path) -> Weights:
    where = f"weights {str(path)!r}"
    try:
        file = safe_open(path, framework="numpy")
        names = list(file.keys())
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in names}
    except (SafetensorError, OSError) as error:
        raise ConfigError(f"{where}: is damaged or no safetensors file ({error})") from error

    def read(name: str) -> np.ndarray:
        try:
            return file.get_tensor(name)
        except (SafetensorError, TypeError, KeyError) as error:
            kind = file.get_slice(name).get_dtype()
            raise ConfigError(f"{where}: {name} has dtype {kind}, which NumPy lacks") from error

    return Weights(shapes, read)


def _open_sharded(folder: Path, index: str) -> Weights:
    places = read_json(folder / index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise ConfigError(f"{str(folder / index)!r}: must have a weight_map of names and files")
    files = sorted({str(file) for file in places.values()})
    outside = [file for file in files if Path(file).name != file]
    if outside:
        raise ConfigError(
            f"{str(folder / index)!r}: must name files of its own folder, not {', '.join(outside)}"
        )
    missing = [file for file in files if not (folder / file).is_file()]
    if missing:
        raise ConfigError(f"folder {str(folder)!r}: lacks {', '.join(missing)} of its index")
    opened = {file: read_file(folder / file) for file in files}
    absent = [name for name, file in places.items() if name not in opened[file].shapes]
    if absent:
        raise ConfigError(
            f"folder {str(folder)!r}: the index names what its files lack: {', '.join(absent)}"
        )
    shapes = {name: opened[file].shapes[name] for name, file in places.items()}
    return Weights(shapes, lambda name: opened[places[name]].read(name))


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    where = f"weights {str(path)!r}"
    try:
        torch = importlib.import_module("torch")
    except ImportError as error:
        raise ConfigError(
            f"{where}: is a pickle, read by torch >= 2.6 alone (pip install torch); or convert it "
            f"where torch is installed: {_CONVERT}"
        ) from error
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if version < _SAFE_TORCH:
        raise ConfigError(f"{where}: torch is {torch.__version__}, must be 2.6 or newer to be safe")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch says it over several lines, with advice to switch the check off.
        reason = str(error).strip().splitlines()[0][:200]
        raise ConfigError(f"{where}: is damaged, or holds more than weights ({reason})") from error
    if not isinstance(loaded, dict) or not all(map(torch.is_tensor, loaded.values())):
        raise ConfigError(f"{where}: must be a dictionary of names and tensors")
    return {str(name): _to_numpy(torch, tensor) for name, tensor in loaded.items()}


def _to_numpy(torch: Any, tensor: Any) -> np.ndarray:
    # NumPy has no bfloat16 that torch knows; float32 holds it exactly.
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
