"""Continue a text with a trained model, for as long as wanted.

    python -m experiments.generate --workdir=runs/wikitext --prompt="The river" \
        --max_new_tokens=400 --temperature=0.8 --top_p=0.95
    python -m experiments.generate --checkpoint=SmolLM2 --document=beginning.txt

``--prompt`` or the file ``--document`` is read in segments of the size that the model was trained
on. What is generated goes on in them: a full segment is written to the memory, and the next one
begins. ``--checkpoint=FOLDER`` takes a folder of ``experiments.export`` or of Hugging Face instead
of a run. 200 tokens are generated at most, the likeliest ones unless ``--temperature`` says
otherwise; then ``--num_texts`` may be drawn of one prompt. A text goes to standard output while it
is made, several are numbered and come at the end; the prompt is not repeated.
"""

from __future__ import annotations

import itertools
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from armt_jax.config import ConfigError
from armt_jax.evaluation.answers import until_stop
from armt_jax.generation import generate, generate_stream
from armt_jax.reading import ReadingModel
from armt_jax.reading.documents import encoded
from armt_jax.reading.text_stream import text_stream
from experiments import errors, sampling_flags
from experiments.command_line import parse_flags
from experiments.reading_flags import DOCUMENT, load_document, load_model

_PROMPT = flags.DEFINE_string("prompt", None, "Text to continue.")
_TEXTS = flags.DEFINE_integer("num_texts", 1, "Texts that are drawn of one prompt.", lower_bound=1)
_USUAL = 200  # tokens


def main(argv: list[str]) -> None:
    """Parse the flags, read the prompt and write what follows."""
    parse_flags(argv)
    if (_PROMPT.value is None) == (DOCUMENT.value is None):
        raise ConfigError("--prompt or --document: one of them must give a text to continue")
    how = sampling_flags.settings()
    sampling = how.pop("sampling")
    if _TEXTS.value > 1 and sampling.temperature == 0:
        raise ConfigError(f"--num_texts = {_TEXTS.value}: needs --temperature, or all are the same")
    model = load_model()
    prompts = jnp.asarray(np.tile(_prompt(model), (_TEXTS.value, 1)))
    write = _write_one if _TEXTS.value == 1 else _write_all
    write(
        model,
        prompts,
        segment_size=model.segment_size,
        max_new_tokens=sampling_flags.new_tokens(_USUAL),
        stop_token=model.form.stop_id,
        **sampling._asdict(),
        **how,
    )


def _write_one(model: ReadingModel, prompts: jax.Array, **settings: Any) -> None:
    """The text of ``prompts [1, n]``, as it is made."""
    made = (int(ids[0]) for ids in generate_stream(model.model, model.params, prompts, **settings))
    stop = model.form.stop_id
    for piece in text_stream(model.form, itertools.takewhile(lambda token: token != stop, made)):
        print(piece, end="", flush=True)
    print()


def _write_all(model: ReadingModel, prompts: jax.Array, **settings: Any) -> None:
    """The texts of ``prompts [b, n]``, numbered."""
    found = generate(model.model, model.params, prompts, new_segments=True, **settings)
    for number, ids in enumerate(np.asarray(found), 1):
        print(f"{number}\t{model.form.answer(until_stop(ids, model.form.stop_id))}", flush=True)


def _prompt(model: ReadingModel) -> np.ndarray:
    """Ids of the prompt.

    Raises:
      ConfigError: a text without tokens, or not UTF-8; segments that overlap, as none can here.
    """
    if model.segment_overlap:
        raise ConfigError(
            f"{model.describe()}: reads segments that overlap by {model.segment_overlap} tokens; "
            "must be a model whose segments do not"
        )
    if _PROMPT.value is None:
        document = load_document(model)
        return np.asarray(document.read(0, document.num_tokens), np.int32)
    encoded(_PROMPT.value, "--prompt")
    ids = model.form.passage(_PROMPT.value)
    if not ids:
        raise ConfigError(f"--prompt = {_PROMPT.value!r}: has no token, must have one")
    return np.asarray(ids, np.int32)


if __name__ == "__main__":
    sys.exit(errors.run(lambda: main(sys.argv)))
