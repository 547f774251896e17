"""What a long reading says of itself: a bar on a terminal, a line a minute in a log."""

import io

from rich.console import Console

from experiments.reading_bar import SECONDS_BETWEEN_LINES, ReadingBar


class _Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def _log() -> tuple[io.StringIO, _Clock, ReadingBar]:
    written, clock = io.StringIO(), _Clock()
    bar = ReadingBar("tokens", Console(file=written, force_terminal=False, width=60), clock)
    return written, clock, bar


def test_a_log_gets_a_line_a_minute_with_what_is_left() -> None:
    written, clock, bar = _log()
    with bar:
        for second in range(0, 200, 10):
            clock.seconds = second
            bar.update("qa1, length 10M", 1_000 * second, 600_000)
    assert written.getvalue().splitlines() == [
        "qa1, length 10M: 60,000 of 600,000 tokens (10 %), 1,000 tokens/s, 9:00 left",
        "qa1, length 10M: 120,000 of 600,000 tokens (20 %), 1,000 tokens/s, 8:00 left",
        "qa1, length 10M: 180,000 of 600,000 tokens (30 %), 1,000 tokens/s, 7:00 left",
    ]


def test_a_line_tells_the_rate_since_the_one_before() -> None:
    written, clock, bar = _log()
    with bar:
        for second, done in ((0, 0), (100, 1_000), (200, 51_000)):
            clock.seconds = second
            bar.update("a", done, 101_000)
    assert [line.split(", ")[-2:] for line in written.getvalue().splitlines()] == [
        ["10 tokens/s", "2:46:40 left"],
        ["500 tokens/s", "1:40 left"],
    ]


def test_what_an_earlier_process_read_is_in_no_rate() -> None:
    written, clock, bar = _log()
    with bar:
        bar.update("a", 900_000, 1_000_000)
        clock.seconds = SECONDS_BETWEEN_LINES
        bar.update("a", 900_600, 1_000_000)
    assert ", 10 tokens/s, 2:45:40 left" in written.getvalue()


def test_another_description_begins_anew() -> None:
    written, clock, bar = _log()
    with bar:
        bar.update("a", 0, 100)
        clock.seconds = 59
        bar.update("b", 0, 100)
        clock.seconds = 118
        bar.update("b", 50, 100)
        assert not written.getvalue()
        clock.seconds = 119
        bar.update("b", 60, 100)
    assert written.getvalue() == "b: 60 of 100 tokens (60 %), 1 tokens/s, 0:40 left\n"


def test_a_reading_that_stands_still_names_no_time() -> None:
    written, clock, bar = _log()
    with bar:
        bar.update("a", 5, 100)
        clock.seconds = SECONDS_BETWEEN_LINES
        bar.update("a", 5, 100)
    assert written.getvalue() == "a: 5 of 100 tokens (5 %), 0 tokens/s\n"


def test_messages_stay_whole_and_are_no_markup() -> None:
    written, _, bar = _log()
    text = "[bold] " + "long " * 30
    with bar:
        bar.message(text)
    assert written.getvalue() == text + "\n"


def test_a_terminal_shows_a_bar_and_no_lines() -> None:
    written, clock = io.StringIO(), _Clock()
    console = Console(file=written, force_terminal=True, width=120)
    with ReadingBar("segments", console, clock) as bar:
        for second in (0, 70, 140):
            clock.seconds = second
            bar.update("[a]", second, 280)
    shown = written.getvalue()
    assert "140/280 segments" in shown
    assert "[a]" in shown
    assert " left" not in shown
