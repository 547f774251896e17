"""Facts kept through noise: the count, its rate, and a measurement that goes on."""

from __future__ import annotations

import collections
import math
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from armt_jax import ConfigError, ModelConfig, create_model
from armt_jax.evaluation import retention
from armt_jax.evaluation.answers import answer_prompts
from armt_jax.evaluation.babilong import ANSWER_TOKENS
from armt_jax.evaluation.retention import make_stories, measure_retention, retained
from armt_jax.recurrence import run_segments
from armt_jax.streaming import StreamReader
from armt_jax.tasks.babilong.simulator import Simulator
from tests.small_models import SIZES, lively_params, segments_of
from tests.tasks.babilong.stories import small_books

SIZE = 16


def test_rates_are_those_of_a_constant_loss() -> None:
    row = retained(10, 200, 150)
    assert row.loss_per_segment is not None
    assert row.loss_per_segment_high is not None
    assert (1 - row.loss_per_segment) ** 10 == pytest.approx(150 / 200)
    assert (1 - row.loss_per_segment_high) ** 10 == pytest.approx(row.kept_low)
    assert row.kept_low < 0.75 < row.kept_high
    assert retained(10, 200, 200).loss_per_segment == 0.0
    assert retained(0, 200, 200).loss_per_segment is None
    assert retained(10, 200, 0).loss_per_segment is None
    # Far below the resolution of 1 - x in float64.
    assert retained(10**18, 2, 1).loss_per_segment == pytest.approx(math.log(2) / 1e18)
    with pytest.raises(ConfigError, match="known = 0: no fact was answered rightly"):
        retained(10, 0, 0)
    with pytest.raises(ConfigError, match="kept = 3: must be at most known = 2"):
        retained(10, 2, 3)


@pytest.fixture(scope="module")
def stories() -> tuple[list[retention.StoryThenNoise], list[retention.Asked]]:
    questions = (Simulator("qa1", 5).question(index) for index in range(100))
    return make_stories(BOOKS, questions, contexts=2, story_tokens=10 * SIZE, noise_tokens=6 * SIZE)


BOOKS = small_books()
MODEL = create_model(
    ModelConfig(**SIZES | {"vocab_size": BOOKS.tokenizer.vocab_size, "backbone": "gpt_neox"})
)
PARAMS = lively_params(MODEL)


def reader(segment: int = SIZE) -> StreamReader:
    overlap = segment - SIZE
    return StreamReader(
        MODEL, PARAMS, segment_size=segment, segment_overlap=overlap, block_segments=4
    )


def said(contexts: Any, asked: Any, segments: int, segment: int = SIZE) -> list[list[str]]:
    """What the model answers after so many segments of noise, read from the start as one text."""
    told = contexts[0].story.num_tokens + segments * SIZE
    tokens = np.stack([one.read(0, told) for one in contexts])
    starts = range(0, told - segment + 1, SIZE)
    cut = jnp.stack([jnp.asarray(tokens[:, start : start + segment]) for start in starts])
    state = MODEL.init_state(len(contexts))
    memory = run_segments(MODEL, PARAMS, state, segments_of(cut), need_hidden=False)[0]
    outputs = answer_prompts(
        MODEL,
        PARAMS,
        memory,
        [one.prompts for one in asked],
        max_new_tokens=ANSWER_TOKENS,
        stop_token=BOOKS.tokenizer.end_id,
    )
    return [[BOOKS.tokenizer.decode_answer(ids) for ids in row] for row in outputs]


def test_a_story_and_then_noise_of_no_fact(stories: Any) -> None:
    contexts, asked = stories
    for context, one in zip(contexts, asked, strict=True):
        whole = context.read(0, context.num_tokens)
        assert whole.size == context.num_tokens == 16 * SIZE
        np.testing.assert_array_equal(whole[: 10 * SIZE], context.story.context())
        parts = [context.read(at, at + 7) for at in range(0, whole.size, 7)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)
        assert max(context.story.fact_spans[:, 1]) <= 10 * SIZE
        people = {fact.split()[0] for fact in context.story.question.facts}
        assert len(one.prompts) == len(one.targets) == len(people)


@pytest.mark.parametrize("overlap", [0, 5])
def test_facts_count_that_were_known_and_still_are(
    stories: Any, tmp_path: Path, overlap: int
) -> None:
    contexts, asked = stories
    segment = SIZE + overlap
    if overlap:
        questions = (Simulator("qa1", 5).question(index) for index in range(100))
        told, noise = 10 * SIZE + overlap, 6 * SIZE
        contexts, asked = make_stories(
            BOOKS, questions, contexts=2, story_tokens=told, noise_tokens=noise
        )
    at_first, later = (said(contexts, asked, count, segment) for count in (0, 6))
    assert at_first != later, "the model says the same whatever it reads: this tests nothing"
    # Of each story all but the first answer are right at first, by definition; the first one is
    # said later only, and is no fact that was kept.
    pairs = list(zip(at_first, later, strict=True))
    assert any(first[0] != now[0] for first, now in pairs), "this tests nothing of what came late"
    targets = [[now[0] if now[0] != first[0] else "nowhere", *first[1:]] for first, now in pairs]
    asked = [one._replace(targets=row) for one, row in zip(asked, targets, strict=True)]
    expected = sum(
        now == right
        for row, rights in zip(later, targets, strict=True)
        for now, right in zip(row[1:], rights[1:], strict=True)
    )
    known = sum(len(row) - 1 for row in targets)
    file = tmp_path / "half"
    measure = lambda: measure_retention(  # noqa: E731
        reader(segment), BOOKS.tokenizer, contexts, asked, [1, 6], file
    )
    rows = list(measure())
    assert [(row.segments, row.known) for row in rows] == [(0, known), (1, known), (6, known)]
    assert (rows[0].kept, rows[2].kept) == (known, expected)
    assert rows[0].lost == ()
    lost = collections.defaultdict[tuple[str, str], tuple[int, ...]](tuple)
    for context, (one, row) in enumerate(zip(asked, later, strict=True)):
        for question, right, now in list(zip(one.questions, one.targets, row, strict=True))[1:]:
            if now != right:
                lost[question, now] += (context,)
    assert {(one.question, one.answer): one.contexts for one in rows[2].lost} == lost
    times = [len(one.contexts) for one in rows[2].lost]
    assert times == sorted(times, reverse=True)
    assert sum(times) == known - expected > 0
    assert list(measure()) == rows


def test_a_place_that_was_passed_is_read_anew(stories: Any, tmp_path: Path) -> None:
    contexts, asked = stories
    first = said(contexts, asked, 0)
    asked = [one._replace(targets=row) for one, row in zip(asked, first, strict=True)]
    rows = {
        name: list(
            measure_retention(
                reader(), BOOKS.tokenizer, contexts, asked, segments, tmp_path / name[:3]
            )
        )
        for name, segments in (("one", [1, 6]), ("one, again", [3, 6]), ("other", [3, 6]))
    }
    assert rows["one, again"] == rows["other"]
    assert len({row.kept for row in rows["other"]}) > 1, "this tests nothing"


@pytest.mark.parametrize(
    "content",
    [
        '{"0": [[true, true], [true]]}',  # as an earlier version wrote it
        '{"answers": {"0": [["kit',
        '{"answers": {"0": [["kitchen"]]}}',
        '{"answers": {"1": []}}',
        "[]",
    ],
)
def test_damaged_notes_are_refused(stories: Any, tmp_path: Path, content: str) -> None:
    contexts, asked = stories
    notes = tmp_path / "half.json"
    notes.write_text(content)
    with pytest.raises(ConfigError, match=r"half.json': is damaged, or of an earlier version"):
        list(measure_retention(reader(), BOOKS.tokenizer, contexts, asked, [1], tmp_path / "half"))
    assert notes.read_text() == content


def test_a_stopped_measurement_goes_on(
    stories: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contexts, asked = stories
    first = said(contexts, asked, 0)
    asked = [one._replace(targets=row) for one, row in zip(asked, first, strict=True)]
    heard: list[int] = []

    def rows(name: str) -> list[retention.Retained]:
        return list(
            measure_retention(
                reader(),
                BOOKS.tokenizer,
                contexts,
                asked,
                [2, 6],
                tmp_path / name,
                on_block=heard.append,
            )
        )

    whole = rows("whole")
    ask = retention._answers

    def stop_at_six(*args: Any) -> Any:
        if heard[-1] == 16 * SIZE:
            raise KeyboardInterrupt
        return ask(*args)

    monkeypatch.setattr(retention, "_answers", stop_at_six)
    heard.clear()
    with pytest.raises(KeyboardInterrupt):
        rows("stopped")
    monkeypatch.undo()
    heard.clear()
    assert rows("stopped") == whole
    assert min(heard) > 12 * SIZE, "what was read before the stop was read again"


def test_what_cannot_be_measured(stories: Any, tmp_path: Path) -> None:
    contexts, asked = stories
    for segments, says in (([2, 2], "must ascend"), ([0], "must ascend"), ([7], "is more than")):
        with pytest.raises(ConfigError, match=says):
            list(
                measure_retention(
                    reader(), BOOKS.tokenizer, contexts, asked, segments, tmp_path / "x"
                )
            )
    few = (Simulator("qa1", 5).question(index) for index in range(10))
    with pytest.raises(ConfigError, match=r"contexts = 50: must be at most \d, the stories"):
        make_stories(BOOKS, few, contexts=50, story_tokens=10 * SIZE, noise_tokens=SIZE)
