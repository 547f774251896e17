"""Parameters from and to other codebases."""

from armt_jax.interop.gguf_files import gguf_tokenizer, load_gguf
from armt_jax.interop.hugging_face import load_hugging_face, load_tokenizer, save_hugging_face
from armt_jax.interop.official import load_official, to_official
from armt_jax.interop.official_files import load_official_file, save_official
from armt_jax.interop.weights import read_state_dict

__all__ = [
    "gguf_tokenizer",
    "load_gguf",
    "load_hugging_face",
    "load_official",
    "load_official_file",
    "load_tokenizer",
    "read_state_dict",
    "save_hugging_face",
    "save_official",
    "to_official",
]
