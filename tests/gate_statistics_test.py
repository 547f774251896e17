"""Which segments open gates: counted as a loop over segments does, and from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import flagsaver

from armt_jax.evaluation.gate_statistics import OPEN, gate_statistics
from armt_jax.tasks.babilong.sample import BabilongSample, build_sample, sample_rng
from armt_jax.tasks.babilong.simulator import Simulator
from experiments.babilong_gates import main
from experiments.train import train_and_evaluate
from tests.babilong_experiment_test import tiny
from tests.small_models import lively_params, segments_of, small_model
from tests.tasks.babilong.stories import small_books

SIZE, SEGMENTS = 16, 40
SHUT, HARD_SHUT = 7.0, 3.0
BOOKS = small_books()


def samples() -> list[BabilongSample]:
    tokens = SEGMENTS * SIZE + 5
    short = (Simulator("qa1", 0).question(index) for index in range(100))
    fitting = [question for question in short if len(question.facts) <= 4][:2]
    return [build_sample(BOOKS, one, tokens, sample_rng(0, i)) for i, one in enumerate(fitting)]


@pytest.mark.parametrize(("rule", "overlap"), [("linear", 0), ("delta_hard", 6)])
def test_rows_are_those_of_a_loop_over_segments(rule: str, overlap: int) -> None:
    places = [slice(i, i + SIZE) for i in range(0, SEGMENTS * SIZE + 6 - SIZE, SIZE - overlap)]
    model = small_model(rule=rule, backbone="gpt_neox", vocab_size=BOOKS.tokenizer.vocab_size)
    params = lively_params(model)
    # Gates so far down that some segments open one and others none.
    bias = params["layers"]["memory"]["W_mb"]["bias"]
    params["layers"]["memory"]["W_mb"]["bias"] = bias - (
        HARD_SHUT if rule == "delta_hard" else SHUT
    )
    contexts = samples()
    facts = np.array([[_has_fact(one, place) for one in contexts] for place in places])
    assert facts.any(0).all()
    assert not facts.all(0).any()
    state, betas, sizes = model.init_state(2), [], []
    write = jax.jit(model.write)
    logits = jax.jit(model.gate_logits)
    for place in places:
        tokens = np.stack([one.read(place.start, place.stop) for one in contexts])
        segment = segments_of(jnp.asarray(tokens))
        beta = 1 / (1 + np.exp(-np.asarray(logits(params, state, segment), np.float64)))
        betas.append(np.clip(1.2 * beta - 0.1, 0, 1) if rule == "delta_hard" else beta)
        state = write(params, state, segment)
        sizes.append(np.sqrt(np.sum(np.asarray(state.A) ** 2, axis=(2, 3))))
    gates, norms = np.stack(betas), np.stack(sizes)
    rows, texts = gate_statistics(model, params, contexts, SIZE, most=5, segment_overlap=overlap)
    assert [(row.layer, row.kind) for row in rows] == [
        (layer, kind) for layer in (0, 1) for kind in ("fact", "noise")
    ]
    for row in rows:
        where = facts if row.kind == "fact" else ~facts
        mine = gates[:, row.layer][where]
        assert row.segments == where.sum()
        assert row.opened == (mine.max(-1) > OPEN).sum()
        np.testing.assert_allclose(row.gate, mine.mean(), rtol=1e-4)
        np.testing.assert_allclose(row.size, norms[:, row.layer][where].mean(), rtol=1e-4)
        assert (row.gamma is None) == (rule == "delta_hard")
    assert 0 < sum(row.opened for row in rows) < sum(row.segments for row in rows)
    widest = np.sort(gates.max(axis=(1, 3))[~facts])[::-1][:5]
    np.testing.assert_allclose([one.gate for one in texts], widest, rtol=1e-4)
    for one in texts:
        which = np.argwhere(np.isclose(gates.max(axis=(1, 3)), one.gate, rtol=1e-5))[0]
        place = places[which[0]]
        read = contexts[which[1]].read(place.start, place.stop)
        np.testing.assert_array_equal(one.tokens, read)
        assert one.layer == gates[which[0], :, which[1]].max(-1).argmax()


def _has_fact(sample: BabilongSample, place: slice) -> bool:
    tokens = range(place.start, place.stop)
    return any(int(token) in tokens for span in sample.fact_spans for token in range(*span))


def test_the_command_writes_what_it_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("ARMT_DATA_DIR", raising=False)
    monkeypatch.setenv("ARMT_CACHE_DIR", str(tmp_path / "cache"))
    folder = tmp_path / "run"
    train_and_evaluate(tiny(folder))
    capsys.readouterr()
    with flagsaver.flagsaver():  # a folder left in --workdir fails whoever names a checkpoint next
        main(["babilong_gates", f"--workdir={folder}", "--length=1k", "--samples=3", "--texts=2"])
    printed = capsys.readouterr().out
    content = json.loads((folder / "evaluation" / "gates.json").read_text())
    assert (content["schema"], content["step"], content["contexts"]) == ("armt_jax.gates", 16, 3)
    counts = [row["segments"] for row in content["rows"]]
    assert sum(counts[:2]) == 3 * ((1000 - 8) // 40)  # of 48 tokens, 8 of them repeated
    assert len(content["texts"]) == 2
    for text in content["texts"]:
        assert repr(text["text"]) in printed
    for row in content["rows"]:
        assert f"{row['gate']:.2e}" in printed
