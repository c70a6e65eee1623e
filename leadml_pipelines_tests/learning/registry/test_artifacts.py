"""Models' files on a local disk and on an object store: whole or not at all, and never changed."""

from __future__ import annotations

import json
import os
import pickle
import resource
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leadml_pipelines.learning.model import load_model
from leadml_pipelines.learning.registry import artifacts
from leadml_pipelines.learning.registry.artifact_stores import open_store
from leadml_pipelines.learning.registry.artifacts import (
    IntegrityError,
    OversizedError,
    load_artifact,
    resign_artifact,
    write_artifact,
)
from leadml_pipelines.learning.registry.fsspec_store import FsspecStore
from leadml_pipelines.learning.registry.local_store import LocalStore
from leadml_pipelines.learning.registry.signing import sign
from leadml_pipelines.learning.registry.store_contract import ArtifactStore, ArtifactStoreError

KEY = b"the signing key of the tests"
FILES = {"model.ubj": b"trees", "rest.joblib": b"the rest", "card.md": "# Karte ä\n".encode()}
FACTS = {"name": "churn", "words": ["ä", "b"]}


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ArtifactStore]:
    if request.param == "local":
        yield open_store(tmp_path / "a folder")
        return
    root = f"memory://{secrets.token_hex(4)}/models"
    yield open_store(root)
    if MemoryFileSystem().exists(root):
        MemoryFileSystem().rm(root, recursive=True)


def put(store: ArtifactStore, name: str, content: bytes) -> None:
    """Change a file behind the store's back."""
    store.replace("churn_1", name, content)


def content_of(store: ArtifactStore, name: str) -> bytes:
    """A file of the folder, unverified."""
    return store.read("churn_1", {name: store.sizes("churn_1")[name]})[name]


def signed_manifest(store: ArtifactStore, change: Any) -> str:
    """A folder whose manifest was changed by somebody who has the key; its address."""
    written = write_artifact(store, "churn_1", FILES, FACTS, KEY)
    manifest = json.loads(content_of(store, "manifest.json"))
    change(manifest)
    document = json.dumps(manifest).encode()
    put(store, "manifest.json", document)
    put(store, "manifest.sig", sign(KEY, document).encode())
    return written.uri


def test_what_was_written_is_read(store: ArtifactStore) -> None:
    written = write_artifact(store, "churn_1", FILES, FACTS, KEY)
    manifest, files = load_artifact(written.uri, KEY, written.manifest_sha256)
    assert (manifest, files) == (FACTS, FILES)
    assert set(written.sha256) == {*FILES, "manifest.json"}
    assert store.exists("churn_1")


def test_files_are_never_overwritten(store: ArtifactStore) -> None:
    written = write_artifact(store, "churn_1", FILES, FACTS, KEY)
    with pytest.raises(FileExistsError, match="never change"):
        write_artifact(store, "churn_1", {"model.ubj": b"other"}, FACTS, KEY)
    assert load_artifact(written.uri, KEY).files == FILES


def test_nothing_but_white_space_may_follow_a_signature(store: ArtifactStore) -> None:
    written = write_artifact(store, "churn_1", FILES, FACTS, KEY)
    signature = content_of(store, "manifest.sig")
    put(store, "manifest.sig", signature + b"\n")
    assert load_artifact(written.uri, KEY).files == FILES
    put(store, "manifest.sig", signature + b"\x1c")
    with pytest.raises(IntegrityError, match="not signed with this signing key"):
        load_artifact(written.uri, KEY)


@given(data=st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_changed_byte_of_any_file_is_refused(store: ArtifactStore, data: st.DataObject) -> None:
    store.delete("churn_1")
    written = write_artifact(store, "churn_1", FILES, FACTS, KEY)
    name = data.draw(st.sampled_from([*FILES, "manifest.json", "manifest.sig"]))
    content = bytearray(content_of(store, name))
    kind = data.draw(st.sampled_from(["flip", "cut", "add"]))
    if kind == "flip":
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] ^= data.draw(st.integers(1, 255))
    elif kind == "cut":
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        content += data.draw(st.binary(min_size=1, max_size=4).filter(bytes.strip))
    put(store, name, bytes(content))
    with pytest.raises(IntegrityError):
        load_artifact(written.uri, KEY)


@pytest.mark.parametrize("name", [*FILES, "manifest.json", "manifest.sig"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    written = write_artifact(LocalStore(tmp_path), "churn_1", FILES, FACTS, KEY)
    (tmp_path / "churn_1" / name).unlink()
    with pytest.raises(IntegrityError, match=f"{name} is missing"):
        load_artifact(written.uri, KEY)


def test_a_missing_object_is_named(tmp_path: Path) -> None:
    store = FsspecStore("memory://missing/models")
    written = write_artifact(store, "churn_1", FILES, FACTS, KEY)
    MemoryFileSystem().rm("/missing/models/churn_1/rest.joblib")
    with pytest.raises(IntegrityError, match=r"rest\.joblib is missing"):
        load_artifact(written.uri, KEY)
    MemoryFileSystem().rm("/missing", recursive=True)


def test_a_file_that_nobody_registered_is_refused(store: ArtifactStore) -> None:
    written = write_artifact(store, "churn_1", FILES, FACTS, KEY)
    put(store, "extra.joblib", b"x")
    with pytest.raises(IntegrityError, match=r"extra\.joblib is not listed"):
        load_artifact(written.uri, KEY)


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "..", "a/b", "", ".hidden", "a\0b"])
def test_a_name_that_leaves_the_folder_is_refused_though_it_was_signed(
    store: ArtifactStore, name: str
) -> None:
    uri = signed_manifest(store, lambda manifest: manifest["files"].update({name: "0" * 64}))
    with pytest.raises(IntegrityError, match="no file of its folder"):
        load_artifact(uri, KEY)
    store.delete("churn_1")


def test_a_name_that_is_no_plain_file_is_not_written(tmp_path: Path) -> None:
    for name in ("../x", "manifest.json", "manifest.sig"):
        with pytest.raises(ValueError, match="can't be the name"):
            write_artifact(LocalStore(tmp_path), "churn_1", {name: b""}, FACTS, KEY)
    assert not list(tmp_path.iterdir())


def test_without_a_key_nothing_is_loaded(store: ArtifactStore) -> None:
    written = write_artifact(store, "churn_1", FILES, FACTS, KEY)
    for none in (None, b""):
        with pytest.raises(IntegrityError, match="set LEADML_SIGNING_KEY"):
            load_artifact(written.uri, none, written.manifest_sha256)


def test_another_key_loads_nothing(store: ArtifactStore) -> None:
    written = write_artifact(store, "churn_1", FILES, FACTS, KEY)
    with pytest.raises(IntegrityError, match="not signed with this signing key") as raised:
        load_artifact(written.uri, b"another key of the tests", written.manifest_sha256)
    assert "another key" not in str(raised.value).replace("with another key", "")


def test_another_signed_model_in_its_place_is_refused(store: ArtifactStore) -> None:
    wanted = write_artifact(store, "churn_2", {**FILES, "model.ubj": b"new"}, FACTS, KEY)
    other = write_artifact(store, "churn_1", FILES, FACTS, KEY)
    with pytest.raises(IntegrityError, match=r"manifest\.json has SHA-256"):
        load_artifact(other.uri, KEY, wanted.manifest_sha256)


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_was_put_in_place_of_the_rest_leaves_no_trace(
    store: ArtifactStore, tmp_path: Path
) -> None:
    written = write_artifact(store, "churn_1", FILES, FACTS, KEY)
    bomb = pickle.dumps(Bomb(tmp_path / "exploded"))
    put(store, "rest.joblib", bomb)
    with pytest.raises(IntegrityError, match=r"rest\.joblib has SHA-256"):
        load_model(written.uri, KEY, written.manifest_sha256)
    assert not (tmp_path / "exploded").exists()
    pickle.loads(bomb)  # noqa: S301 - the bomb is a bomb
    assert (tmp_path / "exploded").exists()


def test_an_interrupted_writer_leaves_no_folder(store: ArtifactStore) -> None:
    class Interrupting(dict[str, bytes]):
        def __iter__(self) -> Iterator[str]:
            yield "model.ubj"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.write("churn_1", Interrupting({"model.ubj": b"trees"}))
    assert not store.exists("churn_1")
    write_artifact(store, "churn_1", FILES, FACTS, KEY)


def test_what_an_ended_writer_left_on_an_object_store_is_no_model_and_is_not_written_over() -> None:
    store = FsspecStore("memory://half/models")
    MemoryFileSystem().pipe_file("/half/models/churn_1/model.ubj", b"x")
    with pytest.raises(IntegrityError, match=r"manifest\.json is missing"):
        load_artifact("memory://half/models/churn_1", KEY)
    with pytest.raises(FileExistsError):
        write_artifact(store, "churn_1", FILES, FACTS, KEY)
    assert content_of(store, "model.ubj") == b"x"
    assert [folder[:3] for folder in store.folders()] == [("churn_1", 1, False)]
    MemoryFileSystem().rm("/half", recursive=True)


def test_a_huge_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    written = write_artifact(LocalStore(tmp_path), "churn_1", FILES, FACTS, KEY)
    for name, most in (("model.ubj", "512.0 MiB"), ("manifest.json", "16.0 MiB")):
        content = (tmp_path / "churn_1" / name).read_bytes()
        os.truncate(tmp_path / "churn_1" / name, 10 * 2**30)  # ten GiB that take no room
        taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(IntegrityError, match=rf"{name}.* take 10,240\.0 MiB, .* than {most}"):
            load_artifact(written.uri, KEY, written.manifest_sha256)
        # In KiB; what the refusal took in memory is nothing beside the file.
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - taken < 2**16
        (tmp_path / "churn_1" / name).write_bytes(content)
    assert load_artifact(written.uri, KEY).files == FILES


def test_many_files_that_are_huge_together_are_refused(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = write_artifact(store, "churn_1", FILES, FACTS, KEY)
    size = sum(map(len, FILES.values()))
    monkeypatch.setattr(artifacts, "MOST_BYTES", size)
    assert load_artifact(written.uri, KEY).files == FILES
    monkeypatch.setattr(artifacts, "MOST_BYTES", size - 1)
    with pytest.raises(IntegrityError, match="no such model was registered"):
        load_artifact(written.uri, KEY)


def test_of_a_file_that_grows_while_it_is_read_no_more_is_read(store: ArtifactStore) -> None:
    write_artifact(store, "churn_1", FILES, FACTS, KEY)
    sizes = store.sizes("churn_1")
    put(store, "model.ubj", b"trees and many more bytes")
    assert store.read("churn_1", {"model.ubj": sizes["model.ubj"]}) == {"model.ubj": b"trees"}


def test_an_empty_file_is_a_file(store: ArtifactStore) -> None:
    written = write_artifact(store, "churn_1", {"empty": b"", "model.ubj": b"trees"}, FACTS, KEY)
    assert load_artifact(written.uri, KEY).files == {"empty": b"", "model.ubj": b"trees"}


def test_a_pipe_in_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    written = write_artifact(LocalStore(tmp_path), "churn_1", FILES, FACTS, KEY)
    (tmp_path / "churn_1" / "model.ubj").unlink()
    os.mkfifo(tmp_path / "churn_1" / "model.ubj")
    with pytest.raises(IntegrityError, match=r"model\.ubj is missing"):
        load_artifact(written.uri, KEY)


@pytest.mark.parametrize(
    ("limit", "files"),
    [("MOST_BYTES", {"model.ubj": bytes(4096)}), ("MOST_MANIFEST_BYTES", {"model.ubj": b""})],
)
def test_what_nobody_could_load_is_not_written(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch, limit: str, files: dict[str, bytes]
) -> None:
    monkeypatch.setattr(artifacts, limit, 64)
    with pytest.raises(OversizedError, match="train with fewer or smaller trees"):
        write_artifact(store, "churn_1", files, FACTS, KEY)
    assert not store.exists("churn_1")


def test_a_deleted_folder_is_gone_and_deleting_it_again_is_nothing(store: ArtifactStore) -> None:
    write_artifact(store, "churn_1", FILES, FACTS, KEY)
    write_artifact(store, "churn_2", FILES, FACTS, KEY)
    (first, second) = store.folders()
    assert first.size == sum(store.sizes("churn_1").values())
    assert (first.whole, second.name) == (True, "churn_2")
    for _ in range(2):
        store.delete("churn_1")
        assert [folder.name for folder in store.folders()] == ["churn_2"]
    assert store.sizes("churn_1") == {}


def test_what_was_signed_with_the_newer_key_before_is_left(store: ArtifactStore) -> None:
    written = write_artifact(store, "churn_1", FILES, FACTS, KEY)
    new = b"the newer key of the tests"
    assert resign_artifact(written.uri, KEY, new)
    assert not resign_artifact(written.uri, KEY, new)
    assert load_artifact(written.uri, new).files == FILES


def test_signing_again_changes_the_signature_alone(store: ArtifactStore) -> None:
    written = write_artifact(store, "churn_1", FILES, FACTS, KEY)
    new = b"the newer key of the tests"
    resign_artifact(written.uri, KEY, new, written.manifest_sha256)
    assert load_artifact(written.uri, new, written.manifest_sha256).files == FILES
    with pytest.raises(IntegrityError):
        load_artifact(written.uri, KEY, written.manifest_sha256)


def test_what_was_changed_is_not_signed_again(store: ArtifactStore) -> None:
    written = write_artifact(store, "churn_1", FILES, FACTS, KEY)
    put(store, "model.ubj", b"changed")
    with pytest.raises(IntegrityError, match=r"model\.ubj"):
        resign_artifact(written.uri, KEY, b"the newer key of the tests")


@pytest.mark.parametrize("url", ["s3://key:secret@bucket/models", "ftp://me@host/models"])
def test_an_address_with_credentials_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ArtifactStoreError, match="LEADML_ARTIFACTS_URL") as raised:
        open_store(url)
    assert "secret" not in str(raised.value)


def test_an_address_that_nobody_can_open_names_the_way_out() -> None:
    with pytest.raises(ArtifactStoreError, match=r"nosuch://.*mend LEADML_ARTIFACTS_URL"):
        open_store("nosuch://bucket/models")


def test_without_the_package_for_s3_the_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['s3fs'] = None\n"
        "from leadml_pipelines.learning.registry.artifact_stores import open_store\n"
        "try: open_store('s3://bucket/models')\n"
        "except OSError as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("ArtifactStoreError s3://bucket/models can't be opened")
    assert 'pip install "leadml[s3]"' in done.stdout


def test_a_path_and_its_address_are_one_store(tmp_path: Path) -> None:
    folder = tmp_path / "with space"
    written = write_artifact(open_store(str(folder)), "churn_1", FILES, FACTS, KEY)
    assert written.uri == (folder / "churn_1").as_uri()
    assert open_store(folder.as_uri()).exists("churn_1")
    assert load_artifact(written.uri, KEY).files == FILES
