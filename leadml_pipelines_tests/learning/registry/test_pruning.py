"""Which models' files are deleted, which never, and what others see meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from leadml_pipelines.learning.model import LoadedModel
from leadml_pipelines.learning.registry import registry as registry_module
from leadml_pipelines.learning.registry.artifacts import IntegrityError
from leadml_pipelines.learning.registry.local_store import LocalStore
from leadml_pipelines.learning.registry.model_documents import detail
from leadml_pipelines.learning.registry.promotion_rules import PrunedError
from leadml_pipelines.learning.registry.registry import ModelRecord, Registry, RegistryError
from leadml_pipelines.learning.registry.retention import Retention
from leadml_pipelines.postgres import connect
from leadml_pipelines.times import utc_now
from leadml_pipelines_tests.learning.registry.conftest import Stored

DAY = timedelta(days=1)
ALL_OLD = Retention(days=1, newest=1)
LATER = utc_now() + 400 * DAY
"""A day on which every model of the tests is old, and answered long ago."""


@pytest.fixture(autouse=True)
def _no_predictions(postgres_url: str) -> None:
    with connect(postgres_url) as connection:
        connection.execute("TRUNCATE leadml.predictions")


def folders(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "artifacts").iterdir()}


def deleted(registry: Registry, retention: Retention = ALL_OLD, now: datetime = LATER) -> list[str]:
    return [one.name for one in registry.prune(retention, now=now).deleted]


def predict(postgres_url: str, record: ModelRecord, at: datetime) -> None:
    """Log a prediction of a model."""
    with connect(postgres_url) as connection:
        connection.execute(
            "INSERT INTO leadml.predictions (prediction_id, model_name, model_id, role,"
            " entity_type, entity_id, features_as_of, predicted_at, value, source, stale, degraded)"
            " VALUES ('1', %s, %s, 'champion', 'lead', 'l1', %s, %s, 0.5, 'cache', false, false)",
            (record.name, record.model_id, at, at),
        )


def test_files_of_old_models_are_deleted_and_their_records_say_so(
    registry: Registry, stored: Stored, tmp_path: Path
) -> None:
    old, new = stored(), stored()
    size = sum(path.stat().st_size for path in (tmp_path / "artifacts" / old.model_id).iterdir())
    found = registry.prune(ALL_OLD, now=LATER)
    assert [tuple(vars(one).values()) for one in found.deleted] == [(old.model_id, "model", size)]
    assert (found.freed, found.kept, found.failed) == (size, 1, {})
    assert folders(tmp_path) == {new.model_id}
    record = registry.get(old.model_id)
    assert (record.status, record.freed_bytes, record.pruned_at) == ("pruned", size, LATER)
    assert record.metrics == old.metrics
    assert record.card == old.card
    assert detail(record)["pruned_at"] == LATER.isoformat()
    assert registry.load(new.model_id).model_id == new.model_id
    assert deleted(registry) == []


def test_a_look_deletes_nothing(registry: Registry, stored: Stored, tmp_path: Path) -> None:
    old, new = stored(), stored()
    found = registry.prune(ALL_OLD, now=LATER, dry_run=True)
    assert [one.name for one in found.deleted] == [old.model_id]
    assert found.freed > 0
    assert folders(tmp_path) == {old.model_id, new.model_id}
    assert registry.get(old.model_id).status == "candidate"


def test_what_an_alias_points_to_is_kept_however_old(registry: Registry, stored: Stored) -> None:
    first, second, third, fourth, fifth = (stored().model_id for _ in range(5))
    for model_id in (first, second, third):
        registry.promote(model_id, by="anna")
    registry.challenge(fourth, 0.1, by="anna")
    would_be = registry.prune(ALL_OLD, now=LATER, dry_run=True).deleted
    assert [one.name for one in would_be] == [first] == deleted(registry)
    for model_id in (second, third, fourth, fifth):
        assert registry.load(model_id).model_id == model_id
    assert registry.rollback("toy", by="anna").model_id == second


def test_the_one_that_the_champion_was_held_to_is_kept_however_old(
    registry: Registry, stored: Stored, postgres_url: str
) -> None:
    anchor, first, second, champion = (stored().model_id for _ in range(4))
    for model_id in (anchor, first, second, champion):
        registry.promote(model_id, by="anna")
    with connect(postgres_url) as connection:
        connection.execute(
            "UPDATE leadml.models SET evaluation = jsonb_build_object('held_to',"
            " jsonb_build_object('model_id', %s::text)) WHERE model_id = %s",
            (anchor, champion),
        )
    assert deleted(registry) == [first]
    assert registry.load(anchor).model_id == anchor


def test_the_newest_of_each_name_are_kept(registry: Registry, stored: Stored) -> None:
    ids = [stored().model_id for _ in range(4)]
    assert deleted(registry, Retention(days=1, newest=3)) == ids[:1]
    assert deleted(registry, Retention(days=1, newest=2)) == ids[1:2]


def test_younger_models_are_kept(registry: Registry, stored: Stored) -> None:
    old = stored()
    stored()
    retention = Retention(days=30, newest=1)
    assert deleted(registry, retention, old.trained_at + 30 * DAY) == []
    assert deleted(registry, retention, old.trained_at + 31 * DAY) == [old.model_id]


def test_no_days_keep_all_models(registry: Registry, stored: Stored) -> None:
    for _ in range(3):
        stored()
    assert deleted(registry, Retention(days=0, newest=1)) == []


def test_what_predicted_is_kept_until_the_outcomes_are_known(
    registry: Registry, stored: Stored, postgres_url: str
) -> None:
    old = stored()
    stored()
    predict(postgres_url, old, LATER - old.horizon + timedelta(hours=1))
    assert deleted(registry) == []
    assert deleted(registry, now=LATER + timedelta(hours=2)) == [old.model_id]


def test_what_answered_is_kept_that_long_though_no_prediction_was_logged(
    registry: Registry, stored: Stored
) -> None:
    ids = [stored().model_id for _ in range(4)]
    for model_id in ids:
        registry.promote(model_id, by="anna")
    replaced = registry.changes("toy", ids[1])[0].changed_at
    horizon = registry.get(ids[1]).horizon
    retention = Retention(days=1, newest=1)
    assert deleted(registry, retention, replaced + horizon - timedelta(minutes=1)) == []
    # In any order: they were made within one second.
    gone = deleted(registry, retention, replaced + horizon + timedelta(minutes=1))
    assert sorted(gone) == sorted(ids[:2])


def test_a_challenger_is_kept_that_long_after_its_challenge_ended(
    registry: Registry, stored: Stored
) -> None:
    first, challenger, _ = (stored().model_id for _ in range(3))
    registry.promote(first, by="anna")
    registry.challenge(challenger, 0.1, by="anna")
    begun = registry.changes("toy", challenger)[0].changed_at
    registry.end_challenge("toy", by="anna")
    ended = registry.changes("toy", challenger)[0].changed_at
    horizon = registry.get(challenger).horizon
    assert deleted(registry, now=begun + horizon + (ended - begun) / 2) == []
    assert deleted(registry, now=ended + horizon + timedelta(minutes=1)) == [challenger]


def test_only_models_of_one_name_are_deleted(
    registry: Registry, stored: Stored, postgres_url: str
) -> None:
    old = stored()
    stored()
    assert registry.prune(ALL_OLD, "other", now=LATER).deleted == []
    found = registry.prune(ALL_OLD, "toy", now=LATER)
    assert [one.name for one in found.deleted] == [old.model_id]


@pytest.mark.parametrize(
    "use",
    [
        lambda registry, old: registry.promote(old, by="anna"),
        lambda registry, old: registry.challenge(old, 0.1, by="anna"),
        lambda registry, old: registry.load(old),
        lambda registry, old: registry.files(old),
    ],
)
def test_a_model_whose_files_were_deleted_is_refused_in_a_sentence(
    registry: Registry, stored: Stored, use: Callable[[Registry, str], Any]
) -> None:
    old, new = stored().model_id, stored().model_id
    registry.promote(new, by="anna")
    assert deleted(registry) == [old]
    with pytest.raises(PrunedError, match=rf"{old} were deleted at .* by `leadml models prune`"):
        use(registry, old)
    champion = registry.champion("toy")
    assert champion is not None
    assert champion.model_id == new


def test_a_status_of_a_pruned_model_stays_when_aliases_change(
    registry: Registry, stored: Stored
) -> None:
    old, new, newest = (stored().model_id for _ in range(3))
    assert deleted(registry, Retention(days=1, newest=2)) == [old]
    registry.promote(new, by="anna")
    registry.promote(newest, by="anna")
    assert registry.get(old).status == "pruned"


def test_a_model_that_is_pruned_while_its_promotion_verifies_it_is_not_promoted(
    registry: Registry, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, _ = stored().model_id, stored()
    load = registry._load

    def slowly(record: ModelRecord) -> LoadedModel:
        model = load(record)
        assert deleted(registry) == [old]
        return model

    for use in (registry.promote, lambda one, by: registry.challenge(one, 0.1, by)):
        monkeypatch.setattr(registry, "_load", slowly)
        with pytest.raises(RegistryError):
            use(old, by="anna")
    assert registry.held("toy") == []


def test_a_model_that_is_promoted_while_it_is_looked_at_keeps_its_files(
    registry: Registry, stored: Stored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = stored().model_id, stored().model_id
    sizes = LocalStore.sizes

    def meanwhile(self: LocalStore, folder: str) -> dict[str, int]:
        found = sizes(self, folder)
        if folder == old:
            monkeypatch.undo()
            # Champion, and no longer: it holds no alias that would protect it.
            registry.promote(old, by="anna")
            for model_id in (new, stored().model_id):
                registry.promote(model_id, by="anna")
        return found

    monkeypatch.setattr(LocalStore, "sizes", meanwhile)
    assert deleted(registry) == []
    assert registry.get(old).status == "retired"
    assert old in folders(tmp_path)


def test_promotions_and_deletions_at_once_leave_no_champion_without_files(
    registry: Registry, stored: Stored
) -> None:
    ids = [stored().model_id for _ in range(4)]
    start = threading.Barrier(5)

    def promote(model_id: str) -> None:
        start.wait()
        try:
            registry.promote(model_id, by="anna", force=True, reason="for this very test")
        except (RegistryError, IntegrityError):
            return

    def prune() -> None:
        start.wait()
        registry.prune(ALL_OLD, now=LATER)

    with ThreadPoolExecutor(5) as pool:
        done = [pool.submit(promote, model_id) for model_id in ids] + [pool.submit(prune)]
        for one in done:
            one.result()
    held = registry.held("toy")
    assert held
    for one in held:
        assert registry.load(one.model_id).model_id == one.model_id


def test_a_store_that_is_away_keeps_its_models_and_the_others_go_on(
    registry: Registry, stored: Stored, postgres_url: str
) -> None:
    away, old, _ = (stored().model_id for _ in range(3))
    with connect(postgres_url) as connection:
        connection.execute(
            "UPDATE leadml.models SET artifact_uri = 'ftp://127.0.0.1:1/models/' || model_id"
            " WHERE model_id = %s",
            (away,),
        )
    found = registry.prune(ALL_OLD, now=LATER)
    assert [one.name for one in found.deleted] == [old]
    assert "ftp://127.0.0.1:1/models" in found.failed[away]
    assert registry.get(away).status == "candidate"


def test_a_deletion_that_failed_is_tried_again_the_next_time(
    registry: Registry, stored: Stored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = stored().model_id, stored().model_id

    def refuse(self: LocalStore, folder: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(LocalStore, "delete", refuse)
    found = registry.prune(ALL_OLD, now=LATER)
    assert found.failed == {old: "Permission denied (PermissionError)"}
    assert (found.deleted, found.freed) == ([], 0)
    with pytest.raises(PrunedError):
        registry.promote(old, by="anna")
    monkeypatch.undo()
    assert deleted(registry) == [old]
    assert (registry.get(old).freed_bytes or 0) > 0
    assert folders(tmp_path) == {new}


def leave(tmp_path: Path, folder: str, *names: str) -> None:
    """What a training that died left, or another registry wrote."""
    place = tmp_path / "artifacts" / folder
    place.mkdir(parents=True)
    for name in names:
        (place / name).write_bytes(b"12345")


def test_what_dead_trainings_left_is_deleted_once_it_is_old(
    registry: Registry, stored: Stored, tmp_path: Path
) -> None:
    kept = stored().model_id
    leave(tmp_path, ".toy_20260101_030000.a8_1xkz0", "model.ubj", "manifest.json")
    leave(tmp_path, "toy_20260102_030000_2", "model.ubj")
    assert deleted(registry, now=utc_now()) == []
    found = registry.prune(ALL_OLD, now=LATER)
    assert [tuple(vars(one).values()) for one in found.deleted] == [
        (".toy_20260101_030000.a8_1xkz0", "unfinished", 10),
        ("toy_20260102_030000_2", "unfinished", 5),
    ]
    assert folders(tmp_path) == {kept}


def test_a_whole_folder_that_is_not_registered_here_is_told_and_stays(
    registry: Registry, stored: Stored, tmp_path: Path
) -> None:
    stored()
    leave(tmp_path, "toy_20260101_030000", "model.ubj", "manifest.sig")
    found = registry.prune(ALL_OLD, now=LATER)
    assert [one.name for one in found.unknown] == ["toy_20260101_030000"]
    assert found.deleted == []
    found = registry.prune(ALL_OLD, now=LATER, unknown_too=True)
    assert [(one.name, one.kind) for one in found.deleted] == [("toy_20260101_030000", "unknown")]
    assert "toy_20260101_030000" not in folders(tmp_path)


def test_folders_that_are_no_models_are_left_alone(
    registry: Registry, stored: Stored, tmp_path: Path
) -> None:
    stored()
    for folder in ("notes", "toy_2026", ".git", "toy_20260101_030000 copy"):
        leave(tmp_path, folder, "manifest.sig", "x")
    before = folders(tmp_path)
    found = registry.prune(ALL_OLD, now=LATER, unknown_too=True)
    assert (found.deleted, found.unknown) == ([], [])
    assert folders(tmp_path) == before


def test_a_training_that_registers_while_strays_are_looked_for_keeps_its_files(
    registry: Registry, stored: Stored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, going = threading.Event(), threading.Event()
    insert = registry_module.store_trained.__globals__["insert_record"]

    def slowly(*given: Any) -> None:
        written.set()
        going.wait(60)
        insert(*given)

    monkeypatch.setitem(registry_module.store_trained.__globals__, "insert_record", slowly)
    folders_of = LocalStore.folders

    def seen(self: LocalStore) -> Any:
        found = folders_of(self)
        threading.Timer(0.5, going.set).start()
        return found

    monkeypatch.setattr(LocalStore, "folders", seen)
    with ThreadPoolExecutor(1) as pool:
        registering = pool.submit(stored)
        assert written.wait(60)
        found = registry.prune(ALL_OLD, now=LATER, unknown_too=True)
        record = registering.result()
    assert found.deleted == []
    assert folders(tmp_path) == {record.model_id}


def test_a_store_that_can_not_be_listed_is_told(
    registry: Registry, stored: Stored, postgres_url: str
) -> None:
    old, _ = stored(), stored()
    away = Registry(postgres_url, "ftp://127.0.0.1:1/models")
    found = away.prune(ALL_OLD, now=LATER)
    assert [one.name for one in found.deleted] == [old.model_id]
    assert list(found.failed) == ["ftp://127.0.0.1:1/models"]


@pytest.mark.parametrize(("days", "newest"), [(-1, 1), (1, 0)])
def test_a_retention_that_would_delete_all_is_none(days: int, newest: int) -> None:
    with pytest.raises(ValueError, match="one model or more stays"):
        Retention(days, newest)
