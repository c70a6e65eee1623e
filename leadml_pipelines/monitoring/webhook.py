"""Telling a webhook: one POST of JSON, tried again when it is the other side's fault.

The address may hold a token, so it is in no log line, no error and no document. The standard
library sends, because it logs nothing: httpx writes every address that it calls into its log.
"""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from datetime import datetime
from http import HTTPStatus
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from leadml_pipelines.errors import UserError
from leadml_pipelines.monitoring.alert_state import Alert

SECONDS = 5.0
"""How long the other side may be silent."""
WHOLE = 3
"""Times that, a try is over: a name that is not found, or an answer that comes byte by byte."""
PAUSES = (1.0, 4.0, 16.0)
"""Seconds before each further try."""
LONGEST_PAUSE = 60.0
"""Longer than this we do not wait, even if the other side asks us to."""


class WebhookError(UserError):
    """The webhook could not be told; the sentence says why, never where it is."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer: the alert goes to the address that was configured or to none."""

    def redirect_request(self, *_arguments: Any) -> None:
        return None


def message(alerts: Sequence[Alert], now: datetime) -> dict[str, Any]:
    """What is posted: the alerts, and their sentences as `text`, which chat services show."""
    lines = [
        f"{'resolved' if alert.resolved_at else alert.severity}: {alert.words}"
        + ("" if alert.resolved_at else f". What to do: {alert.what_to_do}")
        for alert in alerts
    ]
    return {
        "version": 1,
        "source": "leadml",
        "sent_at": now.isoformat(),
        "text": "\n".join(lines),
        "alerts": [alert.document() for alert in alerts],
    }


def post(
    address: SecretStr,
    document: dict[str, Any],
    *,
    seconds: float = SECONDS,
    pauses: Sequence[float] = PAUSES,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Post a document, with some tries.

    No answer, a 429 and any 5xx are tried again, after `Retry-After` if that is longer; anything
    else is final. A repeated POST may reach the other side twice.

    Args:
        address: `https://...` or `http://...`.
        document: JSON-ready.
        seconds: How long the other side may be silent; a try is over after three times that.
        pauses: Seconds before each further try.
        sleep: How to wait.

    Raises:
        WebhookError: it was not taken.
    """
    url = _usable(address)
    request = urllib.request.Request(  # noqa: S310 - the scheme was looked at
        url,
        json.dumps(document).encode(),
        {"Content-Type": "application/json", "User-Agent": "leadml"},
    )
    opener = urllib.request.build_opener(_NoRedirects)
    why = ""
    for pause in (*pauses, None):
        wanted = 0.0
        try:
            _ended_within(seconds * WHOLE, lambda: opener.open(request, timeout=seconds).close())
            return
        except urllib.error.HTTPError as error:
            error.close()
            why = f"answered {error.code}"
            final = error.code < HTTPStatus.INTERNAL_SERVER_ERROR
            if final and error.code != HTTPStatus.TOO_MANY_REQUESTS:
                raise WebhookError(f"the alert webhook {why}; see LEADML_ALERT_WEBHOOK") from None
            wanted = _retry_after(error)
        except (OSError, HTTPException) as error:
            # Of the reason only its kind: some quote a part of the address.
            reason = getattr(error, "reason", error)
            why = f"can't be reached ({type(reason).__name__})"
        if pause is not None:
            sleep(min(max(pause, wanted), LONGEST_PAUSE))
    tries = len(pauses) + 1
    raise WebhookError(f"the alert webhook {why}, {tries} times; see LEADML_ALERT_WEBHOOK")


def _ended_within(seconds: float, work: Callable[[], None]) -> None:
    """Do some work in a thread of its own, and leave it behind when it takes longer.

    A time limit of a socket is one of each read, and none of what looks up a name.

    Raises:
        TimeoutError: it took longer.
        Exception: what the work raises.
    """
    raised: list[Exception] = []

    def run() -> None:
        try:
            work()
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=run, name="alert-webhook", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError
    if raised:
        raise raised[0]


def _usable(address: SecretStr) -> str:
    """The address, with a name that DNS can have and a path that HTTP can carry.

    Raises:
        WebhookError: it is none. The reasons of the parsers quote it, so they are not told.
    """
    url = address.get_secret_value()
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna")
        usable = parts.scheme in ("http", "https") and host and (parts.port or 1) > 0
    except ValueError:  # UnicodeError is one
        usable = False
    if not usable:
        raise WebhookError("LEADML_ALERT_WEBHOOK is no http:// or https:// address")
    if not url.isascii() or any(not "!" <= character <= "~" for character in url):
        raise WebhookError(
            "LEADML_ALERT_WEBHOOK has a space or a letter that no address has; write it with %XX, "
            "and a name of a host as xn--..."
        )
    return url


def _retry_after(error: urllib.error.HTTPError) -> float:
    given = str(error.headers.get("Retry-After", ""))
    return float(given) if given.isascii() and given.isdecimal() else 0.0
