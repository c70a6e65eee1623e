"""A store that never answers is given up, and what waited for it goes on."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from leadml_pipelines.learning.evaluation.examination import Examination
from leadml_pipelines.learning.registry import time_limits
from leadml_pipelines.learning.registry.artifact_stores import open_store
from leadml_pipelines.learning.registry.artifacts import load_artifact, write_artifact
from leadml_pipelines.learning.registry.local_store import LocalStore
from leadml_pipelines.learning.registry.registry import Registry, RegistryError
from leadml_pipelines.learning.registry.signing import SigningKey
from leadml_pipelines.learning.registry.store_contract import ArtifactStoreError
from leadml_pipelines.learning.registry.time_limits import TimedStore
from leadml_pipelines.learning.training.train import TrainedModel
from leadml_pipelines.postgres import connect
from leadml_pipelines.signals import signals_interrupt
from leadml_pipelines_tests.frozen_server import frozen_server
from leadml_pipelines_tests.learning.registry.conftest import KEY, Stored
from leadml_pipelines_tests.s3_server import S3Server

SECONDS = 0.3


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time_limits, "ANSWER_SECONDS", SECONDS)
    monkeypatch.setattr(time_limits, "_CLEANING_SECONDS", 60.0)


@pytest.fixture(params=["s3", "ftp"])
def frozen(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of models on a server that takes connections and never answers."""
    with frozen_server() as port:
        if request.param == "ftp":
            yield f"ftp://127.0.0.1:{port}/models"
            return
        nobody = S3Server(f"http://127.0.0.1:{port}", "anyone", "nobody asks for it")
        nobody.use(monkeypatch)
        # Its own address, so that questions of one test are not counted in another.
        yield f"s3://models/{port}"


def test_a_frozen_store_is_a_sentence_and_not_waited_for(frozen: str) -> None:
    for ask in (
        lambda: load_artifact(f"{frozen}/churn_1", KEY.encode()),
        lambda: write_artifact(open_store(frozen), "churn_1", {"a": b"b"}, {}, KEY.encode()),
    ):
        with pytest.raises(ArtifactStoreError, match=f"{frozen} did not answer in .* is up"):
            ask()


def test_a_store_with_many_unanswered_questions_is_asked_no_more(frozen: str) -> None:
    store = open_store(frozen)
    for _ in range(time_limits.MOST_UNANSWERED):
        with pytest.raises(ArtifactStoreError, match="did not answer"):
            store.exists("churn_1")
    threads = threading.active_count()
    with pytest.raises(ArtifactStoreError, match="was not asked: 4 earlier questions wait"):
        store.exists("churn_1")
    assert threading.active_count() <= threads


class Silent(LocalStore):
    """A folder on a network disk that is away until it is told to be back."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.back = threading.Event()
        self.asked = threading.Event()

    def exists(self, folder: str) -> bool:
        self.asked.set()
        self.back.wait()
        return super().exists(folder)

    def write(self, folder: str, files: Mapping[str, bytes]) -> None:
        self.asked.set()
        self.back.wait()
        try:
            super().write(folder, files)
        finally:
            self.ended.set()

    ended = threading.Event()


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[Silent]:
    store = Silent(tmp_path / "models")
    store.ended.clear()
    yield store
    store.back.set()


def test_a_store_that_is_back_is_asked_again(silent: Silent, tmp_path: Path) -> None:
    store = TimedStore(f"file://{tmp_path}", lambda: silent)
    for _ in range(time_limits.MOST_UNANSWERED):
        with pytest.raises(ArtifactStoreError, match="did not answer"):
            store.exists("churn_1")
    with pytest.raises(ArtifactStoreError, match="was not asked"):
        store.exists("churn_1")
    silent.back.set()
    answered = threading.Event()
    while not answered.is_set():  # each of the four ends in a thread of its own
        try:
            assert store.exists("churn_1") is False
        except ArtifactStoreError:
            continue
        answered.set()


def test_a_writer_that_was_given_up_writes_nothing_when_the_store_is_back(
    silent: Silent, tmp_path: Path
) -> None:
    store = TimedStore(f"file://{tmp_path}", lambda: silent)
    with pytest.raises(ArtifactStoreError, match="did not answer"):
        store.write("churn_1", {"model.ubj": b"trees"})
    silent.back.set()
    assert silent.ended.wait(60)
    assert list((tmp_path / "models").iterdir()) == []


def test_what_is_large_may_take_longer(silent: Silent, tmp_path: Path) -> None:
    store = TimedStore(f"file://{tmp_path}", lambda: silent)
    size = time_limits.SLOWEST_BYTES_PER_SECOND * 100
    back = threading.Timer(SECONDS * 3, silent.back.set)
    back.start()
    store.write("churn_1", {"model.ubj": bytes(size)})
    assert store.sizes("churn_1") == {"model.ubj": size}
    back.join()


class Slow(LocalStore):
    """A folder whose writer is still at it when it is interrupted."""

    asked = threading.Event()

    def write(self, folder: str, files: Mapping[str, bytes]) -> None:
        self.asked.set()
        deadline = time.monotonic() + 60
        with suppress(ArtifactStoreError):
            while time.monotonic() < deadline:
                list(files)  # an error as soon as nobody wants them any more
        super().write(folder, files)


def test_who_is_interrupted_while_writing_leaves_nothing(tmp_path: Path) -> None:
    slow = Slow(tmp_path / "models")
    store = TimedStore(f"file://{tmp_path}", lambda: slow, answer_seconds=120)

    def interrupt() -> None:
        slow.asked.wait()
        os.kill(os.getpid(), signal.SIGINT)

    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    with pytest.raises(KeyboardInterrupt), signals_interrupt():
        store.write("churn_1", {"model.ubj": b"trees"})
    interrupting.join()
    assert list((tmp_path / "models").iterdir()) == []


def test_with_a_frozen_store_nothing_is_registered_and_the_champion_stays(
    postgres_url: str,
    registry: Registry,
    stored: Stored,
    trained: TrainedModel,
    examined: Examination,
    frozen: str,
) -> None:
    champion = registry.promote(stored().model_id, by="anna")
    away = Registry(postgres_url, frozen, SigningKey(KEY))
    with pytest.raises(ArtifactStoreError, match="did not answer"):
        away.store(trained, examined, champion.model_id)
    assert [record.model_id for record in registry.models()] == [champion.model_id]
    assert registry.load(champion.model_id).model_id == champion.model_id
    assert stored().model_id != champion.model_id  # no lock is left behind


def test_a_promotion_from_a_frozen_store_is_refused_in_a_sentence(
    registry: Registry, stored: Stored, frozen: str, postgres_url: str
) -> None:
    record = stored()
    with connect(postgres_url) as connection:
        connection.execute("UPDATE leadml.models SET artifact_uri = %s || model_id", [f"{frozen}/"])
    with pytest.raises(RegistryError, match=r"did not answer in .*no alias was changed"):
        registry.promote(record.model_id, by="anna")
