from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import psycopg
import pytest

from leadml_pipelines.learning.artifacts import IntegrityError, read_artifact, write_artifact
from leadml_pipelines.learning.model import load_model
from leadml_pipelines.learning.registry import Registry, RegistryError
from leadml_pipelines.learning.train import TrainedModel, train
from leadml_pipelines.learning.training_set import assemble
from leadml_pipelines.postgres import connect
from leadml_pipelines_tests.learning.frames import (
    DAY,
    FEATURES,
    figures,
    heuristic,
    rows_frame,
    spec_for,
    toy_set,
)


@pytest.fixture(scope="module")
def trained() -> TrainedModel:
    spec = spec_for(rounds=10)
    return train(spec, toy_set(spec), seed=7, threads=1)


@pytest.fixture
def registry(postgres_url: str, tmp_path: Path) -> Registry:
    with connect(postgres_url) as connection:
        connection.execute(
            "TRUNCATE leadml.models, leadml.model_aliases, leadml.model_alias_changes"
        )
    return Registry(postgres_url, tmp_path / "artifacts")


def test_a_registered_model_is_found_as_it_was(registry: Registry, trained: TrainedModel) -> None:
    record = registry.register(trained)
    assert record.model_id == f"toy_{trained.trained_at:%Y%m%d_%H%M%S}"
    assert record.metrics == figures(trained)
    assert record.baseline == heuristic(trained)
    assert record.trained_at == trained.trained_at
    assert record.horizon == trained.spec.horizon
    assert record.features == trained.load().features
    assert (record.status, record.passed_gate) == ("candidate", True)
    assert registry.newest("toy") == registry.get(record.model_id) == record


def test_a_loaded_model_answers_like_the_trained_one(
    registry: Registry, trained: TrainedModel
) -> None:
    record = registry.register(trained)
    model = registry.load(record.model_id)
    values = model.encoder.encode(trained.test)
    assert model.model_id == record.model_id
    np.testing.assert_array_equal(
        model.predict(values).values, trained.load().predict(values).values
    )


def test_two_models_of_one_second_get_two_ids(registry: Registry, trained: TrainedModel) -> None:
    first, second = registry.register(trained), registry.register(trained)
    assert second.model_id == f"{first.model_id}_2"
    assert registry.models("toy") == [second, first]


def test_models_registered_at_once_get_different_ids(
    registry: Registry, trained: TrainedModel
) -> None:
    threads = [threading.Thread(target=registry.register, args=(trained,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({record.model_id for record in registry.models()}) == 4


def test_nothing_is_champion_before_a_promotion(registry: Registry, trained: TrainedModel) -> None:
    registry.register(trained)
    assert registry.champion("toy") is None


def test_promotion_makes_the_champion_and_keeps_the_one_before(
    registry: Registry, trained: TrainedModel
) -> None:
    ids = [registry.register(trained).model_id for _ in range(3)]
    for model_id in ids:
        registry.promote(model_id, by="anna")
    assert [registry.get(model_id).status for model_id in ids] == [
        "retired",
        "previous",
        "champion",
    ]
    champion, previous = registry.champion("toy"), registry.alias("toy", "previous")
    assert champion is not None
    assert previous is not None
    assert (champion.model_id, previous.model_id) == (ids[2], ids[1])
    assert champion.promoted_by == "anna"
    assert champion.promoted_at is not None


def test_promoting_the_champion_again_changes_nothing(
    registry: Registry, trained: TrainedModel
) -> None:
    first, second = (registry.register(trained).model_id for _ in range(2))
    registry.promote(first, by="anna")
    before = registry.promote(second, by="anna")
    assert registry.promote(second, by="ben") == before
    previous = registry.alias("toy", "previous")
    assert previous is not None
    assert previous.model_id == first


def test_rollback_swaps_champion_and_previous(registry: Registry, trained: TrainedModel) -> None:
    first, second = (registry.register(trained).model_id for _ in range(2))
    registry.promote(first, by="anna")
    registry.promote(second, by="anna")
    assert registry.rollback("toy", by="ben").model_id == first
    previous = registry.alias("toy", "previous")
    assert previous is not None
    assert previous.model_id == second
    assert [registry.get(i).status for i in (first, second)] == ["champion", "previous"]


def test_rollback_without_a_previous_champion_is_refused(
    registry: Registry, trained: TrainedModel
) -> None:
    registry.promote(registry.register(trained).model_id, by="anna")
    with pytest.raises(RegistryError, match="no previous champion"):
        registry.rollback("toy", by="anna")


def test_every_change_of_an_alias_is_recorded(
    registry: Registry, trained: TrainedModel, postgres_url: str
) -> None:
    first, second = (registry.register(trained).model_id for _ in range(2))
    registry.promote(first, by="anna")
    registry.promote(second, by="ben")
    with connect(postgres_url) as connection:
        rows = connection.execute(
            "SELECT alias, model_id, changed_by FROM leadml.model_alias_changes ORDER BY id"
        ).fetchall()
    assert rows == [
        ("champion", first, "anna"),
        ("champion", second, "ben"),
        ("previous", first, "ben"),
    ]


def test_a_candidate_under_its_floor_is_rejected_and_can_not_be_promoted(
    registry: Registry, trained: TrainedModel
) -> None:
    record = registry.register(replace(trained, spec=replace(trained.spec, floor=0.999)))
    assert record.status == "rejected"
    assert "worse than the floor" in record.gate_reasons[0]
    with pytest.raises(RegistryError, match="rejected and can't be promoted"):
        registry.promote(record.model_id, by="anna")
    assert registry.champion("toy") is None


def test_a_candidate_clearly_worse_than_the_champion_on_the_same_rows_is_rejected(
    registry: Registry, trained: TrainedModel
) -> None:
    registry.promote(registry.register(trained).model_id, by="anna")
    blind = spec_for(exclude=("source", "inbound_count_30d"))
    record = registry.register(train(blind, toy_set(blind), seed=7, threads=1))
    assert record.status == "rejected"
    assert "the champion" in record.gate_reasons[0]


def test_a_champion_that_can_not_be_measured_does_not_keep_its_successors_out(
    registry: Registry, trained: TrainedModel
) -> None:
    registry.promote(registry.register(trained).model_id, by="anna")
    frame = rows_frame().drop(columns="noise")
    without = [column for column in FEATURES if column.name != "noise"]
    span = {"data_start": frame["created_at"].min(), "data_end": frame["as_of"].max() + 30 * DAY}
    rows = assemble(spec_for(), frame, without, **span)
    record = registry.register(train(spec_for(), rows, seed=7, threads=1))
    assert record.passed_gate
    assert "not compared with the champion" in record.gate_reasons[-1]


@pytest.mark.parametrize("name", ["model.ubj", "manifest.json"])
def test_a_changed_file_is_named_and_neither_loaded_nor_promoted(
    registry: Registry, trained: TrainedModel, tmp_path: Path, name: str
) -> None:
    record = registry.register(trained)
    path = tmp_path / "artifacts" / record.model_id / name
    path.write_bytes(path.read_bytes().replace(b"toy", b"tox", 1) + b" ")
    with pytest.raises(IntegrityError, match=name):
        registry.load(record.model_id)
    with pytest.raises(IntegrityError, match=name):
        registry.promote(record.model_id, by="anna")


def test_a_missing_file_is_named(registry: Registry, trained: TrainedModel, tmp_path: Path) -> None:
    record = registry.register(trained)
    (tmp_path / "artifacts" / record.model_id / "model.ubj").unlink()
    with pytest.raises(IntegrityError, match=r"model\.ubj is missing"):
        record.load()


def test_a_pointer_is_enough_to_load_the_model(registry: Registry, trained: TrainedModel) -> None:
    pointer = registry.register(trained).pointer()
    model = load_model(pointer["artifact_uri"], pointer["sha256"])
    assert list(model.features) == pointer["features"]
    assert pointer["signature"]["output"] == "probability"


def test_a_pointer_without_hashes_loads_nothing(registry: Registry, trained: TrainedModel) -> None:
    record = registry.register(trained)
    with pytest.raises(IntegrityError, match=r"model\.ubj"):
        load_model(record.artifact_uri, {})


def test_when_the_row_can_not_be_written_no_files_stay(
    registry: Registry, trained: TrainedModel, tmp_path: Path
) -> None:
    broken = replace(trained, seconds="soon")  # type: ignore[arg-type]
    with pytest.raises(psycopg.Error):
        registry.register(broken)
    assert list((tmp_path / "artifacts").iterdir()) == []
    assert registry.models() == []


def test_files_are_never_overwritten(tmp_path: Path) -> None:
    write_artifact(tmp_path, "m", {"a": b"1"})
    with pytest.raises(FileExistsError, match="never change"):
        write_artifact(tmp_path, "m", {"a": b"2"})
    assert (tmp_path / "m" / "a").read_bytes() == b"1"


def test_a_name_that_leaves_the_folder_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"1")
    write_artifact(tmp_path, "m", {"a": b"1"})
    with pytest.raises(IntegrityError, match="missing"):
        read_artifact(str(tmp_path / "m"), {"../secret": "0"})


def test_an_address_that_is_no_local_folder_is_refused() -> None:
    with pytest.raises(ValueError, match="s3://bucket/m is not a local folder"):
        read_artifact("s3://bucket/m", {"a": "0"})


def test_a_model_nobody_registered_is_named(registry: Registry) -> None:
    with pytest.raises(RegistryError, match="toy_19700101"):
        registry.get("toy_19700101_000000")
    with pytest.raises(RegistryError, match="materialize toy_model"):
        registry.newest("toy")
