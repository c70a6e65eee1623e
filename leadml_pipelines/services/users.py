"""The commands that use the processes of one home at the moment: the last one ends them."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from leadml_pipelines.services.errors import ServiceError
from leadml_pipelines.services.home import Home

_TIMEOUT = 180.0
"""Seconds to wait for a command that is stopping everything."""

_POLL = 0.05


class Users:
    """One command among those that use a home.

    Each holds a shared lock; who can have it alone is the last. The kernel releases it when its
    holder dies, however it dies.

    Args:
        home: The home.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self._descriptor: int | None = None

    @property
    def joined(self) -> bool:
        """Whether this command counts as a user."""
        return self._descriptor is not None

    def join(self) -> None:
        """Become a user, after waiting for one that is stopping everything.

        Raises:
            ServiceError: that takes minutes.
        """
        deadline = time.monotonic() + _TIMEOUT
        descriptor = self._open()
        try:
            while not _try_lock(descriptor, fcntl.LOCK_SH):
                if time.monotonic() > deadline:
                    raise ServiceError(
                        f"another command has been stopping the servers in {self._home.path} for "
                        f"{_TIMEOUT:.0f} seconds; end that command and try again"
                    )
                time.sleep(_POLL)
        except BaseException:
            self._close()
            raise

    @contextmanager
    def leaving(self) -> Iterator[bool]:
        """Give whether this was the last user; others can join when the block ends."""
        try:
            yield _try_lock(self._open(), fcntl.LOCK_EX)
        finally:
            self._close()

    def _open(self) -> int:
        if self._descriptor is None:
            self._home.create()
            path = self._home.path / "locks" / "users"
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        return self._descriptor

    def _close(self) -> None:
        if self._descriptor is not None:
            # Closing alone would not do while a child has a copy, before its exec.
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            os.close(self._descriptor)
            self._descriptor = None


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
