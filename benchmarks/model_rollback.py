"""How soon a rollback answers: the order in the registry, the pointer, the running app.

    eval "$(leadml env)"
    python benchmarks/model_rollback.py NAME

NAME has a champion and a previous one; each round swaps them, and an even number of rounds leaves
all as it was.
"""

from __future__ import annotations

import argparse
import socket
import threading
import time

import httpx
import numpy as np
import uvicorn

from leadml_pipelines.learning.registry.registry import Registry
from leadml_pipelines.online.model_pointers import ModelPointers
from leadml_pipelines.online.publish_models import publish_roles
from leadml_pipelines.serving.app import create_app
from leadml_pipelines.settings import Settings


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    settings = Settings()
    registry = Registry.of(settings)
    pointers = ModelPointers(settings.require_redis())
    publish_roles(pointers, registry)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(settings), log_level="warning", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    ordered, published, answered = [], [], []
    try:
        with httpx.Client(base_url=address, trust_env=False, timeout=30) as client:

            def answering() -> str | None:
                models = client.get("/api/v1/ml/health").json()["models"]
                return models.get(arguments.name, {}).get("model_id")

            while answering() is None:
                time.sleep(0.05)
            time.sleep(5)  # the app compiles its statements after its start
            for _ in range(arguments.rounds):
                start = time.perf_counter()
                wanted = registry.rollback(arguments.name, by="benchmark").model_id
                ordered.append(time.perf_counter() - start)
                publish_roles(pointers, registry, [arguments.name])
                published.append(time.perf_counter() - start)
                while answering() != wanted:
                    time.sleep(0.005)
                answered.append(time.perf_counter() - start)
    finally:
        server.should_exit = True
        thread.join()
    for what, seconds in (
        ("recorded", ordered),
        ("published", published),
        ("answered by", answered),
    ):
        low, high = np.median(seconds), max(seconds)
        print(f"{what:12} median {1000 * low:6.0f} ms, slowest {1000 * high:6.0f} ms")


if __name__ == "__main__":
    main()
