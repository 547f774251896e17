"""What a model's memory holds and does with a text, as pictures and JSON.

    python -m experiments.inspect --workdir=runs/babilong_qa1 --document=book.txt --out=inspection \
        --fact="Mary went to the garden." --question="Where is Mary?" --answer=garden

Writes ``gates.png`` (write gates along the text), ``sizes.png`` (A, z, beta and gamma along the
segments), ``keys.png`` (cosine similarity of keys), ``strength.png`` (what is left of a fact after
more and more of the document was read behind it) and ``inspection.json`` with all numbers. Without
``--fact`` the document's first segment is the fact. Models of family ``armt`` only.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from absl import flags

from armt_jax.config import ConfigError
from armt_jax.evaluation.results import atomic_write, git_commit
from armt_jax.inspection import Strength, fact_strength
from armt_jax.inspection.figures import draw_all
from armt_jax.inspection.report import as_json, distances_up_to, first_segments, inspect_reading
from armt_jax.inspection.strength import Asked
from armt_jax.models.protocol import Segment
from armt_jax.reading import Document, ReadingModel
from armt_jax.recurrence.segmenting import count_overlapping, front_padding
from experiments import errors
from experiments.command_line import parse_flags
from experiments.reading_flags import DOCUMENT, QUESTION, load_document, load_model
from experiments.shared_flags import OUT

_SEGMENTS = flags.DEFINE_integer(
    "most_segments", 48, "Segments of the document that are looked at."
)
_NOISE = flags.DEFINE_integer("noise_segments", 1024, "Segments read behind the fact at most.")
_FACT = flags.DEFINE_string("fact", None, "A fact, read as a segment in front of the document.")
_ANSWER = flags.DEFINE_string("answer", None, "The right answer, whose probability is taken.")


def main(argv: list[str]) -> None:
    """Parse the flags, read, and write what was seen."""
    parse_flags(argv)
    if not DOCUMENT.value:
        raise ConfigError("--document: must name a text to read")
    for name, least, value in (
        ("most_segments", 1, _SEGMENTS.value),
        ("noise_segments", 0, _NOISE.value),
    ):
        if value < least:
            raise ConfigError(f"--{name} = {value}: must be at least {least}")
    model = load_model()
    document = load_document(model)
    reading = inspect_reading(model, document, _SEGMENTS.value)
    strength = _strength(model, document)
    out = Path(OUT.value or "inspection")
    out.mkdir(parents=True, exist_ok=True)
    about = {
        "model": model.describe(),
        "rule": model.model.config.rule,
        "segment_size": model.segment_size,
        "segment_overlap": model.segment_overlap,
        "document": {"name": document.name, "sha256": document.digest},
        "document_tokens": document.num_tokens,
        "fact": _FACT.value,
        "question": next(iter(QUESTION.value), None),
        "answer": _ANSWER.value,
        "commit": git_commit(),
    }
    content = json.dumps(as_json(about, reading, strength), indent=1, allow_nan=False) + "\n"
    atomic_write(out / "inspection.json", content.encode())
    written = [out / "inspection.json", *draw_all(out, reading, strength)]
    last = strength.strength[-1]
    print(
        f"{model.name}: {len(reading.pieces)} segments seen; after {strength.distances[-1]} "
        f"segments of noise {' '.join(f'{x:.2f}' for x in last)} of the fact is left in layers "
        f"0 to {last.size - 1}"
    )
    for path in written:
        print(path)


def _strength(model: ReadingModel, document: Document) -> Strength:
    """Of ``--fact`` or of the document's first segment; the rest of the document is the noise."""
    if len(QUESTION.value) > 1 or bool(QUESTION.value) != bool(_ANSWER.value):
        raise ConfigError("--question and --answer: must be given together, one of each")
    size, overlap = model.segment_size, model.segment_overlap
    if _FACT.value is None:
        fact = document
        start = max(0, size - front_padding(document.num_tokens, size, overlap) - overlap)
    else:
        fact, start = Document.of_text(_FACT.value, model.form, "fact"), 0
        if fact.num_tokens > size:
            raise ConfigError(
                f"--fact: has {fact.num_tokens} tokens, must be at most {size}, a segment"
            )
    tokens, mask = first_segments(model, fact, 1)
    noise = document.read(start, start + _NOISE.value * (size - overlap) + overlap)
    asked = None
    if QUESTION.value and _ANSWER.value:
        target = np.array(model.form.target(_ANSWER.value), np.int32)
        (prompt,) = model.prompts(QUESTION.value, target.size)
        asked = Asked(np.concatenate([prompt, target]), prompt.size)
    return fact_strength(
        model.reader,
        model.params,
        model.model.init_state(1, model.model.compute_dtype(model.params)),
        Segment(jnp.asarray(tokens), jnp.asarray(mask)),
        noise,
        distances_up_to(count_overlapping(noise.size, size, overlap)),
        asked,
    )


if __name__ == "__main__":
    sys.exit(errors.run(lambda: main(sys.argv)))
