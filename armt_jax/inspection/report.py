"""What was observed of a text, as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from armt_jax.inspection.observe import Observation, observe
from armt_jax.inspection.strength import Strength
from armt_jax.models.protocol import Segment
from armt_jax.reading.documents import Document, TokenDocument
from armt_jax.reading.reading_model import ReadingModel
from armt_jax.recurrence.segmenting import count_overlapping, front_padding, overlapping

SCHEMA = "armt_jax.inspection"
_DIGITS = 6


class Reading(NamedTuple):
    """Segments of a text that were read and looked at.

    Attributes:
      pieces: of each segment the text of its tokens, padding left out.
      seen: of one text: leaves ``[s, l, m, ...]`` and ``[s, l]``, NumPy.
    """

    pieces: list[list[str]]
    seen: Observation


def inspect_reading(
    model: ReadingModel, source: Document | TokenDocument, num_segments: int
) -> Reading:
    """Read the first ``num_segments`` segments of a text (all, if it has fewer), and look."""
    tokens, mask = first_segments(model, source, num_segments)
    state = model.model.init_state(1, model.model.compute_dtype(model.params))
    segments = Segment(jnp.asarray(tokens[:, None]), jnp.asarray(mask[:, None]))
    _, seen = observe(model.model, model.params, state, segments)
    # The axis of texts goes: there is one.
    one = jax.tree.map(lambda leaf: np.asarray(leaf)[:, :, 0], seen)
    rows = zip(tokens, mask, strict=True)
    return Reading([model.form.pieces(row[real]) for row, real in rows], one)


def first_segments(
    model: ReadingModel, source: Document | TokenDocument, num_segments: int
) -> tuple[np.ndarray, np.ndarray]:
    """Ids and mask ``[s, t]`` of the first segments, cut as ``Memory.read`` cuts them."""
    total = source.num_tokens
    sizes = model.segment_size, model.segment_overlap
    padding = front_padding(total, *sizes)
    count = min(num_segments, count_overlapping(total + padding, *sizes))
    stop = count * (sizes[0] - sizes[1]) + sizes[1] - padding
    tokens = np.concatenate([np.zeros(padding, np.int32), source.read(0, stop)])
    mask = np.arange(tokens.size) >= padding
    return overlapping(tokens, *sizes), overlapping(mask, *sizes)


def cosine_similarity(keys: np.ndarray) -> np.ndarray:
    """``[n, n]`` of ``keys [n, k]``; 0 for a key of length 0."""
    length = np.sqrt(np.sum(keys * keys, axis=-1, keepdims=True))
    unit = keys / np.where(length == 0, 1, length)
    return unit @ unit.T


def mean_similarity(keys: np.ndarray) -> dict[str, list[float | None]]:
    """Mean cosine similarity of keys ``[s, l, m, k]``, of each layer: within and across segments.

    None where there are no two such keys.
    """
    segments, layers, tokens = keys.shape[:3]
    place = np.repeat(np.arange(segments), tokens)
    same = place[:, None] == place[None]
    other = ~np.eye(place.size, dtype=bool)
    found: dict[str, list[float | None]] = {"within_segment": [], "across_segments": []}
    for layer in range(layers):
        cosine = cosine_similarity(keys[:, layer].reshape(segments * tokens, -1))
        for name, chosen in (("within_segment", same & other), ("across_segments", ~same)):
            values = cosine[chosen]
            found[name].append(round(float(values.mean()), _DIGITS) if values.size else None)
    return found


def as_json(about: dict[str, Any], reading: Reading, strength: Strength | None) -> dict[str, Any]:
    """Everything that was seen; ``about`` says of what."""
    seen = reading.seen
    segments = [
        {
            "tokens": pieces,
            "beta": _plain(seen.beta[index]),
            "gamma": None if seen.gamma is None else _plain(seen.gamma[index]),
            "written_rows": _plain(seen.rows[index]),
            "A_norm": _plain(seen.A[index]),
            "z_norm": None if seen.z is None else _plain(seen.z[index]),
        }
        for index, pieces in enumerate(reading.pieces)
    ]
    content = {
        "schema": SCHEMA,
        "schema_version": 1,
        **about,
        "axes": "beta, gamma, written_rows: [layer][memory token]; A_norm, z_norm: [layer]",
        "segments": segments,
        "key_similarity": mean_similarity(np.asarray(seen.keys)),
    }
    if strength is not None:
        content["strength"] = {
            "distances": strength.distances.tolist(),
            "strength": _plain(strength.strength),
            "interference": _plain(strength.interference),
            "answer_probability": None if strength.answer is None else _plain(strength.answer),
        }
    return content


def _plain(values: Any) -> Any:
    # Rounded to digits that mean something; tiny numbers stay apart from 0.
    array = np.asarray(values, np.float64)
    return np.vectorize(lambda x: float(f"{x:.{_DIGITS}g}"), otypes=[float])(array).tolist()


def distances_up_to(most: int) -> Sequence[int]:
    """0, 1, 2, 4, ... and ``most``."""
    powers = [2**power for power in range(most.bit_length()) if 2**power < most]
    return [0, *powers, *([most] if most else [])]
