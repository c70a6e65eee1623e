"""Who may ask: API keys, and which address the app may listen on without them."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from leadml_pipelines.serving.errors import error_response
from leadml_pipelines.settings import Settings

HEADER = "x-api-key"
PROTECTED = "/api/"
"""Paths that need a key. Health and metrics tell nothing about leads and stay open."""

_DIGEST = re.compile(r"[0-9a-f]{64}")


class UnsafeAddressError(RuntimeError):
    """The app would be reachable from other machines without any key."""


def key_digests(settings: Settings) -> tuple[bytes, ...]:
    """The SHA-256 digests of the API keys that are let in.

    Raises:
        ValueError: a configured digest is not 64 hexadecimal digits. The message does not show it.
    """
    texts = [text.strip().lower() for text in settings.api_keys_sha256.split(",") if text.strip()]
    for number, text in enumerate(texts, start=1):
        if not _DIGEST.fullmatch(text):
            raise ValueError(
                f"entry {number} of LEADML_API_KEYS_SHA256 is not the SHA-256 of a key in 64 "
                "hexadecimal digits; make one with: printf %s KEY | sha256sum"
            )
    return tuple(bytes.fromhex(text) for text in texts)


def require_safe_address(settings: Settings) -> None:
    """Refuse to listen where other machines can reach an app that lets everybody in.

    Raises:
        UnsafeAddressError: the host is no loopback address and there is no API key.
    """
    if not is_loopback(settings.http_host) and not key_digests(settings):
        raise UnsafeAddressError(
            f"LEADML_HTTP_HOST is {settings.http_host}, which other machines can reach, and no API "
            "key is configured; set LEADML_API_KEYS_SHA256 to the SHA-256 of at least one key, or "
            "listen on 127.0.0.1"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class ApiKeyMiddleware:
    """Lets in requests that carry a known key; all of them when no key is configured.

    Args:
        app: What answers.
        digests: SHA-256 of each key.
    """

    def __init__(self, app: ASGIApp, digests: tuple[bytes, ...]) -> None:
        self._app = app
        self._digests = digests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if (
            scope["type"] == "http"
            and self._digests
            and scope["path"].startswith(PROTECTED)
            and not self._knows(Headers(scope=scope).get(HEADER, ""))
        ):
            refusal = error_response(
                HTTPStatus.UNAUTHORIZED,
                "unauthorized",
                "this app needs an API key in the header X-API-Key",
            )
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _knows(self, key: str) -> bool:
        """Compare with every digest in full, so that the time taken tells nothing."""
        found = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
        matches = [hmac.compare_digest(found, digest) for digest in self._digests]
        return any(matches)
