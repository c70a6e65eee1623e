"""What the prediction log costs an answer, and how fast predictions reach PostgreSQL.

Run it while the machine is quiet; it starts a PostgreSQL and a Redis of its own and removes them:

    PYTHONPATH=. python benchmarks/prediction_log.py

One predictor answers with the log and one without, on the same cached leads and the same model, in
blocks that take turns, so that a busy moment hits both. After each answer the caller rests as long
as the answer took. Both threads of the log, and the servers, run meanwhile on the same cores; what
was logged in a block is in PostgreSQL before the next one begins. Then the drain alone: a stream is
filled and emptied.
"""

from __future__ import annotations

import argparse
import gc
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import redis
from beside import shown

from leadml_pipelines.learning.registry.signing import SigningKey
from leadml_pipelines.online.model_pointers import ModelPointers
from leadml_pipelines.online.prediction_drain import drain_now
from leadml_pipelines.online.prediction_stream import Document, PredictionStream
from leadml_pipelines.online.publish import publish_snapshot
from leadml_pipelines.postgres import connect, migrate
from leadml_pipelines.services.stack import ServiceStack
from leadml_pipelines.serving.metrics import Metrics
from leadml_pipelines.serving.models import ModelShelf
from leadml_pipelines.serving.online_features import OnlineFeatures
from leadml_pipelines.serving.predict import Predictor
from leadml_pipelines.serving.prediction_log import PredictionLog, documents
from leadml_pipelines.settings import Settings
from leadml_pipelines.times import utc_now
from leadml_pipelines_tests.online.frames import lead_features, lead_frame
from leadml_pipelines_tests.serving.artifacts import KEY, make_model

LEADS = 1000
SIZES = ((1, 200), (100, 60), (1000, 20))
"""Leads of a request, and requests of a block."""
BLOCKS = 12
DRAINED = 100_000


@contextmanager
def servers(folder: Path) -> Iterator[Settings]:
    """PostgreSQL and Redis for this run, and settings that name them."""
    stack = ServiceStack(folder)
    try:
        stack.start(only=["postgres", "redis"])
        environment = stack.environment()
        url = environment["LEADML_POSTGRES_URL"]
        migrate(url)
        yield Settings(
            home=folder, postgres_url=url, redis_url=environment["LEADML_REDIS_URL"], audit_sample=0
        )
    finally:
        stack.stop()
        stack.remove()


def block(predictor: Predictor, ids: list[str], rounds: int) -> list[float]:
    """Milliseconds of each answer."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        predictor.many("conversion", ids)
        took = time.perf_counter() - start
        times.append(took * 1000)
        time.sleep(took)
    return times


def settled(metrics: Metrics, count: int) -> None:
    """Wait until so many predictions are in PostgreSQL."""
    while (
        metrics.registry.get_sample_value("leadml_prediction_log_total", {"outcome": "stored"}) or 0
    ) < count:
        time.sleep(0.02)


def answers(settings: Settings, scale: float) -> list[Document]:
    """Print the latencies; returns the documents of a thousand predictions."""
    metrics = Metrics()
    online = OnlineFeatures(settings, metrics)
    frame = lead_frame([f"lead_{i}" for i in range(LEADS)])
    publish_snapshot(online.store, "lead", lead_features(), frame, utc_now())
    pointer = make_model(settings.artifacts, "conversion", "conversion_1")
    pointers = ModelPointers(settings.require_redis())
    pointers.set("conversion", "champion", pointer)
    shelf = ModelShelf(pointers, dict, SigningKey(KEY), settings.artifacts, metrics)
    shelf.refresh()
    log = PredictionLog(settings, metrics)
    off = PredictionLog(settings.model_copy(update={"prediction_log": False}), metrics)
    log.start()
    predictors = [Predictor(online.reader, shelf, metrics, one) for one in (off, log)]
    gc.collect()
    gc.freeze()
    logged = 0
    print(
        f"{'leads':>6} {'without p50/p95/p99 ms':>26} {'with':>26} {'p50':>6} {'p95':>6} {'p99':>6}"
    )
    for size, rounds in SIZES:
        ids = frame["entity_id"].tolist()[:size]
        times: list[list[float]] = [[], []]
        for at in range(max(2, int(BLOCKS * scale))):
            for predictor, seen in zip(predictors, times, strict=True):
                measured = block(predictor, ids, rounds)
                if at:
                    seen += measured
            logged += size * rounds
            settled(metrics, logged)
        without, with_log = (np.percentile(seen, [50, 95, 99]) for seen in times)
        ratios = " ".join(f"{ratio:>6.2f}" for ratio in with_log / without)
        print(f"{size:>6} {shown(without):>26} {shown(with_log):>26} {ratios}")
    kept: list[Document] = []
    log.note = lambda answered: kept.extend(documents(answered))  # type: ignore[method-assign]
    predictors[1].many("conversion", frame["entity_id"].tolist())
    log.close()
    off.close()
    pointers.close()
    online.close()
    return kept


def drain(settings: Settings, made: list[Document], scale: float) -> None:
    """Print how fast a full stream is emptied."""
    count = int(DRAINED * scale)
    filled = 0
    stream = PredictionStream(settings.require_redis(), count)
    start = time.perf_counter()
    while filled + LEADS <= count:
        # Other ids, so that every prediction is new; they stand where the documents begin.
        again = [
            Document(one.text.replace(one.text[7:39], f"{filled + at:032x}".encode()), one.count)
            for at, one in enumerate(made)
        ]
        assert stream.add(again) == len(again)
        filled += sum(one.count for one in again)
    seconds = time.perf_counter() - start
    print(f"into the stream: {filled / seconds:,.0f} predictions/s")
    with redis.Redis.from_url(settings.require_redis()) as client:
        size = client.memory_usage("leadml:predictions", samples=0) / filled
        print(f"in Redis: {size:.0f} bytes each, {LEADS} leads in {len(made)} entries")
    start = time.perf_counter()
    drained = drain_now(settings.require_redis(), settings.require_postgres())
    seconds = time.perf_counter() - start
    assert drained.stored == filled, drained
    print(f"into PostgreSQL: {filled / seconds:,.0f} predictions/s")
    stream.close()
    with connect(settings.require_postgres()) as connection:
        row = connection.execute(
            "SELECT pg_total_relation_size('leadml.predictions') / count(*) FROM leadml.predictions"
        ).fetchone()
        print(f"on disk: {row[0] if row else 0} bytes each, with indexes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the rounds to run")
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores")
    with tempfile.TemporaryDirectory(prefix="leadml-") as folder:
        # The server's own user has to get through to its data.
        Path(folder).chmod(0o755)
        with servers(Path(folder) / "home") as settings:
            drain(settings, answers(settings, options.scale), options.scale)


if __name__ == "__main__":
    main()
