"""The process of the embedded graph: ArcadeDB, which speaks Bolt like Neo4j does.

Run as `python -m leadml_pipelines.services.graph_server` with a JSON object on standard input
(a command line would show the password): `root` (data folder), `password`, `database`,
`bolt_port`, `http_port`, `heap` (as in `512m`). SIGTERM closes the database and ends the process.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

COMPLETE = "complete"
"""File in the data folder that is there once the database has been made."""


def main() -> None:
    """Serve until SIGTERM."""
    from arcadedb_embedded import ArcadeDBServer

    given = json.load(sys.stdin)
    root = Path(given["root"])
    server = ArcadeDBServer(
        root_path=str(root),
        root_password=given["password"],
        config={
            "server_plugins": "Bolt:com.arcadedb.bolt.BoltProtocolPlugin",
            "bolt_port": str(given["bolt_port"]),
            "host": "127.0.0.1",
            "http_port": str(given["http_port"]),
            "mode": "production",
        },
        jvm_kwargs={"heap_size": given["heap"]},
    )
    server.start()
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()

    # Only now: the Java machine sets handlers of its own when it starts. They serve until here.
    signal.signal(signal.SIGTERM, on_signal)
    server.create_database(given["database"])
    (root / COMPLETE).touch()
    stop.wait()
    server.stop()
    sys.stdout.flush()
    # The database is closed; what is left of the Java machine has nothing to save.
    os._exit(0)


if __name__ == "__main__":
    main()
