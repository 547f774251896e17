"""Continue a text with a trained model, for as long as wanted.

    python -m experiments.generate --workdir=runs/wikitext --prompt="The river" \
        --max_new_tokens=400 --temperature=0.8 --top_p=0.95
    python -m experiments.generate --checkpoint=SmolLM2 --document=beginning.txt

``--prompt`` or the file ``--document`` is read in segments of the size that the model was trained
on. What is generated goes on in them: a full segment is written to the memory, and the next one
begins. ``--checkpoint=FOLDER`` takes a folder of ``experiments.export`` or of Hugging Face instead
of a run. 200 tokens are generated at most, the likeliest ones unless ``--temperature`` says
otherwise; then ``--num_texts`` may be drawn of one prompt. Text goes to standard output, the
prompt is not repeated; several texts are numbered.
"""

from __future__ import annotations

import sys

import jax.numpy as jnp
import numpy as np
from absl import flags

from armt_jax.config import ConfigError
from armt_jax.evaluation.answers import until_stop
from armt_jax.generation import generate
from armt_jax.reading import ReadingModel
from armt_jax.reading.documents import encoded
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
    prompt = _prompt(model)
    found = generate(
        model.model,
        model.params,
        jnp.asarray(np.tile(prompt, (_TEXTS.value, 1))),
        segment_size=model.segment_size,
        max_new_tokens=sampling_flags.new_tokens(_USUAL),
        new_segments=True,
        stop_token=model.form.stop_id,
        **sampling._asdict(),
        **how,
    )
    for number, ids in enumerate(np.asarray(found), 1):
        text = model.form.answer(until_stop(ids, model.form.stop_id))
        print(text if _TEXTS.value == 1 else f"{number}\t{text}", flush=True)


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
