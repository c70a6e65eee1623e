"""Models on S3: a real client and a real server, with users, refusals and conditional writes."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from s3fs import S3FileSystem

from leadml_pipelines.learning.evaluation.examination import Examination
from leadml_pipelines.learning.registry import artifacts
from leadml_pipelines.learning.registry.artifact_stores import open_store
from leadml_pipelines.learning.registry.artifacts import (
    IntegrityError,
    load_artifact,
    resign_artifact,
    write_artifact,
)
from leadml_pipelines.learning.registry.fsspec_store import FsspecStore
from leadml_pipelines.learning.registry.registry import Registry, RegistryError
from leadml_pipelines.learning.registry.signing import SigningKey
from leadml_pipelines.learning.registry.store_contract import ArtifactStore, ArtifactStoreError
from leadml_pipelines.learning.training.train import TrainedModel
from leadml_pipelines.times import utc_now
from leadml_pipelines_tests.s3_server import BUCKET, S3Server, s3_server

KEY = b"the signing key of the tests"
FILES = {"model.ubj": b"trees", "rest.joblib": b"the rest", "card.md": "# Karte ä\n".encode()}
FACTS = {"name": "churn", "words": ["ä", "b"]}
NAMES = [*FILES, "manifest.json", "manifest.sig"]


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as running:
        yield running


@pytest.fixture
def root(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """Address of an empty place in the bucket, which this process may use."""
    server.use(monkeypatch)
    return f"s3://{BUCKET}/{secrets.token_hex(4)}"


@pytest.fixture
def store(root: str) -> ArtifactStore:
    return open_store(root)


def test_what_was_written_to_s3_is_read(store: ArtifactStore, root: str) -> None:
    written = write_artifact(store, "churn_1", FILES, FACTS, KEY)
    assert written.uri == f"{root}/churn_1"
    assert load_artifact(written.uri, KEY, written.manifest_sha256) == (FACTS, FILES)
    assert store.exists("churn_1")
    assert set(store.sizes("churn_1")) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_an_object_that_was_changed_or_removed_is_refused(store: ArtifactStore, name: str) -> None:
    written = write_artifact(store, "churn_1", FILES, FACTS, KEY)
    place = f"{written.uri}/{name}"
    files = S3FileSystem()
    files.pipe_file(place, files.cat_file(place)[:-1] + b"!")
    with pytest.raises(IntegrityError, match=name.replace("manifest.sig", "manifest.json")):
        load_artifact(written.uri, KEY)
    files.rm(place)
    with pytest.raises(IntegrityError, match=f"{name} is missing"):
        load_artifact(written.uri, KEY)


def test_an_object_that_nobody_registered_is_refused(store: ArtifactStore) -> None:
    written = write_artifact(store, "churn_1", FILES, FACTS, KEY)
    S3FileSystem().pipe_file(f"{written.uri}/deep/extra.joblib", b"x")
    with pytest.raises(IntegrityError, match=r"deep/extra\.joblib is not listed"):
        load_artifact(written.uri, KEY)


def test_an_object_that_is_too_large_is_refused(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = write_artifact(store, "churn_1", FILES, FACTS, KEY)
    S3FileSystem().pipe_file(f"{written.uri}/model.ubj", bytes(3 * 2**20))
    monkeypatch.setattr(artifacts, "MOST_BYTES", 2**20)
    with pytest.raises(IntegrityError, match=r"take 3\.0 MiB, but no more than 1\.0 MiB are read"):
        load_artifact(written.uri, KEY)


def test_of_an_object_that_grows_no_more_is_read(store: ArtifactStore) -> None:
    written = write_artifact(store, "churn_1", FILES, FACTS, KEY)
    S3FileSystem().pipe_file(f"{written.uri}/model.ubj", b"trees and many more bytes")
    assert store.read("churn_1", {"model.ubj": 5, "card.md": 0}) == {
        "model.ubj": b"trees",
        "card.md": b"",
    }


def test_a_folder_on_s3_is_listed_with_its_age_and_deleted(store: ArtifactStore) -> None:
    write_artifact(store, "churn_1", FILES, FACTS, KEY)
    write_artifact(store, "churn_2", FILES, FACTS, KEY)
    (first, second) = store.folders()
    assert first.size == sum(store.sizes("churn_1").values())
    assert (first.whole, second.name) == (True, "churn_2")
    assert first.changed_at is not None
    assert abs(first.changed_at - utc_now()) < timedelta(hours=1)
    for _ in range(2):
        store.delete("churn_1")
        assert [folder.name for folder in store.folders()] == ["churn_2"]


def test_a_model_on_s3_is_signed_again(store: ArtifactStore) -> None:
    written = write_artifact(store, "churn_1", FILES, FACTS, KEY)
    new = b"the newer key of the tests"
    assert resign_artifact(written.uri, KEY, new, written.manifest_sha256)
    assert load_artifact(written.uri, new, written.manifest_sha256).files == FILES


class Ended(dict[str, bytes]):
    """Files of a writer that is killed before the last of them."""

    def __iter__(self) -> Iterator[str]:
        yield from ("model.ubj", "manifest.json")
        raise KeyboardInterrupt


def test_a_writer_that_is_ended_before_the_signature_leaves_nothing(store: ArtifactStore) -> None:
    with pytest.raises(KeyboardInterrupt):
        store.write("churn_1", Ended(dict.fromkeys(NAMES, b"x")))
    assert store.sizes("churn_1") == {}


def test_without_its_signature_nothing_on_s3_is_a_model(store: ArtifactStore, root: str) -> None:
    files = S3FileSystem()
    write_artifact(store, "churn_1", FILES, FACTS, KEY)
    files.rm(f"{root}/churn_1/manifest.sig")
    with pytest.raises(IntegrityError, match=r"manifest\.sig is missing"):
        load_artifact(f"{root}/churn_1", KEY)
    assert [(one.name, one.whole) for one in store.folders()] == [("churn_1", False)]
    with pytest.raises(FileExistsError, match="never change"):
        write_artifact(store, "churn_1", FILES, FACTS, KEY)


def test_of_many_who_write_one_folder_at_once_at_most_one_does_and_the_folder_is_his(
    root: str,
) -> None:
    start = threading.Barrier(4)

    def write(number: int) -> int | None:
        start.wait()
        files = {**FILES, "model.ubj": f"trees of {number}".encode()}
        try:
            write_artifact(open_store(root), "churn_1", files, FACTS, KEY)
        except FileExistsError:
            return None
        return number

    with ThreadPoolExecutor(4) as pool:
        done = [number for number in pool.map(write, range(4)) if number is not None]
    assert len(done) == 1
    found = load_artifact(f"{root}/churn_1", KEY)
    assert found.files["model.ubj"] == f"trees of {done[0]}".encode()


def test_a_writer_who_comes_second_spoils_nothing_of_the_first(root: str) -> None:
    class Late(FsspecStore):
        """Looked before the first one wrote."""

        def exists(self, folder: str) -> bool:
            return False

    first, second = open_store(root), Late(root)

    class Meanwhile(dict[str, bytes]):
        """The second writer comes when the first has written a file."""

        def __iter__(self) -> Iterator[str]:
            yield "model.ubj"
            with pytest.raises(FileExistsError):
                second.write("churn_1", {"other.ubj": b"other", "model.ubj": b"other"})
            yield "manifest.sig"

    files = {"model.ubj": b"trees", "manifest.sig": b"signed"}
    first.write("churn_1", Meanwhile(files))
    assert first.read("churn_1", first.sizes("churn_1")) == files


def test_no_bucket_is_ever_asked_to_be_made(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: object, **options: object) -> None:
        raise AssertionError("this makes a bucket, be its name mistyped")

    monkeypatch.setattr(S3FileSystem, "makedirs", refuse)
    write_artifact(store, "churn_1", FILES, FACTS, KEY)


def test_a_bucket_that_is_not_there_is_named_and_not_made(root: str) -> None:
    store = open_store("s3://misspelt-bucket/models")
    asked = (
        lambda: store.exists("churn_1"),
        lambda: write_artifact(store, "churn_1", FILES, FACTS, KEY),
        lambda: load_artifact("s3://misspelt-bucket/models/churn_1", KEY),
        store.folders,
    )
    for ask in asked:
        with pytest.raises(ArtifactStoreError, match=r"no bucket misspelt-bucket for .* make it"):
            ask()
    assert [bucket.strip("/") for bucket in S3FileSystem().ls("")] == [BUCKET]


@pytest.mark.parametrize(
    "wrong",
    [{"AWS_SECRET_ACCESS_KEY": "wrong-secret-of-tests"}, {"AWS_ACCESS_KEY_ID": "AKIASTRANGER"}],
)
def test_wrong_credentials_are_a_sentence_that_does_not_show_them(
    server: S3Server, root: str, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, str]
) -> None:
    server.use(monkeypatch, **wrong)
    store = open_store(root)
    asked = (
        lambda: write_artifact(store, "churn_1", FILES, FACTS, KEY),
        lambda: load_artifact(f"{root}/churn_1", KEY),
    )
    for ask in asked:
        with pytest.raises(ArtifactStoreError, match=r"refused the credentials.*AWS_") as raised:
            ask()
        assert not any(value in str(raised.value) for value in wrong.values())


def test_without_credentials_the_way_out_is_told(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    S3FileSystem.clear_instance_cache()
    with pytest.raises(ArtifactStoreError, match=r"NoCredentialsError.*has credentials for it"):
        load_artifact(f"{root}/churn_1", KEY)


def test_a_server_that_is_away_is_a_sentence(
    server: S3Server, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.use(monkeypatch, AWS_ENDPOINT_URL_S3="http://127.0.0.1:1", AWS_MAX_ATTEMPTS="1")
    with pytest.raises(ArtifactStoreError, match=r"EndpointConnectionError.*the store is up"):
        load_artifact(f"{root}/churn_1", KEY)


def test_a_registry_on_s3_promotes_rolls_back_and_says_when_it_can_not(
    postgres_url: str,
    registry: Registry,
    trained: TrainedModel,
    examined: Examination,
    root: str,
    server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on_s3 = Registry(postgres_url, root, SigningKey(KEY.decode()))
    first, second = (on_s3.store(trained, examined, None) for _ in range(2))
    assert first.artifact_uri == f"{root}/{first.model_id}"
    for record in (first, second):
        on_s3.promote(record.model_id, by="anna", force=True, reason="for this very test")
    assert on_s3.rollback("toy", by="anna").model_id == first.model_id
    server.use(monkeypatch, AWS_SECRET_ACCESS_KEY="wrong-secret-of-tests")
    with pytest.raises(RegistryError, match=r"refused the credentials.*no alias was changed"):
        on_s3.rollback("toy", by="anna")
    with pytest.raises(ArtifactStoreError, match="refused the credentials"):
        on_s3.store(trained, examined, None)
    assert len(on_s3.models()) == 2
