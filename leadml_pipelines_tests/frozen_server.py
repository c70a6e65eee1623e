"""A server whose kernel takes connections, and which never answers."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def frozen_server(port: int = 0) -> Iterator[int]:
    """Its port on loopback, until the end of the block.

    Args:
        port: The port, of a server that ended; 0: a free one.
    """
    with socket.create_server(("127.0.0.1", port)) as frozen:
        yield frozen.getsockname()[1]
