"""Figures: what is drawn (series, bands, lines), and that the files are whole PNGs or not there."""

import json
import os

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from armt_jax.config import ConfigError
from armt_jax.evaluation import figures
from armt_jax.evaluation.figures import (
    PALETTE,
    capacity_figure,
    exact_match_figure,
    training_figure,
)
from armt_jax.evaluation.results import result_row
from armt_jax.evaluation.series import SeriesKey, collect_series, labels
from armt_jax.evaluation.training_log import Point, Stage, TrainingLog, read_training_log


def make_row(num_pairs, correct, **changes):
    values = {
        "variant": "remember",
        "model": "gpt2",
        "rule": "armt",
        "num_params": 1000,
        "num_pairs": num_pairs,
        "key_size": 2,
        "value_size": 1,
        "samples": 100,
        "correct": correct,
        "seed": 0,
        "step": 10,
        "commit": "abc",
    }
    return result_row(**(values | changes))


@pytest.fixture
def drawn(monkeypatch) -> list[Figure]:
    """The figures that were written, to look inside."""
    seen: list[Figure] = []
    save = figures.save_figure

    def keep(figure, path):
        seen.append(figure)
        save(figure, path)

    monkeypatch.setattr(figures, "save_figure", keep)
    return seen


def lines_of(axes):
    return {str(line.get_label()): line for line in axes.get_lines()}


def legend_texts(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def band_at(axes, index, x):
    """Lowest and highest edge of band ``index`` at ``x``."""
    points = axes.collections[index].get_paths()[0].vertices
    heights = points[np.isclose(points[:, 0], x), 1]
    return float(heights.min()), float(heights.max())


def test_capacity_figure_draws_estimate_interval_and_identity(tmp_path, drawn):
    rows = [make_row(n, c, rule=r) for r, c in (("armt", 70), ("delta", 90)) for n in (100, 10)]
    path = tmp_path / "capacity.png"
    capacity_figure(path, rows, trained_pairs=50)
    (figure,) = drawn
    (axes,) = figure.axes
    lines = lines_of(axes)
    np.testing.assert_allclose(lines["armt"].get_xdata(), [10, 100])
    np.testing.assert_allclose(lines["armt"].get_ydata(), [6.8, 68.0])
    np.testing.assert_allclose(lines["all pairs stored"].get_xydata(), [[0, 0], [100, 100]])
    assert list(lines["longest in training (50)"].get_xdata()) == [50, 50]
    assert band_at(axes, 0, 100) == pytest.approx((rows[0].capacity_low, rows[0].capacity_high))
    assert axes.get_xlabel() == "Key-value pairs in the context (count)"
    assert axes.get_ylabel() == "Estimated stored pairs (count)"
    expected = ["all pairs stored", "armt", "delta", "longest in training (50)"]
    assert legend_texts(figure) == expected
    assert figure.legends[0].get_title().get_text() == "band: 95 % interval"
    image = imread(path)
    assert image.shape[:2] == (1320, 1380)
    assert image.std() > 0.05


def test_exact_match_figure_draws_mean_and_range_over_seeds(tmp_path, drawn):
    rows = [
        make_row(n, c + seed, rule="delta", variant="rewrite", seed=seed)
        for n, c in ((50, 96), (500, 80))
        for seed in (0, 1, 3)
    ]
    exact_match_figure(tmp_path / "f.png", rows, variant="rewrite", trained_pairs=50)
    (axes,) = drawn[0].axes
    line = lines_of(axes)["delta (3 seeds)"]
    np.testing.assert_allclose(line.get_xydata(), [[50, 97 + 1 / 3], [500, 81 + 1 / 3]])
    assert band_at(axes, 0, 500) == pytest.approx((80, 83))
    assert axes.get_xscale() == "log"
    assert axes.get_xlabel() == "Memory updates (count, log scale)"
    assert axes.get_ylabel() == "Exact match (%)"
    low, high = axes.get_ylim()
    assert 70 < low < 80
    assert high > 100
    assert drawn[0].legends[0].get_title().get_text() == "mean and range over seeds"


def test_perfect_results_keep_a_readable_scale(tmp_path, drawn):
    rows = [make_row(n, 10**6, samples=10**6, variant="rewrite") for n in (10, 50)]
    exact_match_figure(tmp_path / "f.png", rows, variant="rewrite")
    assert drawn[0].axes[0].get_ylim()[0] <= 98


def test_a_rule_has_one_colour_in_every_figure(tmp_path, drawn):
    together = [make_row(10, 90, rule=rule) for rule in ("armt", "delta")]
    capacity_figure(tmp_path / "a.png", together)
    capacity_figure(tmp_path / "b.png", together[1:])
    colours = [lines_of(figure.axes[0])["delta"].get_color() for figure in drawn]
    assert colours[0] == colours[1] != lines_of(drawn[0].axes[0])["armt"].get_color()
    assert set(colours) <= set(PALETTE)


def test_many_series_differ_in_look(tmp_path, drawn):
    rows = [make_row(10, 50 + i, model=f"model{i}") for i in range(10)]
    capacity_figure(tmp_path / "a.png", rows)
    lines = drawn[0].axes[0].get_lines()[1:]
    looks = {(str(x.get_color()), str(x.get_marker()), x.get_linestyle()) for x in lines}
    assert len(looks) == 10


def test_labels_name_what_differs():
    base = SeriesKey("gpt2", "armt", 2, 1)
    assert labels([base, base._replace(rule="delta")]) == ["armt", "delta"]
    assert labels([base, base._replace(model="neox")]) == ["gpt2, armt", "neox, armt"]
    assert labels([base, base._replace(key_size=3)]) == ["armt, key size 2", "armt, key size 3"]
    assert labels([base, base._replace(value_size=2)])[1] == "armt, value size 2"


def test_series_keep_one_seed_intervals_and_order_of_appearance():
    rows = [make_row(100, 60, rule="delta"), make_row(10, 90), make_row(10, 99, rule="delta")]
    series = collect_series(rows, "remember", lambda row: (row.exact_match, 0.1, 0.9))
    assert [line.key.rule for line in series] == ["delta", "armt"]
    assert series[0].x == [10, 100]
    assert series[0].y == [0.99, 0.6]
    assert (series[0].low, series[0].high) == ([0.1, 0.1], [0.9, 0.9])


def test_rows_that_cannot_be_drawn_are_refused(tmp_path):
    path = tmp_path / "f.png"
    with pytest.raises(ConfigError, match="none is of variant 'remember'"):
        capacity_figure(path, [make_row(10, 9, variant="rewrite")])
    with pytest.raises(ConfigError, match=r"seed 0, 10 pairs is there twice \(steps 10 and 20\)"):
        capacity_figure(path, [make_row(10, 9), make_row(10, 9, step=20)])
    with pytest.raises(ConfigError, match="variant = 'forget': must be one of"):
        exact_match_figure(path, [make_row(10, 9)], variant="forget")
    with pytest.raises(ConfigError, match="trained_pairs = 0"):
        capacity_figure(path, [make_row(10, 9)], trained_pairs=0)
    with pytest.raises(ConfigError, match="neither losses nor exact matches"):
        training_figure(path, TrainingLog([], [], []))
    assert not path.exists()


def test_a_failed_write_keeps_the_old_figure(tmp_path, monkeypatch):
    path = tmp_path / "f.png"
    capacity_figure(path, [make_row(10, 90)])
    before = path.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        capacity_figure(path, [make_row(10, 50)])
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["f.png"]


def test_matplotlib_settings_are_left_alone(tmp_path):
    with matplotlib.rc_context({"font.size": 17.0}):
        before = dict(matplotlib.rcParams)
        capacity_figure(tmp_path / "f.png", [make_row(10, 90)])
        assert dict(matplotlib.rcParams) == before


def write_log(path, records, tail=""):
    path.write_text("".join(json.dumps(record) + "\n" for record in records) + tail)
    return path


def test_log_of_a_resumed_run_is_read_once(tmp_path):
    path = write_log(
        tmp_path / "metrics.jsonl",
        [
            {"event": "start"},
            {"step": 10, "stage": 0, "loss": 2.0},
            {"step": 20, "stage": 0, "loss": 9.0},
            {"step": 20, "stage": 1, "loss": 1.0},  # killed after step 10, run again
            {"step": 20, "exact_match": 0.5, "loss": None},
            {"step": 30, "stage": 1, "loss": float("nan"), "exact_match": 1},
        ],
        tail='{"step": 40, "lo',
    )
    log = read_training_log(path)
    assert log.loss == [Point(10, 2.0), Point(20, 1.0)]
    assert log.exact_match == [Point(20, 0.5), Point(30, 1.0)]
    assert log.stages == [Stage(10, "stage 0"), Stage(20, "stage 1")]
    assert read_training_log(path, stage_labels=("a", "b")).stages[1].label == "b"


def test_log_keys_can_be_named(tmp_path):
    path = write_log(tmp_path / "m.jsonl", [{"s": 1, "train/loss": 2.0, "em": 0.25, "k": 0}])
    log = read_training_log(path, step="s", loss="train/loss", exact_match="em", stage="k")
    assert log == TrainingLog([Point(1, 2.0)], [Point(1, 0.25)], [Stage(1, "stage 0")])


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"step": 1.5}, "m.jsonl, line 2: step = 1.5: must be an integer"),
        ({"step": 2, "stage": "a"}, "line 2: stage = 'a': must be an integer"),
        ({"step": 2, "loss": "low"}, "line 2: loss = 'low': must be a number"),
        ({"step": 2, "stage": 2}, "line 2: stage = 2: must be from 0 to 1"),
        ([1], "line 2: must be a JSON object, not list"),
    ],
)
def test_a_bad_log_line_is_named(tmp_path, record, message):
    path = write_log(tmp_path / "m.jsonl", [{"step": 1}, record, {"step": 3}])
    with pytest.raises(ConfigError, match=message):
        read_training_log(path, stage_labels=("a", "b"))


def test_a_broken_line_in_the_middle_is_named(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text('{"step": 1}\n{"step"\n{"step": 3}\n')
    with pytest.raises(ConfigError, match=r"line 2: not JSON"):
        read_training_log(path)


def test_training_figure_marks_stages_and_does_not_join_them(tmp_path, drawn):
    log = TrainingLog(
        loss=[Point(step, 1.0 / step) for step in range(1, 101)],
        exact_match=[Point(20, 0.5), Point(40, 1.0), Point(60, 0.25), Point(100, 0.75)],
        stages=[Stage(1, "2 pairs"), Stage(41, "4 pairs"), Stage(42, "8 pairs")],
    )
    training_figure(tmp_path / "f.png", log)
    upper, lower = drawn[0].axes
    pieces = [line.get_xydata().tolist() for line in upper.get_lines() if len(line.get_xdata())]
    assert pieces == [[[20, 50], [40, 100]], [[60, 25], [100, 75]]]
    assert len(lower.get_lines()[0].get_xdata()) == 100
    assert lower.get_yscale() == "log"
    assert lower.get_xlabel() == "Optimizer step (count)"
    assert (upper.get_ylabel(), lower.get_ylabel()) == ("Exact match (%)", "Loss (nats per token)")
    assert [text.get_text() for text in upper.texts] == ["2 pairs", "4 pairs", "8 pairs"]
    places = [text.get_position()[0] for text in upper.texts]
    assert places[1] == pytest.approx(0.41, abs=0.01)
    assert places[2] - places[1] > 0.03


def test_training_figure_of_losses_or_matches_alone(tmp_path):
    points = [Point(1, 0.5), Point(2, 0.0)]
    training_figure(tmp_path / "a.png", TrainingLog(points, [], []))
    training_figure(tmp_path / "b.png", TrainingLog([], points, []))
    assert (tmp_path / "a.png").stat().st_size > 10_000
    assert (tmp_path / "b.png").stat().st_size > 10_000
