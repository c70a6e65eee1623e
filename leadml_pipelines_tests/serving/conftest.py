"""The app over real HTTP, with a real Redis and PostgreSQL behind it."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx
import pandas as pd
import pytest
import uvicorn
from pydantic import SecretStr

from leadml_pipelines.features.catalogue import catalogue
from leadml_pipelines.features.postgres_engine import PresentQuery
from leadml_pipelines.online.model_pointers import ModelPointers
from leadml_pipelines.online.publish import publish_snapshot
from leadml_pipelines.online.store import OnlineStore
from leadml_pipelines.serving.app import create_app
from leadml_pipelines.settings import Settings
from leadml_pipelines.times import utc_now
from leadml_pipelines_tests.online.frames import lead_features, lead_frame
from leadml_pipelines_tests.serving.artifacts import CHURN, KEY, make_model

NOBODY_LISTENS = "127.0.0.1:1"
NO_REDIS = SecretStr(f"redis://{NOBODY_LISTENS}/0")
NO_POSTGRES = SecretStr(f"postgresql://nobody:secret@{NOBODY_LISTENS}/none")
IDS = [f"lead_{i}" for i in range(40)]


def wait_for(condition: Callable[[], Any], seconds: float = 60) -> Any:
    """The first true answer of a condition; an error if there is none in time."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return answer


@contextmanager
def serve(settings: Settings) -> Iterator[httpx.Client]:
    """The app of these settings on a free port, ready, and a client of it."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(create_app(settings), log_level="warning", ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            with httpx.Client(base_url=address, trust_env=False, timeout=30) as client:
                wait_for(lambda: server.started)
                wait_for(lambda: client.get("/readyz").status_code == 200)
                yield client
        finally:
            server.should_exit = True
            thread.join()
            # The app does not wait for what it compiles; the next test shall not run beside it.
            for other in threading.enumerate():
                if other.name == "after-first-look":
                    other.join(60)


@pytest.fixture(scope="session")
def compiled() -> None:
    """Views are compiled once in a process, which takes a busy machine longer than a read may."""
    for entity_type in catalogue().entities:
        PresentQuery(entity_type, "crm")


@dataclass
class World:
    """A published snapshot and published models.

    Attributes:
        store: The online store.
        models: The pointers in Redis.
        frame: The snapshot.
        more: The snapshot and one lead more, `only_offline`.
        pointers: The champions' pointers by model.
        artifacts: Folder of the models.
        settings: Settings of the app.
    """

    store: OnlineStore
    models: ModelPointers
    frame: pd.DataFrame
    more: pd.DataFrame
    pointers: dict[str, dict[str, Any]]
    artifacts: Path
    settings: Settings

    def ids_where(self, stage: str, condition: Callable[[pd.DataFrame], Any]) -> list[str]:
        """Ids of the snapshot's rows for which a condition holds; at least one."""
        ids: list[str] = self.frame.loc[condition(self.frame), "entity_id"].tolist()
        assert ids, f"the frame has no {stage} lead"
        return ids

    @property
    def open_ids(self) -> list[str]:
        return self.ids_where("open", lambda frame: frame["is_open"].fillna(False))

    @property
    def closed_ids(self) -> list[str]:
        return self.ids_where("closed", lambda frame: ~frame["is_open"].fillna(False))

    def promote(self, name: str, model_id: str, **options: Any) -> dict[str, Any]:
        """Make a new version and point to it."""
        pointer = make_model(self.artifacts, name, model_id, **options)
        self.models.set(name, "champion", pointer)
        return pointer


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, dict[str, Any]]:
    """The first version of the three models, made once."""
    root = tmp_path_factory.mktemp("models")
    kinds: dict[str, dict[str, Any]] = {
        "churn": {"population": CHURN, "risk_levels": (0.25, 0.5, 0.75)},
        "conversion": {"population": "is_open"},
        "lead_score": {
            "objective": "regression",
            "population": "is_open",
            "companions": {
                "urgency": ("within a week", "within a month"),
                "cross_sell": ("auto", "home", "life"),
            },
        },
    }
    return {name: make_model(root, name, f"{name}_1", **options) for name, options in kinds.items()}


def _copied(pointer: Mapping[str, Any], artifacts: Path) -> dict[str, Any]:
    """A pointer to a copy of its model in another folder of all artifacts."""
    before = Path(unquote(urlsplit(pointer["artifact_uri"]).path))
    shutil.copytree(before, artifacts / before.name)
    return {**pointer, "artifact_uri": (artifacts / before.name).as_uri()}


@contextmanager
def _published(
    redis_url: str, postgres_url: str, home: Path, trained: Mapping[str, dict[str, Any]]
) -> Iterator[World]:
    more = lead_frame([*IDS, "only_offline"])
    frame = more.head(len(IDS))
    artifacts = home / "models"
    settings = Settings(
        home=home,
        redis_url=redis_url,
        postgres_url=postgres_url,
        signing_key=KEY,
        artifacts_url=artifacts.as_uri(),
    )
    pointers = {name: _copied(pointer, artifacts) for name, pointer in trained.items()}
    with OnlineStore(redis_url) as store, ModelPointers(redis_url) as models:
        publish_snapshot(store, "lead", lead_features(), frame, utc_now())
        for name, pointer in pointers.items():
            models.set(name, "champion", pointer)
        yield World(store, models, frame, more, pointers, artifacts, settings)


@pytest.fixture
def world(
    redis_url: str, postgres_url: str, home: Path, trained: Mapping[str, dict[str, Any]]
) -> Iterator[World]:
    """A snapshot of 40 leads and the three models, published."""
    with _published(redis_url, postgres_url, home, trained) as world:
        yield world


@pytest.fixture
def client(world: World) -> Iterator[httpx.Client]:
    """A client of the app over that world."""
    with serve(world.settings) as client:
        yield client


@pytest.fixture(scope="module")
def kept_world(
    module_redis_url: str,
    postgres_url: str,
    tmp_path_factory: pytest.TempPathFactory,
    trained: Mapping[str, dict[str, Any]],
) -> Iterator[World]:
    """Such a world for all tests of a module that only look at it.

    No test of the module may ask for `world` or `redis_url`: that would empty this one.
    """
    home = tmp_path_factory.mktemp("kept") / "home"
    with _published(module_redis_url, postgres_url, home, trained) as world:
        yield world


@pytest.fixture(scope="module")
def kept_client(kept_world: World) -> Iterator[httpx.Client]:
    """A client of one app over that world, for tests that only ask."""
    with serve(kept_world.settings) as client:
        yield client


@pytest.fixture
def serving() -> Iterator[Callable[[Settings], httpx.Client]]:
    """Starts apps of settings of one's own, which end with the test."""
    with ExitStack() as stack:
        yield lambda settings: stack.enter_context(serve(settings))
