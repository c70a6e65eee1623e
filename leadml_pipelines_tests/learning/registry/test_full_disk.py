"""A disk that is full, and a folder that may not be written: nothing half, and the way out."""

from __future__ import annotations

import multiprocessing
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.queues import Queue
from pathlib import Path

import pytest

from leadml_pipelines.learning.evaluation.examination import Examination
from leadml_pipelines.learning.registry.artifact_stores import open_store
from leadml_pipelines.learning.registry.artifacts import write_artifact
from leadml_pipelines.learning.registry.registry import Registry
from leadml_pipelines.learning.registry.retention import Retention
from leadml_pipelines.learning.registry.signing import SigningKey
from leadml_pipelines.learning.registry.store_contract import ArtifactStoreError
from leadml_pipelines.learning.training.train import TrainedModel
from leadml_pipelines_tests.learning.registry.conftest import KEY, Stored

LIMIT = 64 * 1024


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one MiB; skipped where nobody may mount one."""
    mount, place = shutil.which("mount"), tmp_path / "disk"
    place.mkdir()
    if mount is None:
        pytest.skip("there is no mount here")
    done = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run([shutil.which("umount") or "umount", str(place)], check=True)


def test_on_a_full_disk_nothing_is_registered_and_the_champion_still_answers(
    small_disk: Path,
    postgres_url: str,
    registry: Registry,
    trained: TrainedModel,
    examined: Examination,
) -> None:
    on_disk = Registry(postgres_url, small_disk / "artifacts", SigningKey(KEY))
    champion = on_disk.store(trained, examined, None)
    on_disk.promote(champion.model_id, by="anna", force=True, reason="for this very test")
    (small_disk / "ballast").write_bytes(bytes(shutil.disk_usage(small_disk).free - 8192))
    with pytest.raises(ArtifactStoreError) as raised:
        on_disk.store(trained, examined, champion.model_id)
    said = str(raised.value)
    assert str(small_disk / "artifacts") in said
    assert "No space left on device" in said
    assert "leadml models prune" in said
    assert [record.model_id for record in on_disk.models()] == [champion.model_id]
    assert [one.name for one in (small_disk / "artifacts").iterdir()] == [champion.model_id]
    assert on_disk.load(champion.model_id).model_id == champion.model_id
    (small_disk / "ballast").unlink()
    assert on_disk.store(trained, examined, champion.model_id).model_id != champion.model_id


def test_pruning_makes_room_on_a_full_disk(
    small_disk: Path,
    postgres_url: str,
    registry: Registry,
    trained: TrainedModel,
    examined: Examination,
) -> None:
    on_disk = Registry(postgres_url, small_disk / "artifacts", SigningKey(KEY))
    old, new = (on_disk.store(trained, examined, None) for _ in range(2))
    _fill(small_disk / "ballast")
    later = old.trained_at.replace(year=old.trained_at.year + 1)
    found = on_disk.prune(Retention(days=1, newest=1), now=later)
    assert [one.name for one in found.deleted] == [old.model_id]
    assert on_disk.store(trained, examined, None).model_id
    assert on_disk.load(new.model_id).model_id == new.model_id


def _fill(path: Path) -> None:
    """Take all room of a disk, to the last page."""
    with suppress(OSError), open(path, "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    assert shutil.disk_usage(path.parent).free == 0


def _write_within_limit(root: Path, told: Queue[str]) -> None:
    """In a process of its own, whose files may have 64 KiB."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, LIMIT))
    try:
        write_artifact(open_store(root), "churn_1", {"a": bytes(2 * LIMIT)}, {}, KEY.encode())
    except ArtifactStoreError as error:
        told.put(str(error))
    else:
        told.put("written")


def test_a_file_that_the_system_forbids_leaves_nothing_and_is_a_sentence(tmp_path: Path) -> None:
    processes = multiprocessing.get_context("spawn")
    told: Queue[str] = processes.Queue()
    writer = processes.Process(target=_write_within_limit, args=(tmp_path / "models", told))
    writer.start()
    said = told.get(timeout=120)
    writer.join()
    told.close()
    told.join_thread()
    assert f"{tmp_path / 'models'} has no room for the files of churn_1 (File too large)" in said
    assert "leadml models prune" in said
    assert list((tmp_path / "models").iterdir()) == []


def test_a_place_that_can_not_be_written_is_named(
    registry: Registry, stored: Stored, tmp_path: Path
) -> None:
    (tmp_path / "artifacts").write_text("a file is in the way")
    with pytest.raises(ArtifactStoreError, match=r"artifacts .*LEADML_ARTIFACTS_URL"):
        stored()
    assert registry.models() == []
