"""Reading a text of any length, block by block, in constant memory."""

from armt_jax.streaming.reader import StreamReader, StreamState
from armt_jax.streaming.snapshot import load_stream, save_stream

__all__ = ["StreamReader", "StreamState", "load_stream", "save_stream"]
