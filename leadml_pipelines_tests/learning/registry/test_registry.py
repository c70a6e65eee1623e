from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import psycopg
import pytest

from leadml_pipelines.learning.evaluation.examination import Examination
from leadml_pipelines.learning.model import LoadedModel, load_model
from leadml_pipelines.learning.registry.artifacts import IntegrityError
from leadml_pipelines.learning.registry.model_records import json_ready
from leadml_pipelines.learning.registry.registry import (
    ModelRecord,
    PromotionRefusedError,
    Registry,
    RegistryError,
)
from leadml_pipelines.learning.registry.signing import SigningKey, SigningKeyError
from leadml_pipelines.learning.training.train import TrainedModel, train
from leadml_pipelines.learning.training_set import assemble
from leadml_pipelines.postgres import connect
from leadml_pipelines_tests.learning.frames import (
    DAY,
    FEATURES,
    rows_frame,
    spec_for,
    toy_set,
)
from leadml_pipelines_tests.learning.registry.conftest import KEY, Stored


def test_a_registered_model_is_found_as_it_was(registry: Registry, trained: TrainedModel) -> None:
    examined, compared_with = registry.examine(trained)
    record = registry.store(trained, examined, compared_with)
    assert record.model_id == f"toy_{trained.trained_at:%Y%m%d_%H%M%S}"
    assert record.metrics == json_ready(examined.metrics)
    assert record.baseline == json_ready(examined.baseline)
    assert record.evaluation == json_ready(examined.evaluation)
    assert record.validation == json_ready(trained.validation)
    assert record.card.encode() == examined.card["card.md"]
    assert record.trained_at == trained.trained_at
    assert record.horizon == trained.spec.horizon
    assert record.features == trained.load().features
    assert (record.status, record.passed_gate) == ("candidate", True)
    assert record.compared_with is None
    assert registry.newest("toy") == registry.get(record.model_id) == record


def test_the_files_hold_all_that_the_registry_knows(
    registry: Registry, stored: Stored, examined: Examination
) -> None:
    record = stored(compared_with="toy_before")
    manifest, files = registry.files(record.model_id)
    assert set(files) == {"model.ubj", "rest.joblib", "evaluation.json", *examined.card}
    assert json.loads(files["evaluation.json"]) == record.evaluation
    for name in ("spec_hash", "training_set_hash", "code_version", "metrics", "compared_with"):
        assert manifest[name] == getattr(record, name)
    assert manifest["package_versions"]["xgboost"]


def test_a_loaded_model_answers_like_the_trained_one(
    registry: Registry, stored: Stored, trained: TrainedModel
) -> None:
    record = stored()
    model = registry.load(record.model_id)
    values = model.encoder.encode(trained.test)
    assert model.model_id == record.model_id
    np.testing.assert_array_equal(
        model.predict(values).values, trained.load().predict(values).values
    )


def test_two_models_of_one_second_get_two_ids(registry: Registry, stored: Stored) -> None:
    first, second = stored(), stored()
    assert second.model_id == f"{first.model_id}_2"
    assert registry.models("toy") == [second, first]


def test_the_newest_model_is_the_one_registered_last_by_a_clock_that_was_put_back_too(
    registry: Registry, trained: TrainedModel, examined: Examination
) -> None:
    ids = []
    for jump in (timedelta(days=1), timedelta(hours=-1), timedelta(0)):
        moved = replace(trained, trained_at=trained.trained_at + jump)
        ids.append(registry.store(moved, examined, None).model_id)
        assert registry.newest("toy").model_id == ids[-1]
    assert [record.model_id for record in registry.models("toy")] == ids[::-1]
    _, overview = registry.overview()
    assert list(overview) == [ids[-1]]


def test_a_second_that_comes_twice_gives_two_ids(
    registry: Registry, trained: TrainedModel, examined: Examination
) -> None:
    """As when a clock was put back by an hour while another model was trained."""
    first, later, again = (
        replace(trained, trained_at=trained.trained_at + timedelta(hours=hours))
        for hours in (0, 1, 0)
    )
    ids = [registry.store(one, examined, None).model_id for one in (first, later, again)]
    assert ids[2] == f"{ids[0]}_2"
    assert registry.newest("toy").model_id == ids[2]


def test_models_registered_at_once_get_different_ids(registry: Registry, stored: Stored) -> None:
    threads = [threading.Thread(target=stored) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({record.model_id for record in registry.models()}) == 4


def test_nothing_is_champion_before_a_promotion(registry: Registry, stored: Stored) -> None:
    stored()
    assert registry.champion("toy") is None


def test_promotion_makes_the_champion_and_keeps_the_one_before(
    registry: Registry, stored: Stored
) -> None:
    ids = [stored().model_id for _ in range(3)]
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


def test_promoting_the_champion_again_changes_nothing(registry: Registry, stored: Stored) -> None:
    first, second = (stored().model_id for _ in range(2))
    registry.promote(first, by="anna")
    before = registry.promote(second, by="anna")
    assert registry.promote(second, by="ben") == before
    previous = registry.alias("toy", "previous")
    assert previous is not None
    assert previous.model_id == first


def test_rollback_swaps_champion_and_previous(registry: Registry, stored: Stored) -> None:
    first, second = (stored().model_id for _ in range(2))
    registry.promote(first, by="anna")
    registry.promote(second, by="anna")
    assert registry.rollback("toy", by="ben").model_id == first
    previous = registry.alias("toy", "previous")
    assert previous is not None
    assert previous.model_id == second
    assert [registry.get(i).status for i in (first, second)] == ["champion", "previous"]


def test_rollback_without_a_previous_champion_is_refused(
    registry: Registry, stored: Stored
) -> None:
    registry.promote(stored().model_id, by="anna")
    with pytest.raises(RegistryError, match="no previous champion"):
        registry.rollback("toy", by="anna")


def test_a_promotion_while_a_rollback_verifies_is_not_kept_waiting_and_ends_the_rollback(
    registry: Registry, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = (stored().model_id for _ in range(3))
    registry.promote(first, by="anna")
    registry.promote(second, by="anna")
    load, pool = registry._load, ThreadPoolExecutor(1)

    def slowly(record: ModelRecord) -> LoadedModel:
        """As a slow store: meanwhile somebody else promotes."""
        monkeypatch.undo()
        pool.submit(registry.promote, third, by="carl").result(timeout=20)
        return load(record)

    monkeypatch.setattr(registry, "_load", slowly)
    with pytest.raises(RegistryError, match=f"not rolled back: .* meanwhile, to {third}"):
        registry.rollback("toy", by="ben")
    pool.shutdown()
    assert [registry.get(i).status for i in (second, third)] == ["previous", "champion"]


def test_with_the_store_away_no_alias_changes_and_that_is_said(
    registry: Registry, stored: Stored, postgres_url: str
) -> None:
    first, second = (stored().model_id for _ in range(2))
    registry.promote(first, by="anna")
    registry.promote(second, by="anna")
    with connect(postgres_url) as connection:
        connection.execute(
            "UPDATE leadml.models SET artifact_uri = 'ftp://127.0.0.1:1/models/' || model_id"
        )
    why = r"can't be verified, .* \(.*ConnectionRefusedError.*\); no alias was changed"
    with pytest.raises(RegistryError, match=f"{first} {why}"):
        registry.rollback("toy", by="ben")
    with pytest.raises(RegistryError, match=why):
        registry.promote(first, by="ben", force=True, reason="for this very test")
    assert registry.get(second).status == "champion"


def test_every_change_of_an_alias_is_recorded_with_its_kind_and_by_whom(
    registry: Registry, stored: Stored
) -> None:
    first, second = (stored().model_id for _ in range(2))
    registry.promote(first, by="anna")
    registry.promote(second, by="ben", reason="better on partners")
    registry.rollback("toy", by="carl", reason="wrong for partners")
    registry.challenge(second, 0.1, by="dora")
    registry.end_challenge("toy", by="emil")
    found = [
        (c.kind, c.alias, c.model_id, c.replaced, c.traffic_share, c.changed_by, c.reason)
        for c in reversed(registry.changes("toy"))
    ]
    assert found == [
        ("promote", "champion", first, None, None, "anna", None),
        ("promote", "champion", second, first, None, "ben", "better on partners"),
        ("promote", "previous", first, None, None, "ben", "better on partners"),
        ("rollback", "champion", first, second, None, "carl", "wrong for partners"),
        ("rollback", "previous", second, first, None, "carl", "wrong for partners"),
        ("challenge", "challenger", second, None, 0.1, "dora", None),
        ("end", "challenger", None, second, None, "emil", None),
    ]
    assert len(registry.changes(model_id=second, limit=100)) == 5


@pytest.mark.parametrize("statement", ["DELETE FROM", "UPDATE"])
def test_the_record_of_changes_can_not_be_rewritten(
    registry: Registry, stored: Stored, postgres_url: str, statement: str
) -> None:
    registry.promote(stored().model_id, by="anna")
    tail = "" if statement == "DELETE FROM" else " SET changed_by = 'nobody'"
    with connect(postgres_url) as connection, pytest.raises(psycopg.Error, match="for ever"):
        connection.execute(f"{statement} leadml.model_alias_changes{tail}".encode())


def test_a_program_does_not_promote_what_was_compared_with_another_champion(
    registry: Registry, stored: Stored
) -> None:
    first = stored()
    registry.promote(first.model_id, by="dagster", automatic=True)
    second, third = (stored(compared_with=first.model_id) for _ in range(2))
    registry.promote(second.model_id, by="dagster", automatic=True)
    with pytest.raises(PromotionRefusedError, match=f"compared .* with {first.model_id}, but"):
        registry.promote(third.model_id, by="dagster", automatic=True)
    assert registry.get(third.model_id).status == "candidate"


@pytest.mark.parametrize("seen", ["with no champion", "with toy_of_long_ago"])
def test_a_person_promotes_what_was_not_compared_with_the_champion_only_by_force(
    registry: Registry, stored: Stored, tmp_path: Path, seen: str
) -> None:
    candidate = stored(compared_with=None if "no" in seen.split() else "toy_of_long_ago")
    champion = registry.promote(stored(compared_with=candidate.model_id).model_id, by="anna")
    before = registry.changes("toy")
    # Refused before its files are looked at, which would say something else.
    (tmp_path / "artifacts" / candidate.model_id / "model.ubj").rename(tmp_path / "away")
    said = f"{candidate.model_id} was compared {seen}, and the champion is {champion.model_id}"
    with pytest.raises(PromotionRefusedError, match=f"{said}, .* Train again: .* --force --reason"):
        registry.promote(candidate.model_id, by="anna")
    with pytest.raises(PromotionRefusedError, match=f"{said}; .* says why"):
        registry.promote(candidate.model_id, by="anna", force=True, reason="because")
    assert registry.changes("toy") == before
    (tmp_path / "away").rename(tmp_path / "artifacts" / candidate.model_id / "model.ubj")
    why = "the champion fails in Texas"
    registry.promote(candidate.model_id, by="anna", force=True, reason=why)
    change = registry.changes("toy")[1]
    assert (change.model_id, change.forced, change.reason) == (candidate.model_id, True, why)


def test_a_champion_of_meanwhile_is_noticed_after_the_files_were_verified(
    registry: Registry, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = registry.promote(stored().model_id, by="anna").model_id
    second, third = (stored(compared_with=first).model_id for _ in range(2))
    load, pool = registry._load, ThreadPoolExecutor(1)

    def slowly(record: ModelRecord) -> LoadedModel:
        """As a slow store: meanwhile somebody else promotes."""
        monkeypatch.undo()
        pool.submit(registry.promote, second, by="carl").result(timeout=20)
        return load(record)

    monkeypatch.setattr(registry, "_load", slowly)
    with pytest.raises(PromotionRefusedError, match=f"compared with {first}, .* is {second}"):
        registry.promote(third, by="ben")
    pool.shutdown()
    assert registry.get(second).status == "champion"


def test_a_program_does_not_undo_a_rollback(registry: Registry, stored: Stored) -> None:
    first = stored()
    registry.promote(first.model_id, by="dagster", automatic=True)
    second = stored(compared_with=first.model_id)
    registry.promote(second.model_id, by="dagster", automatic=True)
    registry.rollback("toy", by="anna")
    for refused in (second, stored(compared_with=first.model_id)):
        with pytest.raises(PromotionRefusedError, match="anna rolled back toy"):
            registry.promote(refused.model_id, by="dagster", automatic=True)
    champion = registry.champion("toy")
    assert champion is not None
    assert champion.model_id == first.model_id


def test_once_a_person_promotes_again_programs_may_too(registry: Registry, stored: Stored) -> None:
    first = stored()
    registry.promote(first.model_id, by="dagster", automatic=True)
    second = stored(compared_with=first.model_id)
    registry.promote(second.model_id, by="dagster", automatic=True)
    registry.rollback("toy", by="anna")
    third = stored(compared_with=first.model_id)
    registry.promote(third.model_id, by="anna")
    fourth = stored(compared_with=third.model_id)
    assert registry.promote(fourth.model_id, by="dagster", automatic=True).status == "champion"


def test_a_former_champion_is_brought_back_by_a_person_alone(
    registry: Registry, stored: Stored
) -> None:
    first = stored()
    registry.promote(first.model_id, by="dagster", automatic=True)
    second = stored(compared_with=first.model_id)
    registry.promote(second.model_id, by="dagster", automatic=True)
    with pytest.raises(PromotionRefusedError, match="only a person"):
        registry.promote(first.model_id, by="dagster", automatic=True)


def test_of_two_programs_that_promote_at_once_one_is_refused(
    registry: Registry, stored: Stored
) -> None:
    first = stored()
    registry.promote(first.model_id, by="dagster", automatic=True)
    both = [stored(compared_with=first.model_id).model_id for _ in range(2)]
    start = threading.Barrier(2)

    def promote(model_id: str) -> str:
        start.wait()
        try:
            return registry.promote(model_id, by="dagster", automatic=True).model_id
        except PromotionRefusedError:
            return "refused"

    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(promote, both))
    champion = registry.champion("toy")
    assert champion is not None
    assert sorted(outcomes) == sorted([champion.model_id, "refused"])


def test_many_who_promote_at_once_leave_one_champion_and_one_previous(
    registry: Registry, stored: Stored
) -> None:
    ids = [stored().model_id for _ in range(5)]
    with ThreadPoolExecutor(5) as pool:
        list(
            pool.map(
                lambda model_id: registry.promote(
                    model_id, by="anna", force=True, reason="for this very test"
                ),
                ids,
            )
        )
    statuses = sorted(record.status for record in registry.models("toy"))
    assert statuses == ["champion", "previous", "retired", "retired", "retired"]
    newest, before = registry.changes("toy")[1::-1]
    assert (newest.alias, before.alias) == ("champion", "previous")
    assert [held.model_id for held in registry.held("toy")] == [newest.model_id, before.model_id]


def test_a_rejected_model_is_promoted_only_by_force_and_with_a_reason(
    registry: Registry, stored: Stored
) -> None:
    rejected = stored(passed=False).model_id
    with pytest.raises(PromotionRefusedError, match="worse than the floor"):
        registry.promote(rejected, by="anna", reason="the champion leaks the label")
    with pytest.raises(PromotionRefusedError, match="says why"):
        registry.promote(rejected, by="anna", force=True, reason="because")
    registry.promote(rejected, by="anna", force=True, reason="the champion leaks the label")
    (change,) = registry.changes("toy")
    assert (change.forced, change.reason) == (True, "the champion leaks the label")


def test_force_on_a_model_that_passed_is_not_recorded_as_force(
    registry: Registry, stored: Stored
) -> None:
    registry.promote(stored().model_id, by="anna", force=True)
    assert not registry.changes("toy")[0].forced


def test_a_challenger_has_its_share_until_it_is_withdrawn(
    registry: Registry, stored: Stored
) -> None:
    champion, challenger = (stored().model_id for _ in range(2))
    registry.promote(champion, by="anna")
    assert registry.challenge(challenger, 0.25, by="anna").status == "challenger"
    assert [(h.alias, h.model_id, h.traffic_share) for h in registry.held("toy")] == [
        ("challenger", challenger, 0.25),
        ("champion", champion, 1.0),
    ]
    registry.end_challenge("toy", by="anna")
    assert registry.get(challenger).status == "candidate"
    assert [h.alias for h in registry.held("toy")] == ["champion"]
    with pytest.raises(RegistryError, match="no challenger"):
        registry.end_challenge("toy", by="anna")


def test_a_challenger_that_is_promoted_is_no_challenger_any_more(
    registry: Registry, stored: Stored
) -> None:
    champion, challenger = (stored().model_id for _ in range(2))
    registry.promote(champion, by="anna")
    registry.challenge(challenger, 0.5, by="anna")
    assert registry.promote(challenger, by="anna").status == "champion"
    assert {h.alias: h.model_id for h in registry.held("toy")} == {
        "champion": challenger,
        "previous": champion,
    }
    assert [c.kind for c in registry.changes("toy")].count("end") == 1


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 1.1, float("nan")])
def test_a_share_that_is_none_is_refused(registry: Registry, stored: Stored, share: float) -> None:
    champion, challenger = (stored().model_id for _ in range(2))
    registry.promote(champion, by="anna")
    with pytest.raises(RegistryError, match="more than 0 and less than 1"):
        registry.challenge(challenger, share, by="anna")


def test_who_can_not_challenge_is_told_why(registry: Registry, stored: Stored) -> None:
    first, rejected = stored().model_id, stored(passed=False).model_id
    with pytest.raises(RegistryError, match="no champion to challenge"):
        registry.challenge(first, 0.1, by="anna")
    registry.promote(first, by="anna")
    with pytest.raises(RegistryError, match="can't challenge itself"):
        registry.challenge(first, 0.1, by="anna")
    with pytest.raises(RegistryError, match="rejected"):
        registry.challenge(rejected, 0.1, by="anna")


def test_a_model_is_found_by_name_and_alias(registry: Registry, stored: Stored) -> None:
    record = registry.promote(stored().model_id, by="anna")
    assert registry.find("toy@champion") == registry.find(record.model_id) == record
    with pytest.raises(RegistryError, match="toy has no challenger"):
        registry.find("toy@challenger")


def test_a_model_from_before_files_were_signed_is_not_loaded(
    registry: Registry, stored: Stored, postgres_url: str
) -> None:
    record = stored()
    with connect(postgres_url) as connection:
        connection.execute("UPDATE leadml.models SET manifest_sha256 = NULL")
    with pytest.raises(IntegrityError, match="before models' files were signed"):
        registry.load(record.model_id)


def test_a_registry_without_a_key_answers_but_loads_nothing(
    registry: Registry, stored: Stored, postgres_url: str, tmp_path: Path
) -> None:
    record = stored()
    reader = Registry(postgres_url, tmp_path / "artifacts")
    assert reader.get(record.model_id) == record
    with pytest.raises(SigningKeyError, match="LEADML_SIGNING_KEY"):
        reader.load(record.model_id)


def test_models_lie_on_an_object_store_as_on_a_disk(
    postgres_url: str, trained: TrainedModel, examined: Examination
) -> None:
    registry = Registry(postgres_url, "memory://bucket/models", SigningKey(KEY))
    record = registry.store(trained, examined, None)
    assert record.artifact_uri == f"memory://bucket/models/{record.model_id}"
    assert registry.load(record.model_id).model_id == record.model_id
    assert record.card.encode() == registry.files(record.model_id).files["card.md"]


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


def _damage(registry: Registry, artifacts: Path, model_id: str) -> None:
    path = artifacts / model_id / "model.ubj"
    path.write_bytes(path.read_bytes() + b" ")


def _change_keys(registry: Registry, artifacts: Path, model_id: str) -> None:
    registry._key = SigningKey("another signing key of the tests")


@pytest.mark.parametrize("lose", [_damage, _change_keys])
def test_a_worse_model_is_not_promoted_by_a_program_when_the_champion_can_not_be_loaded(
    registry: Registry,
    trained: TrainedModel,
    tmp_path: Path,
    lose: Callable[[Registry, Path, str], None],
) -> None:
    champion = registry.promote(registry.register(trained).model_id, by="anna")
    lose(registry, tmp_path / "artifacts", champion.model_id)
    blind = spec_for(exclude=("source", "inbound_count_30d"))
    worse = registry.register(train(blind, toy_set(blind), seed=7, threads=1))
    assert (worse.passed_gate, worse.compared_with) == (True, None)
    with pytest.raises(
        PromotionRefusedError, match=f"not compared with the champion {champion.model_id}.*person"
    ):
        registry.promote(worse.model_id, by="dagster", automatic=True)
    forced = registry.promote(worse.model_id, by="anna", force=True, reason="for this very test")
    assert forced.status == "champion"


def test_a_champion_of_a_format_that_is_no_longer_read_keeps_no_successor_out(
    registry: Registry, trained: TrainedModel, examined: Examination
) -> None:
    asked = {"name": "timing", "answer": "urgency", "words": ["soon"], "levels": [0.3, 0.6]}
    old = replace(trained, manifest={**trained.manifest, "format": 2, "companions": [asked]})
    champion = registry.store(old, examined, None)
    with pytest.MonkeyPatch.context() as then:
        then.setattr("leadml_pipelines.learning.model.COMPANIONS_SINCE", 2)
        registry.promote(champion.model_id, by="anna")
    record = registry.register(trained)
    assert record.compared_with is None
    reasons = "\n".join(record.gate_reasons)
    assert f"not compared with the champion {champion.model_id}" in reasons
    assert "is of format 2" in reasons


def test_a_champion_that_can_not_be_measured_leaves_its_successor_to_a_person(
    registry: Registry, trained: TrainedModel
) -> None:
    registry.promote(registry.register(trained).model_id, by="anna")
    frame = rows_frame().drop(columns="noise")
    without = [column for column in FEATURES if column.name != "noise"]
    span = {"data_start": frame["created_at"].min(), "data_end": frame["as_of"].max() + 30 * DAY}
    # So few rows calibrate badly, which is not what this is about.
    spec = spec_for(max_calibration_error=0.2)
    rows = assemble(spec, frame, without, **span)
    record = registry.register(train(spec, rows, seed=7, threads=1))
    assert record.passed_gate
    assert record.compared_with is None
    assert "not compared with the champion" in record.gate_reasons[-1]
    with pytest.raises(PromotionRefusedError, match="A person decides"):
        registry.promote(record.model_id, by="dagster", automatic=True)
    forced = registry.promote(record.model_id, by="anna", force=True, reason="for this very test")
    assert forced.status == "champion"


def test_a_changed_file_is_named_and_neither_loaded_nor_promoted(
    registry: Registry, stored: Stored, tmp_path: Path
) -> None:
    record = stored()
    path = tmp_path / "artifacts" / record.model_id / "model.ubj"
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(IntegrityError, match=r"model\.ubj"):
        registry.load(record.model_id)
    with pytest.raises(IntegrityError, match=r"model\.ubj"):
        registry.promote(record.model_id, by="anna")


def test_a_pointer_is_enough_to_load_the_model(registry: Registry, stored: Stored) -> None:
    pointer = stored().pointer()
    model = load_model(pointer["artifact_uri"], KEY.encode(), pointer["manifest_sha256"])
    assert list(model.features) == pointer["features"]
    assert pointer["signature"]["output"] == "probability"


def test_when_the_row_can_not_be_written_no_files_stay(
    registry: Registry, trained: TrainedModel, examined: Examination, tmp_path: Path
) -> None:
    # A character that a file can hold, and PostgreSQL can't.
    broken = replace(trained, spec=replace(trained.spec, description="a\0b"))
    with pytest.raises(psycopg.Error):
        registry.store(broken, examined, None)
    assert list((tmp_path / "artifacts").iterdir()) == []
    assert registry.models() == []


@pytest.fixture
def at_commit(postgres_url: str) -> Iterator[Callable[[str], None]]:
    """Lets PostgreSQL run a statement when a model's row is about to be committed."""

    def let(statement: str) -> None:
        with connect(postgres_url) as connection:
            connection.execute(
                "CREATE FUNCTION leadml.at_commit() RETURNS trigger LANGUAGE plpgsql AS"
                f" $$ BEGIN {statement}; RETURN NULL; END $$".encode()
            )
            connection.execute(
                "CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON leadml.models"
                " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION leadml.at_commit()"
            )

    yield let
    with connect(postgres_url) as connection:
        connection.execute("DROP FUNCTION leadml.at_commit CASCADE")


def test_a_commit_that_the_database_refuses_leaves_no_files(
    registry: Registry, stored: Stored, tmp_path: Path, at_commit: Callable[[str], None]
) -> None:
    at_commit("RAISE EXCEPTION 'refused'")
    with pytest.raises(psycopg.Error, match="refused"):
        stored()
    assert list((tmp_path / "artifacts").iterdir()) == []


def test_a_connection_lost_while_the_row_is_committed_leaves_the_files_that_it_may_name(
    registry: Registry, stored: Stored, tmp_path: Path, at_commit: Callable[[str], None]
) -> None:
    at_commit("PERFORM pg_terminate_backend(pg_backend_pid())")
    with pytest.raises(psycopg.OperationalError) as raised:
        stored()
    (folder,) = (tmp_path / "artifacts").iterdir()
    assert (folder / "manifest.sig").exists()
    assert f"nobody knows whether {folder.name} was registered" in raised.value.__notes__[0]


def test_a_model_nobody_registered_is_named(registry: Registry) -> None:
    with pytest.raises(RegistryError, match="toy_19700101"):
        registry.get("toy_19700101_000000")
    with pytest.raises(RegistryError, match="materialize toy_model"):
        registry.newest("toy")
