"""The key that signs what is registered: where it comes from, and what it says of some bytes."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from leadml_pipelines.errors import UserError

if TYPE_CHECKING:
    from leadml_pipelines.settings import Settings

KEY_FILE = "signing.key"
"""Name of the key file in the home folder."""
SHORTEST = 16
"""Fewest characters of a key."""

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class SigningKeyError(UserError):
    """There is no key, or none that may be used. The message never shows it."""


class SigningKey:
    """Where the key is, read each time it is asked for: it may be made after a process began.

    Args:
        text: The key itself, from the settings.
        path: The key file, looked at when there is no text.
    """

    def __init__(self, text: str | None = None, path: Path | None = None) -> None:
        self._text = text
        self._path = path

    @classmethod
    def of(cls, settings: Settings) -> SigningKey:
        """The key of these settings: `signing_key`, or else the key file in the home folder."""
        given = settings.signing_key
        return cls(None if given is None else given.get_secret_value(), settings.root / KEY_FILE)

    def read(self) -> bytes:
        """The key.

        Raises:
            SigningKeyError: there is none, it is too short, or others may read its file.
        """
        if self._text is not None:
            return _usable(self._text, "LEADML_SIGNING_KEY")
        if self._path is None:
            raise SigningKeyError("no signing key was given; set LEADML_SIGNING_KEY")
        try:
            mode = self._path.stat().st_mode
            text = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise SigningKeyError(
                f"there is no signing key: LEADML_SIGNING_KEY is not set and {self._path} is not "
                "there; set the key that the models were signed with, or copy that file here"
            ) from None
        if mode & _OTHERS:
            raise SigningKeyError(
                f"other users may read or change {self._path}, so what it signs proves nothing; "
                f"run: chmod 600 {self._path}"
            )
        return _usable(text, str(self._path))

    def read_or_make(self) -> bytes:
        """The key; a key file is made if there is neither. Of several that do so at once, one wins.

        Raises:
            SigningKeyError: as for `read`.
        """
        if self._text is None and self._path is not None and not self._path.exists():
            _make(self._path)
        return self.read()

    def __repr__(self) -> str:
        return f"SigningKey({'given' if self._text is not None else self._path})"


def sign(key: bytes, content: bytes) -> str:
    """HMAC-SHA256 of some bytes, in hexadecimal digits."""
    return hmac.new(key, content, hashlib.sha256).hexdigest()


def is_signed(key: bytes, content: bytes, signature: str) -> bool:
    """Whether a signature is of these bytes by this key; takes the same time for each wrong one."""
    return hmac.compare_digest(sign(key, content).encode(), signature.encode())


def _usable(text: str, where: str) -> bytes:
    key = text.strip()
    if len(key) < SHORTEST:
        raise SigningKeyError(
            f"the signing key in {where} has fewer than {SHORTEST} characters; make one with: "
            "openssl rand -hex 32"
        )
    return key.encode()


def _make(path: Path) -> None:
    """Write a whole new key file, unless somebody else did meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, made = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(secrets.token_hex(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        # A link, not a rename: it fails where the file is there already, whose key then counts.
        os.link(made, path)
    except FileExistsError:
        pass
    finally:
        os.unlink(made)
