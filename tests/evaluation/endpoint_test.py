"""The client of chat endpoints, against a server on this machine."""

from __future__ import annotations

import datetime
import email.utils
import json

import pytest

from armt_jax.config import ConfigError
from armt_jax.evaluation.endpoint import Budget, BudgetReachedError, ChatEndpoint, Patience
from armt_jax.evaluation.endpoint_cache import CompletionCache
from armt_jax.evaluation.endpoint_http import EndpointError
from tests.evaluation.chat_server import Reply, chat_server, said

KEY = "sk-secret-0123456789"
HELLO = [{"role": "user", "content": "Hello!"}]


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture
def waits():
    return []


@pytest.fixture
def endpoint(tmp_path, waits):
    def made(server, **settings):
        url = settings.pop("url", getattr(server, "url", None))
        parameters = settings.pop("parameters", {"temperature": 0})
        model = settings.pop("model", "m")
        return ChatEndpoint(
            url,
            model,
            parameters,
            CompletionCache(tmp_path / "cache"),
            sleep=waits.append,
            uniform=lambda: 1.0,
            **settings,
        )

    return made


def error(status, message, **more):
    return Reply(status, json.dumps({"error": {"message": message, **more}}).encode())


def test_an_answer_and_the_request_that_brought_it(endpoint, waits):
    with chat_server(said("office", prompt_tokens=7, completion_tokens=2)) as server:
        chat = endpoint(server)
        found = chat.complete(HELLO)
    assert (found.text, found.finish_reason, found.tokens) == ("office", "stop", 9)
    assert server.paths == ["/v1/chat/completions"]
    assert server.requests == [{"model": "m", "messages": HELLO, "temperature": 0}]
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert (chat.budget.requests, chat.budget.tokens, waits) == (1, 9, [])


def test_a_stored_answer_makes_no_request(endpoint, tmp_path):
    with chat_server(said("one"), said("two"), said("three"), said("four"), said("x")) as server:
        first = endpoint(server).complete(HELLO)
        again = endpoint(server)
        assert again.complete(HELLO) == first
        assert (again.budget.requests, len(server.requests)) == (0, 1)
        # Another model, other parameters, other words: other questions.
        assert endpoint(server, model="n").complete(HELLO).text == "two"
        assert endpoint(server, parameters={"temperature": 1}).complete(HELLO).text == "three"
        other = [{"role": "user", "content": "Hello?"}]
        assert endpoint(server).complete(other).text == "four"
        assert len(server.requests) == 4
        # A damaged file is asked anew.
        files = list((tmp_path / "cache").iterdir())
        assert len(files) == 4
        for file in files:
            file.write_text(file.read_text()[:-20])
        assert endpoint(server).complete(HELLO).text == "x"
        assert endpoint(server).complete(HELLO).text == "x"
        assert len(server.requests) == 5


def test_too_many_requests_wait_as_long_as_they_are_told(endpoint, waits, capsys):
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=40)
    date = email.utils.format_datetime(soon, usegmt=True)
    replies = [
        Reply(429, b"slow down", {"Retry-After": "7"}),
        Reply(503, b"", {"Retry-After": date}),
        Reply(429, b"slow down", {"Retry-After": "soon"}),
    ]
    with chat_server(*replies, said("office")) as server:
        assert endpoint(server).complete(HELLO).text == "office"
    assert waits[0] == 8.0  # 7 and the first waiting time
    assert 2 + 35 < waits[1] <= 2 + 40
    assert waits[2] == 4.0
    lines = capsys.readouterr().err.splitlines()
    assert "HTTP 429: slow down; again in 8.0 s (1 of 6)" in lines[0]


def test_waiting_times_double_up_to_a_bound_with_jitter():
    patience = Patience(first_wait=1.0, longest_wait=10.0)
    assert [patience.wait(n, 0, 1.0) for n in range(1, 7)] == [1, 2, 4, 8, 10, 10]
    assert [patience.wait(n, 0, 0.0) for n in (1, 6)] == [0.5, 5]
    assert patience.wait(1, 30, 0.5) == 30.75


def test_a_server_that_stays_ill_is_given_up(endpoint, waits, tmp_path):
    with chat_server(error(500, "out of order")) as server:
        with pytest.raises(EndpointError, match="HTTP 500: out of order; asked 4 times") as found:
            endpoint(server, patience=Patience(retries=3)).complete(HELLO)
        assert len(server.requests) == 4
    assert waits == [1, 2, 4]
    assert "\n" not in str(found.value)
    assert list((tmp_path / "cache").iterdir()) == []


def test_hours_are_not_waited(endpoint, waits):
    with chat_server(Reply(429, b"", {"Retry-After": "3600"})) as server:
        with pytest.raises(EndpointError, match="wants to be asked again in 3600 s"):
            endpoint(server).complete(HELLO)
        assert len(server.requests) == 1
    assert waits == []


def test_no_answer_in_time_and_nobody_there(endpoint, waits):
    slow = said("late")
    slow.seconds = 0.5
    patience = Patience(timeout=0.1, retries=1)
    late = pytest.raises(EndpointError, match=r"no answer within 0\.1 s; asked 2 times")
    with chat_server(slow) as server, late:
        endpoint(server, patience=patience).complete(HELLO)
    # The server is gone now.
    with pytest.raises(EndpointError, match=r"no connection .*refused.*; asked 2 times"):
        endpoint(server, patience=patience).complete(HELLO)


def test_an_answer_cut_short_is_tried_again(endpoint, waits):
    whole = said("office").body
    short = Reply(body=whole[:-9], headers={"Content-Length": str(len(whole))})
    with chat_server(short, said("garden")) as server:
        patience = Patience(timeout=2.0)
        assert endpoint(server, patience=patience).complete(HELLO).text == "garden"
    assert len(waits) == 1


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<html>Welcome</html>", r"is not JSON: '<html>Welcome</html>'"),
        (b"\xff\xfe", "is not JSON"),
        (b"[]", "has no choices"),
        (b'{"choices": []}', "has no choices"),
        (b'{"error": {"message": "model is loading"}}', "has no choices: 'model is loading'"),
        (b'{"choices": [null]}', "a choice without a message"),
        (b'{"choices": [{"message": {"content": 3}}]}', "message is not text"),
        (said("").body, r"is empty \(finish_reason 'stop'\)"),
        (said(None).body, r"is empty \(finish_reason 'stop'\)"),
        (said("", "length").body, "'length'.; more tokens for answers may help"),
    ],
)
def test_nonsense_is_tried_again_and_named(endpoint, waits, tmp_path, body, message):
    patience = Patience(retries=1)
    with chat_server(Reply(body=body), said("office")) as server:
        assert endpoint(server, patience=patience).complete(HELLO).text == "office"
    with chat_server(Reply(body=body)) as server:
        with pytest.raises(EndpointError, match=message) as found:
            endpoint(server, patience=patience, model="other").complete(HELLO)
        assert len(server.requests) == 2
    assert "\n" not in str(found.value)
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_filtered_answer_is_an_answer(endpoint):
    with chat_server(said(None, "content_filter")) as server:
        found = endpoint(server).complete(HELLO)
    assert (found.text, found.finish_reason) == ("", "content_filter")


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (error(401, "Incorrect API key"), "HTTP 401: Incorrect API key$"),
        (error(404, "no such model"), "HTTP 404: no such model"),
        (error(400, "context is too long"), "HTTP 400: context is too long"),
        (error(429, "no money", code="insufficient_quota"), "HTTP 429: no money"),
        (Reply(302, b"", {"Location": "http://127.0.0.1:1/"}), "redirects are not followed"),
    ],
)
def test_what_waiting_does_not_mend_ends_at_once(endpoint, waits, reply, message):
    with chat_server(reply) as server, pytest.raises(EndpointError, match=message):
        endpoint(server).complete(HELLO)
    assert (len(server.requests), waits) == (1, [])


def test_without_a_key_none_is_sent_and_the_error_says_so(endpoint, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    unset = pytest.raises(EndpointError, match=r"who are you\? \(OPENAI_API_KEY is not set\)")
    with chat_server(error(401, "who are you?")) as server, unset:
        endpoint(server).complete(HELLO)
    assert "Authorization" not in server.headers[0]


def test_the_key_is_in_no_file_no_message_and_no_repr(endpoint, tmp_path, capsys):
    shown = []
    for reply in (
        error(401, f"wrong key {KEY}"),
        Reply(500, b"x" * 180 + f" {KEY}".encode()),
        Reply(body=f"Bearer {KEY} is no JSON".encode()),
        error(200, f"key {KEY}"),
    ):
        with chat_server(reply) as server, pytest.raises(EndpointError) as found:
            endpoint(server, patience=Patience(retries=1)).complete(HELLO)
        shown.append(str(found.value))
    assert sum("***" in text for text in shown) >= 3
    with chat_server(said("office")) as server:
        chat = endpoint(server)
        chat.complete(HELLO)
    files = "".join(file.read_text() for file in (tmp_path / "cache").iterdir())
    captured = capsys.readouterr()
    for text in (*shown, files, captured.err, captured.out, repr(chat)):
        assert "sk-" not in text


def test_a_budget_ends_the_run_before_it_is_exceeded(endpoint):
    questions = [[{"role": "user", "content": f"{i}" * 40}] for i in range(4)]
    with chat_server(said("office", prompt_tokens=10, completion_tokens=1)) as server:
        chat = endpoint(server, budget=Budget(max_requests=2))
        chat.complete(questions[0])
        chat.complete(questions[1])
        with pytest.raises(BudgetReachedError, match="request budget of 2 is spent"):
            chat.complete(questions[2])
        chat.complete(questions[1])  # stored ones cost nothing
        # The next run goes on; 11 tokens are spent, and about 10 more are too many.
        chat = endpoint(server, budget=Budget(max_tokens=20))
        chat.complete(questions[0])
        chat.complete(questions[2])
        with pytest.raises(
            BudgetReachedError, match=r"token budget of 20: 11 are spent and the next .* about 10"
        ):
            chat.complete(questions[3])
        assert len(server.requests) == 3
    with chat_server(Reply(500)) as server:
        chat = endpoint(server, budget=Budget(max_requests=2))
        with pytest.raises(BudgetReachedError):  # those tried again count
            chat.complete(questions[3])
        assert len(server.requests) == 2


def test_tokens_are_estimated_where_none_are_given(endpoint):
    with chat_server(said("office, I think")) as server:
        chat = endpoint(server)
        chat.complete([{"role": "user", "content": "word" * 25}])
    assert chat.budget.tokens == 25 + 15 // 4


def test_settings_are_looked_at_first(endpoint, monkeypatch, tmp_path):
    for url in ("file:///etc/passwd", "api.openai.com/v1", "http://"):
        with pytest.raises(ConfigError, match=r"base_url = .*must be such as https"):
            endpoint(None, url=url)
    with pytest.raises(ConfigError, match="must hold no user, password") as found:
        endpoint(None, url="https://me:sk-1@x.org/v1")
    assert "sk-1" not in str(found.value)
    with pytest.raises(ConfigError, match="must not hold 'stream'"):
        endpoint(None, url="http://x/v1", parameters={"stream": True})
    with pytest.raises(ConfigError, match="model = ''"):
        endpoint(None, url="http://x/v1", model="")
    for settings in ({"timeout": 0}, {"retries": -1}):
        with pytest.raises(ConfigError, match="must be"):
            Patience(**settings)
    with pytest.raises(ConfigError, match="max_tokens = 0: must be at least 1"):
        Budget(max_tokens=0)
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\nX-Other: 1")
    with pytest.raises(ConfigError, match="printable ASCII without blanks") as found:
        endpoint(None, url="http://x/v1")
    assert "sk-" not in str(found.value)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="must be a folder for answers"):
        CompletionCache(tmp_path / "file")
