"""The webhook, against a real HTTP server."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from pydantic import SecretStr

from leadml_pipelines.monitoring.alert_state import Alert
from leadml_pipelines.monitoring.webhook import WebhookError, message, post

NOW = datetime(2026, 4, 12, 5, 30, tzinfo=UTC)
TOKEN = "hunter2-token"
ALERT = Alert(
    1, "drift", "churn", "critical", "churn has drifted", 2.0, 0.0, "look", ("age",), NOW, NOW,
    None, None, None,
)  # fmt: skip


class Hook:
    """A server that answers as it is told, and remembers what came."""

    def __init__(self, *answers: int, headers: dict[str, str] | None = None) -> None:
        self.answers = list(answers)
        self.headers = headers or {}
        self.received: list[tuple[str, str, Any]] = []
        self.delay = 0.0
        self.port = 0

    def address(self) -> SecretStr:
        return SecretStr(f"http://127.0.0.1:{self.port}/services/{TOKEN}?key={TOKEN}")

    @contextmanager
    def running(self) -> Iterator[Hook]:
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                kind = self.headers["Content-Type"]
                hook.received.append((self.path, kind, json.loads(body)))
                time.sleep(hook.delay)
                status = hook.answers.pop(0) if hook.answers else 200
                self.send_response(status)
                for name, value in hook.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_arguments: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        self.port = server.server_address[1]
        try:
            yield self
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


def send(hook: Hook, **options: Any) -> list[float]:
    """Post an alert; how long was waited before each further try."""
    waits: list[float] = []
    post(hook.address(), message([ALERT], NOW), sleep=waits.append, **options)
    return waits


def test_an_alert_arrives_as_json_with_a_text_for_chat_services() -> None:
    with Hook().running() as hook:
        assert send(hook) == []
    ((path, kind, body),) = hook.received
    assert path == f"/services/{TOKEN}?key={TOKEN}"
    assert kind == "application/json"
    assert body["text"] == "critical: churn has drifted. What to do: look"
    (alert,) = body["alerts"]
    assert (alert["rule"], alert["status"], alert["details"]) == ("drift", "firing", ["age"])


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_failure_of_the_other_side_is_tried_again_with_longer_pauses(status: int) -> None:
    with Hook(status, status, 200).running() as hook:
        assert send(hook) == [1.0, 4.0]
    assert len(hook.received) == 3


def test_it_is_waited_as_long_as_the_other_side_asks_but_not_for_ever() -> None:
    with Hook(429, headers={"Retry-After": "30"}).running() as hook:
        assert send(hook) == [30.0]
    with Hook(429, headers={"Retry-After": "86400"}).running() as hook:
        assert send(hook) == [60.0]


@pytest.mark.parametrize("status", [400, 401, 404, 302])
def test_a_refusal_is_final_and_a_redirect_is_not_followed(status: int) -> None:
    with Hook(status, headers={"Location": "/elsewhere"}).running() as hook:
        with pytest.raises(WebhookError, match=f"answered {status}"):
            send(hook)
        assert len(hook.received) == 1


def test_it_is_given_up_after_some_tries() -> None:
    with (
        Hook(*[500] * 9).running() as hook,
        pytest.raises(WebhookError, match="answered 500, 4 times"),
    ):
        send(hook)
    assert len(hook.received) == 4


def test_a_silent_server_is_not_waited_for() -> None:
    with Hook().running() as hook:
        hook.delay = 1.0
        with pytest.raises(WebhookError, match="can't be reached"):
            send(hook, seconds=0.05, pauses=(0.0,))


def test_an_answer_that_comes_byte_by_byte_is_not_waited_for() -> None:
    """Each byte is in time, and all of them never are."""
    ended = threading.Event()

    def drip(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            while not ended.wait(0.05):
                connection.sendall(b"H")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=drip, args=(server,))
        thread.start()
        address = SecretStr(f"http://127.0.0.1:{server.getsockname()[1]}/{TOKEN}")
        try:
            with pytest.raises(WebhookError, match="can't be reached \\(TimeoutError\\), 1 times"):
                post(address, {}, seconds=0.2, pauses=())
        finally:
            ended.set()
            thread.join()


def test_nobody_there_is_an_error_that_says_so() -> None:
    with pytest.raises(WebhookError, match="can't be reached"):
        post(SecretStr("http://127.0.0.1:1/x"), {}, pauses=(), seconds=1.0)


@pytest.mark.parametrize("wish", ["\xb2", "Wed, 21 Oct 2015 07:28:00 GMT", "-3", "soon"])
def test_a_wish_to_wait_that_is_no_number_of_seconds_is_not_heeded(wish: str) -> None:
    with Hook(503, headers={"Retry-After": wish}).running() as hook:
        assert send(hook) == [1.0]


@pytest.mark.parametrize(
    "address",
    [
        "file:///etc/passwd",
        "example.org/hook",
        "https://",
        f"http://a..b/{TOKEN}",
        f"http://[::1/{TOKEN}",
        f"http://127.0.0.1:{TOKEN}/",
        f"http://{'a' * 70}.example/{TOKEN}",
    ],
)
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(WebhookError, match="no http:// or https:// address") as raised:
        post(SecretStr(address), {}, pauses=())
    assert TOKEN not in str(raised.value)


@pytest.mark.parametrize("path", ["\xe9", "a b", "a\nb"])
def test_an_address_with_what_no_address_has_is_refused_in_words(path: str) -> None:
    with pytest.raises(WebhookError, match=r"no address has; write it with %XX") as raised:
        post(SecretStr(f"http://127.0.0.1:1/{TOKEN}/{path}"), {}, pauses=())
    assert TOKEN not in str(raised.value)


def test_the_address_is_in_no_log_and_no_error(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.DEBUG), Hook(500, 200, 404).running() as hook:
        send(hook)
        with pytest.raises(WebhookError) as raised:
            send(hook)
    broken = SecretStr(f"http://127.0.0.1:{TOKEN}/")
    with caplog.at_level(logging.DEBUG), pytest.raises(WebhookError) as bad_port:
        post(broken, {}, pauses=())
    out = capfd.readouterr()
    told = f"{caplog.text}{raised.value}{bad_port.value}{out.out}{out.err}"
    assert TOKEN not in told
    assert raised.value.__cause__ is None
