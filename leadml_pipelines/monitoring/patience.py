"""How long monitoring waits for PostgreSQL, so that a frozen server ends a job and no job hangs."""

from __future__ import annotations

from typing import Any

import psycopg

from leadml_pipelines import postgres

LIMITS = {"connect_timeout": 10, "answer_seconds": 120.0}
"""Seconds to be let in, and for each answer; as `postgres.connect` takes them."""


def connect(url: str, **options: Any) -> psycopg.Connection[Any]:
    """As `postgres.connect`, within `LIMITS` unless the options say otherwise.

    Raises:
        SilentServerError: PostgreSQL took a question and did not answer in time.
        psycopg.OperationalError: it can't be reached, or did not let us in in time.
    """
    return postgres.connect(url, **{**LIMITS, **options})
