"""The demonstration, from an empty folder to answers over HTTP, step by step."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from leadml_pipelines.demo.bars import bar, bars
from leadml_pipelines.demo.client import ask
from leadml_pipelines.demo.dataset import Dataset, Files, claim
from leadml_pipelines.demo.materialize import materialize_everything
from leadml_pipelines.deployment import Deployment, keep_settings
from leadml_pipelines.settings import Settings

LEADS_TO_ASK = 100
LOG_SECONDS = 3
"""How long what was served may take to be logged; an app that ran before logs only a sample."""


@dataclass
class Summary:
    """What the demonstration did; `--json` writes it.

    Attributes:
        rows: rows by source table, and `quarantine`.
        features: features by view.
        models: by name: model_id, metrics on the newest data, the same of the heuristic that it
            replaces (baseline), both and a linear model's with their 95 % intervals (figures),
            and the seconds its training took.
        published: keys in Redis: features (one per lead) and models.
        latency_ms: request kind to p50 and p95.
        audit: served vectors that were computed again, and features that differed.
        seconds: wall time by step, and in all.
    """

    rows: dict[str, int] = field(default_factory=dict)
    features: dict[str, int] = field(default_factory=dict)
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    published: dict[str, int] = field(default_factory=dict)
    latency_ms: dict[str, dict[str, float]] = field(default_factory=dict)
    audit: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write the summary as JSON, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")
        temporary.replace(path)


def run_demo(deployment: Deployment, dataset: Dataset, console: Console) -> Summary:
    """Do the main job in a deployment, and say what was done.

    Args:
        deployment: where; its servers are started if they do not run.
        dataset: what to load.
        console: where the progress bars go.
    """
    summary = Summary()
    with bars(console) as progress:
        with _step(summary, "services"), bar(progress, "Starting PostgreSQL, Redis and the graph"):
            deployment.start_services()
        with _step(summary, "load"):
            _load(dataset, progress)
        with _step(summary, "materialize"), bar(progress, "Materializing assets") as report:
            materialize_everything(report)
        # Every vector that is about to be asked for is logged, for the audit at the end.
        os.environ.setdefault("LEADML_AUDIT_SAMPLE", "1")
        with _step(summary, "serve"), bar(progress, "Starting the HTTP app"):
            address = deployment.start_http()
        with _step(summary, "ask"), bar(progress, "Asking over HTTP"):
            leads = leads_to_score()
            summary.latency_ms = ask(address, leads).latency_ms
        with _step(summary, "audit"), bar(progress, "Auditing what was served"):
            summary.audit = _audit(_asked(leads))
    _collect(summary)
    summary.seconds["total"] = round(sum(summary.seconds.values()), 1)
    return summary


@contextmanager
def _step(summary: Summary, name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    summary.seconds[name] = round(time.perf_counter() - start, 1)


def _load(dataset: Dataset, progress: Progress) -> None:
    settings = Settings()
    url = settings.require_postgres()
    claimed = claim(url, dataset)
    if isinstance(claimed, Files):
        keep_settings(Path(claimed.mapping), settings.root)
    with bar(progress, "Loading data") as report:
        claimed.load(url, report)


def leads_to_score() -> dict[str, list[str]]:
    """For each model some leads that it scores, from the newest checked snapshot.

    Raises:
        RuntimeError: no lead is in a model's population.
    """
    from leadml_pipelines.features.snapshots.reading import read_latest
    from leadml_pipelines.learning.specs import specs

    settings = Settings()
    frame = read_latest(settings.require_postgres(), "lead").frame
    chosen = {}
    for name, spec in specs(settings).items():
        inside = frame.loc[spec.in_population(frame), "entity_id"]
        if inside.empty:
            raise RuntimeError(f"no lead of the newest snapshot is in the population of {name}")
        chosen[name] = inside.head(LEADS_TO_ASK).tolist()
    return chosen


def _asked(leads: dict[str, list[str]]) -> set[str]:
    """The leads whose features `ask` makes the app read."""
    return {*next(iter(leads.values())), *(ids[0] for ids in leads.values())}


def _audit(asked: set[str]) -> dict[str, int]:
    """Compute again, in bulk, what was asked for over HTTP."""
    from leadml_pipelines.features.audit import audit
    from leadml_pipelines.features.bulk import bulk_engine
    from leadml_pipelines.features.catalogue import catalogue
    from leadml_pipelines.sources.extract import latest_extract

    settings = Settings()
    url = settings.require_postgres()
    _wait_for_log(url, len(asked))
    extract = latest_extract(settings.extracts)
    with bulk_engine(extract, settings) as engine:
        report = audit(url, engine, catalogue(), extract.as_of)
    return {"audited": report.audited, "mismatches": len(report.mismatches)}


def _wait_for_log(url: str, vectors: int) -> None:
    """Wait until so many vectors are logged, or as long as it takes at most."""
    from leadml_pipelines.postgres import connect

    deadline = time.monotonic() + LOG_SECONDS
    with connect(url, autocommit=True) as connection:
        while time.monotonic() < deadline:
            row = connection.execute(
                "SELECT count(DISTINCT entity_id) FROM leadml.served_features"
            ).fetchone()
            if row is not None and row[0] >= vectors:
                return
            time.sleep(0.1)


def _collect(summary: Summary) -> None:
    from leadml_pipelines.features.catalogue import catalogue
    from leadml_pipelines.features.snapshots.reading import read_latest
    from leadml_pipelines.learning.registry.registry import Registry
    from leadml_pipelines.learning.specs import SPECS
    from leadml_pipelines.online.model_pointers import ModelPointers
    from leadml_pipelines.online.store import OnlineStore
    from leadml_pipelines.sources.extract import latest_extract
    from leadml_pipelines.sources.quarantine import count_by_reason

    settings = Settings()
    url = settings.require_postgres()
    summary.rows = dict(latest_extract(settings.extracts).rows)
    summary.rows["quarantine"] = sum(
        sum(reasons.values()) for reasons in count_by_reason(url).values()
    )
    summary.features = {view.name: len(view.features) for view in catalogue().views("lead")}
    registry = Registry.of(settings, url)
    for name in SPECS:
        record = registry.newest(name)
        summary.models[name] = {
            "model_id": record.model_id,
            "metrics": dict(record.metrics),
            "baseline": dict(record.baseline),
            "figures": {who: record.evaluation[who] for who in ("model", "heuristic", "logistic")},
            "seconds": record.seconds,
        }
    leads = read_latest(url, "lead").frame["entity_id"].tolist()
    redis_url = settings.require_redis()
    with OnlineStore(redis_url) as store, ModelPointers(redis_url) as pointers:
        summary.published = {
            "features": len(leads) - len(store.read_batch("lead", leads).missing()),
            "models": sum(pointers.get(name, "champion") is not None for name in SPECS),
        }
