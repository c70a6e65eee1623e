"""A server whose kernel takes connections, and which never answers."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def frozen_server() -> Iterator[int]:
    """Its port on loopback, until the end of the block."""
    with socket.create_server(("127.0.0.1", 0)) as frozen:
        yield frozen.getsockname()[1]
