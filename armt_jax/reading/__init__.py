"""Reading texts into a memory that can be kept, asked, forked and read on with."""

from armt_jax.reading.checkpoint_folder import (
    checkpoint_experiment,
    save_changed_checkpoint,
    save_checkpoint,
)
from armt_jax.reading.documents import Document, TokenDocument
from armt_jax.reading.forms import BabilongForm, PlainForm, TextForm, TokenForm
from armt_jax.reading.load import load_reading_model
from armt_jax.reading.memory import Memory, Progress
from armt_jax.reading.memory_file import TextRead
from armt_jax.reading.reading_model import ReadingModel

__all__ = [
    "BabilongForm",
    "Document",
    "Memory",
    "PlainForm",
    "Progress",
    "ReadingModel",
    "TextForm",
    "TextRead",
    "TokenDocument",
    "TokenForm",
    "checkpoint_experiment",
    "load_reading_model",
    "save_changed_checkpoint",
    "save_checkpoint",
]
