"""Reading a text of any length, block by block, in constant memory."""

from armt_jax.streaming.fast import fast_reader
from armt_jax.streaming.reader import StreamReader, StreamState
from armt_jax.streaming.snapshot import load_stream, save_stream

__all__ = ["StreamReader", "StreamState", "fast_reader", "load_stream", "save_stream"]
