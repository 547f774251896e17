"""``train.schedule``, ``train.remat`` and ``train.bptt`` reach the gradient of a training step."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import pytest

from armt_jax.config import from_config_dict
from armt_jax.evaluation.scoring import Reading
from armt_jax.recurrence import passing
from armt_jax.training import loop, programs
from armt_jax.training.step import accumulate_gradients
from tests.config_values import changed
from tests.small_models import assert_close, quick_jit
from tests.step_test import MODEL, SCORING, busy_params, draw_batch
from tests.truncation_test import by_hand


def _gradients(reading: Reading, pieces: int = 1) -> Any:
    def run(params: Any, batch: Any) -> Any:
        return accumulate_gradients(MODEL, params, batch, SCORING, pieces, reading=reading)

    return quick_jit(run)(busy_params(), draw_batch(4))


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_queries_train_the_last_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a loop with ``stop_gradient`` after two of the four segments."""
    scores, grads = _gradients(Reading("auto", "none", 2))
    with monkeypatch.context() as patch:
        patch.setattr(passing, "run_segments", by_hand)
        expected = _gradients(Reading("a loop", "none", 2))
        whole_scores, whole = _gradients(Reading("a loop"))
    assert_close((scores, grads), expected, 1e-10)
    assert float(scores.loss) == pytest.approx(float(whole_scores.loss), rel=1e-12)
    kernel = [tree["layers"]["memory"]["W_mk"]["kernel"] for tree in (grads, whole)]
    assert jnp.linalg.norm(kernel[0] - kernel[1]) > 1e-3 * jnp.linalg.norm(kernel[1])


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_remat_and_schedule_change_no_gradient() -> None:
    expected = _gradients(Reading("chunked"))
    for reading in (Reading("sequential", "sqrt"), Reading("diagonal", "segment")):
        assert_close(_gradients(reading, pieces=2), expected, 1e-10)


class _ReachedError(Exception):
    """Carries what the training step was made with."""


@pytest.mark.parametrize(
    ("field", "value"), [("schedule", "diagonal"), ("remat", "sqrt"), ("bptt", 3)]
)
def test_settings_reach_the_training_step(
    field: str, value: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """The trainer stops where it has made its step: nothing is compiled."""

    def stop(*args: Any) -> None:
        raise _ReachedError(*args)

    monkeypatch.setattr(programs, "jit_train_step", stop)
    config = from_config_dict(changed(f"train.{field}", value))
    folder = loop.Workdir(config)
    folder.checkpoints = tmp_path / "checkpoints"
    with pytest.raises(_ReachedError) as reached:
        loop.Trainer(config, folder)
    assert reached.value.args[-1] == Reading()._replace(**{field: value})
