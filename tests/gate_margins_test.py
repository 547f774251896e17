"""Margins of write gates: those of a loop over segments; a border that is moved; the command."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import flagsaver

from armt_jax import ConfigError
from armt_jax.evaluation.gate_margins import GateMargins, fact_logits, raise_border
from armt_jax.models import ARMT
from armt_jax.models.protocol import Segment
from armt_jax.reading import load_reading_model, save_checkpoint
from armt_jax.tasks.babilong.sample import BabilongSample, build_sample, sample_rng
from armt_jax.tasks.babilong.simulator import Simulator
from experiments import calibrate_gates
from tests.reading.cases import make_run
from tests.small_models import lively_params, segments_of, small_model
from tests.tasks.babilong.stories import small_books

pytestmark = pytest.mark.usefixtures("without_data")
SIZE = 32
BOOKS = small_books()


def hard(rule: str = "delta_hard", **changes: Any) -> tuple[Any, Any]:
    vocabulary = BOOKS.tokenizer.vocab_size
    model = small_model(rule=rule, backbone="gpt_neox", vocab_size=vocabulary, **changes)
    return model, lively_params(model)


def samples(tokens: int) -> list[BabilongSample]:
    questions = [Simulator("qa1", 0).question(index) for index in range(100)]
    fitting = [one for one in questions if len(one.facts) <= 4][:4]
    return [build_sample(BOOKS, one, tokens, sample_rng(0, i)) for i, one in enumerate(fitting)]


@pytest.mark.parametrize(
    ("size", "overlap", "layers"), [(40, 16, (1,)), (64, 40, ())], ids=["cut", "twice"]
)
def test_logits_of_facts_are_those_of_a_loop(
    size: int, overlap: int, layers: tuple[int, ...]
) -> None:
    model, params = hard(memory_layers=layers)
    tokens = 10 * (size - overlap) + overlap
    read, write = jax.jit(model.gate_logits), jax.jit(model.write)
    expected, times = [], []
    for sample in samples(tokens):
        state, seen = model.init_state(1), []
        for start in range(0, tokens - overlap, size - overlap):
            segment = segments_of(jnp.asarray(sample.read(start, start + size))[None])
            logits = np.asarray(read(params, state, segment))
            seen.append((start, logits[list(layers) or [0, 1]].max()))
            state = write(params, state, segment)
        for first, stop in sample.fact_spans:
            whole = [top for start, top in seen if start <= first and stop <= start + size]
            expected += [max(whole)] if whole else []
            times.append(len(whole))
    found = fact_logits(model, params, samples(tokens), size, overlap)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert {0, 1} <= set(times) if size == 40 else {1, 2} <= set(times)


def test_a_border_does_what_the_row_says() -> None:
    model, _ = hard()
    margins = GateMargins(np.array([-3.0, 0.0, 5.0, 9.0]), np.array([1.0, -2.0, -30.0]))
    assert margins.row(model, 0.0) == (0.0, 0.75, 0.5, 2, 3)
    assert margins.row(model, 4.0) == (4.0, 0.5, 0.25, 0, 3)
    assert margins.row(model, -2.0) == (-2.0, 1.0, 0.5, 2, 3)


def test_a_raised_border_is_a_logit_that_much_lower_and_nothing_else() -> None:
    model, params = hard()
    rng = np.random.default_rng(0)
    tokens = jnp.asarray(rng.integers(0, BOOKS.tokenizer.vocab_size, (2, SIZE)))
    segment, state = Segment(tokens, jnp.ones(tokens.shape, bool)), model.init_state(2)
    raised = raise_border(model, params, 1.5)
    expected = model.gate_logits(params, state, segment) - 1.5
    found = model.gate_logits(raised, state, segment)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    same = jax.tree.map(lambda a, b: bool(jnp.array_equal(a, b)), params, raised)
    assert jax.tree.leaves(same).count(False) == 1
    with pytest.raises(ConfigError, match="raised = nan: must be a number"):
        raise_border(model, params, float("nan"))
    with pytest.raises(ConfigError, match="'armt': its gates are sigmoids"):
        raise_border(*hard("armt"), 1.0)


def test_contexts_without_a_whole_fact_are_refused() -> None:
    with pytest.raises(ConfigError, match="segment_size = 8: no fact of 4 contexts stands whole"):
        fact_logits(*hard(), samples(120), 8)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    parent = tmp_path_factory.mktemp("runs")
    make_run(parent / "run")
    save_checkpoint(parent / "exported", parent / "run")
    return parent / "exported"


def call(*arguments: object) -> None:
    with flagsaver.flagsaver():
        calibrate_gates.main(["calibrate_gates", *map(str, arguments)])


def test_the_command_measures_and_writes(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = (
        "--searched_segments=64",
        "--fact_contexts=3",
        "--context_length=300",
        f"--out={tmp_path}",
    )
    call(f"--checkpoint={exported}", *few)
    before = _rows(capsys.readouterr().out)
    (path,) = tmp_path.glob("*/evaluation/gate_margins.json")
    content = json.loads(path.read_text())
    assert (content["schema"], content["step"]) == ("armt_jax.gate_margins", 7)
    for row, shown in zip(content["rows"], before, strict=True):
        assert shown[1:4] == [
            f"{100 * row['written']:.1f}",
            f"{100 * row['whole']:.1f}",
            f"{row['opened']} of {row['searched']}",
        ]
    # Every segment is there, not only the highest that mining keeps.
    assert content["noise"] == sorted(content["noise"], reverse=True)
    assert len(content["noise"]) == 64
    assert len(content["facts"]) >= 3
    assert content["facts"] == sorted(content["facts"])
    assert [row[0] for row in before] == ["0", "2", "4", "6", "8", "10", "12"]
    assert all(row[3].endswith("of 64") for row in before)
    once, twice = tmp_path / "once", tmp_path / "twice"
    call(f"--checkpoint={exported}", "--raise_by=-4", f"--save={once}")
    assert "gates open -4 later than trained" in capsys.readouterr().out
    call(f"--checkpoint={once}", "--raise_by=2", f"--save={twice}")
    assert "gates open -2 later than trained" in capsys.readouterr().out
    abouts = [json.loads((folder / "config.json").read_text()) for folder in (exported, twice)]
    changed = {key for key in abouts[1] if abouts[1][key] != abouts[0].get(key)}
    assert changed == {"gates_raised_by", "parameters"}
    trained = load_reading_model(exported)
    assert isinstance(trained.model, ARMT)
    expected = raise_border(trained.model, raise_border(trained.model, trained.params, -4.0), 2.0)
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(a, b),
        load_reading_model(twice).params,
        expected,
    )
    # A border lower by 2 shows what the first one showed two lines further down.
    call(f"--checkpoint={twice}", *few)
    after = _rows(capsys.readouterr().out)
    assert [row[1:] for row in after[1:]] == [row[1:] for row in before[:-1]]


def _rows(printed: str) -> list[list[str]]:
    lines = [line.strip("│ ").split("│") for line in printed.splitlines() if line.startswith("│")]
    return [[re.sub(r"\s+", " ", cell).strip() for cell in line] for line in lines]


def test_wrong_flags_are_refused(exported: Path, tmp_path: Path) -> None:
    given = f"--checkpoint={exported}"
    for arguments, message in (
        ((), "--workdir or --checkpoint: one of them must name a folder"),
        (("--raise_by=1", "--save=x"), "--checkpoint: must name a folder"),
        ((given, "--raise_by=1"), "--raise_by and --save: go together"),
        ((given, f"--save={tmp_path / 'x'}"), "--raise_by and --save: go together"),
        ((given, "--raise_by=1", f"--save={exported}"), "must be new or empty"),
        ((given, f"--out={tmp_path / 'out'}", "--context_length=9"), "'9': must be a segment of"),
        ((f"--checkpoint={tmp_path / 'none'}",), "there is no such folder"),
    ):
        with pytest.raises(ConfigError, match=message):
            call(*arguments)
    assert {path.name for path in tmp_path.iterdir()} <= {"cache", "out"}
