"""Reading texts in segments: schedules, segmenting, and queries forked from one memory."""

from armt_jax.recurrence.fork import answer
from armt_jax.recurrence.run import Output, forward, run_segments
from armt_jax.recurrence.segmenting import segment_lengths

__all__ = ["Output", "answer", "forward", "run_segments", "segment_lengths"]
