"""One lead or agent, live from the graph over HTTP: `GET /api/v1/features/graph/{entity_id}`.

It starts servers and the app of its own, fills them, asks, and removes them again:

    python benchmarks/graph_live.py             # on the embedded graph
    python benchmarks/graph_live.py --neo4j     # on the Neo4j server of the tests

The target is 50 ms at the 95th percentile, warm, on 100,000 leads. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import httpx
import numpy as np

from leadml_pipelines.graph.sync import sync_graph
from leadml_pipelines.postgres import connect, migrate
from leadml_pipelines.services.stack import ServiceStack
from leadml_pipelines.settings import Settings
from leadml_pipelines.times import utc_now
from leadml_pipelines_tests.graph.builders import extract
from leadml_pipelines_tests.neo4j_server.server import neo4j_server

AGENTS = 200
WEEKS = 4
PATH = "/api/v1/features/graph"


def tables(folder: Path, leads: int) -> dict[str, Path]:
    """A funnel: every lead has a campaign, two in three a household, and an agent or three."""
    random = np.random.default_rng(7)
    start = utc_now() - timedelta(days=400)
    days = random.random(leads) * 390

    def at(day: float) -> object:
        return start + timedelta(days=float(day))

    households = random.integers(0, leads // 3, leads)
    assignments = []
    for lead in range(leads):
        when = days[lead]
        for turn in range(1 + int(random.random() < 0.3) + int(random.random() < 0.1)):
            ended = at(when + 3) if turn == 0 and random.random() < 0.4 else None
            agent = f"agent_{random.integers(0, AGENTS)}"
            assignments.append((f"lead_{lead}", agent, at(when + turn), ended))
    pairs = random.integers(0, leads, (leads // 3, 2))
    return extract(
        folder,
        leads=[
            (
                f"lead_{n}",
                at(days[n]),
                f"campaign_{n % 40}",
                f"household_{households[n]}" if n % 3 else None,
            )
            for n in range(leads)
        ],
        agents=[(f"agent_{n}", start) for n in range(AGENTS)],
        assignments=assignments,
        referrals=[
            (f"lead_{a}", f"lead_{b}", at(max(days[a], days[b]))) for a, b in pairs if a != b
        ],
    )


def fill_metrics(postgres_url: str, leads: int) -> None:
    with connect(postgres_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO leadml.graph_metrics"
            " SELECT 'lead', 'lead_' || n, now() - w * interval '7 days', now(), 1, 1, 1, 0, 1, 1,"
            " 0.1, 0.1, 0.1, 0.1, 1, 'lead:lead_1', 9, 0.1, 0.1, 1, 1, 2, 1, 0, NULL, 100"
            " FROM generate_series(0, %s - 1) AS n, generate_series(1, %s) AS w",
            (leads, WEEKS),
        )
        connection.execute("ANALYZE leadml.graph_metrics")


def ask(client: httpx.Client, entity_type: str, entity_id: str) -> float:
    """Milliseconds of one answer."""
    start = time.perf_counter()
    response = client.get(f"{PATH}/{entity_id}", params={"entity_type": entity_type})
    taken = (time.perf_counter() - start) * 1000
    assert response.status_code == 200, response.text
    assert entity_type == "agent" or response.json()["data"]["metrics"], response.text
    return taken


def warm(client: httpx.Client, entity_type: str, entity_id: str) -> None:
    """Ask until there is an answer: a server just started may miss the app's limit at first."""
    deadline = time.monotonic() + 60
    while client.get(f"{PATH}/{entity_id}", params={"entity_type": entity_type}).is_server_error:
        if time.monotonic() > deadline:
            raise SystemExit("the graph does not answer within the app's time limit")
        time.sleep(0.2)


def show(title: str, milliseconds: Sequence[float]) -> None:
    p50, p95, p99 = np.percentile(milliseconds, [50, 95, 99])
    print(f"{title:<40} p50 {p50:6.1f}  p95 {p95:6.1f}  p99 {p99:6.1f} ms")


def measure(client: httpx.Client, leads: int, requests: int) -> None:
    random = np.random.default_rng(3)

    def some(count: int) -> list[str]:
        return [f"lead_{n}" for n in random.integers(0, leads, count)]

    for name in some(1000):
        warm(client, "lead", name)
    show(
        f"{requests:,} leads, one after the other", [ask(client, "lead", n) for n in some(requests)]
    )
    with ThreadPoolExecutor(4) as threads:
        taken = list(threads.map(lambda name: ask(client, "lead", name), some(requests)))
    show(f"{requests:,} leads, four at once", taken)
    agents = [f"agent_{n}" for n in random.integers(0, AGENTS, 300)]
    for name in agents[:100]:
        warm(client, "agent", name)
    show(
        f"300 agents of {leads // AGENTS:,} leads and more",
        [ask(client, "agent", n) for n in agents],
    )


def serve(stack: ExitStack, home: Path, environment: dict[str, str]) -> httpx.Client:
    """The app in a process of its own, and a client once it is ready."""
    port = 18999
    process = subprocess.Popen(
        [sys.executable, "-m", "leadml_pipelines.serving"],
        env=os.environ
        | environment
        | {
            "LEADML_HOME": str(home),
            "LEADML_HTTP_PORT": str(port),
            "LEADML_LOG_LEVEL": "error",
        },
    )
    stack.callback(process.wait)
    stack.callback(process.terminate)
    client = stack.enter_context(
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30)
    )
    deadline = time.monotonic() + 60
    while True:
        try:
            if client.get("/readyz").status_code == 200:
                return client
        except httpx.TransportError:
            pass
        if time.monotonic() > deadline or process.poll() is not None:
            raise SystemExit("the app did not start")
        time.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--leads", type=int, default=100_000)
    parser.add_argument("--requests", type=int, default=2_000)
    parser.add_argument("--neo4j", action="store_true", help="on the Neo4j server of the tests")
    options = parser.parse_args()
    for name in [name for name in os.environ if name.startswith("LEADML_")]:
        del os.environ[name]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="leadml-")))
        services = ServiceStack(folder / "home")
        stack.callback(services.remove)
        stack.callback(services.stop)
        services.start(only=["postgres", "redis"] + ([] if options.neo4j else ["graph"]))
        environment = services.environment()
        if options.neo4j:
            (folder / "neo4j").mkdir()
            environment |= stack.enter_context(neo4j_server(folder / "neo4j"))
        os.environ.update(environment)
        settings = Settings(home=folder / "home")
        migrate(settings.require_postgres())
        report = sync_graph(
            settings.require_neo4j(),
            settings.require_postgres(),
            tables(folder / "tables", options.leads),
        )
        print(
            f"{'Neo4j' if options.neo4j else 'embedded graph'}: {report.nodes:,} nodes and "
            f"{report.edges:,} relationships, written in {report.seconds:.0f} s"
        )
        fill_metrics(settings.require_postgres(), options.leads)
        measure(serve(stack, folder / "home", environment), options.leads, options.requests)


if __name__ == "__main__":
    main()
