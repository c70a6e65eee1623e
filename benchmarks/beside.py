"""Measuring beside something else: functions in turn, Feast in a process of its own."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import redis


def in_turn(works: list[Callable[[], object]], rounds: int) -> list[np.ndarray]:
    """Times of functions in ms, p50 / p95 / p99 each, called one after the other in each round."""
    times: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for work, seen in zip(works, times, strict=True):
            start = time.perf_counter()
            work()
            seen.append((time.perf_counter() - start) * 1000)
    return [np.percentile(seen, [50, 95, 99]) for seen in times]


def shown(milliseconds: np.ndarray) -> str:
    return " / ".join(f"{t:.3f}" for t in milliseconds)


def empty_redis() -> redis.Redis:
    """The database that LEADML_REDIS_URL names, which must be empty: it is emptied at the end."""
    client = redis.Redis.from_url(os.environ["LEADML_REDIS_URL"])
    if client.dbsize():
        raise SystemExit(f"the database holds {client.dbsize()} keys; name an empty one")
    return client


def add_feast_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--feast-python",
        help="Python of an environment with Feast 0.67; skipped without",
    )


def feast(python: str | None, **options: Any) -> dict[str, Any] | None:
    """What Feast takes on the same Redis; None, with a sentence, where it is not to be had."""
    if python is None:
        print("Feast is skipped: --feast-python names no Python that has it")
        return None
    arguments: list[str] = []
    for name, value in options.items():
        values = value if isinstance(value, list) else [value]
        arguments += [f"--{name}", *map(str, values)]
    script = Path(__file__).with_name("feast_online.py")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    ended = subprocess.run(
        [python, str(script), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        raise SystemExit(f"Feast failed:\n{ended.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(ended.stdout.strip().splitlines()[-1])
    return found
