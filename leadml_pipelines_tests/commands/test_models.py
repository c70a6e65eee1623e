"""`leadml models ...` as a user calls it, over the session's PostgreSQL and Redis."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from leadml_pipelines.learning.evaluation.examination import Examination, examine
from leadml_pipelines.learning.evaluation.gate import Decision
from leadml_pipelines.learning.registry.registry import Registry
from leadml_pipelines.learning.registry.signing import SigningKey
from leadml_pipelines.learning.training.train import TrainedModel, train
from leadml_pipelines.online.model_pointers import ModelPointers
from leadml_pipelines.postgres import connect
from leadml_pipelines.settings import Settings
from leadml_pipelines_tests.end_to_end.commands import LEADML, environment
from leadml_pipelines_tests.learning.frames import spec_for, toy_set
from leadml_pipelines_tests.tables import empty_registry

NOBODY_LISTENS = "redis://127.0.0.1:1/0"
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def trained() -> TrainedModel:
    spec = spec_for(rounds=5)
    return train(spec, toy_set(spec), seed=7, threads=1)


@pytest.fixture(scope="module")
def examined(trained: TrainedModel) -> Examination:
    return replace(examine(trained, resamples=50), decision=Decision(True, ("it is better",)))


@pytest.fixture
def registry(postgres_url: str, home: Path) -> Registry:
    """An empty registry of a fresh home."""
    with connect(postgres_url) as connection:
        empty_registry(connection)
    return Registry.of(Settings(home=home), postgres_url)


@pytest.fixture
def ids(registry: Registry, trained: TrainedModel, examined: Examination) -> list[str]:
    """Two models that passed and one that was rejected; the first is champion."""
    rejected = replace(examined, decision=Decision(False, ("roc_auc is under the floor",)))
    first = registry.store(trained, examined, None).model_id
    others = [registry.store(trained, found, first).model_id for found in (examined, rejected)]
    ids = [first, *others]
    registry.promote(ids[0], by="anna", reason="the first one of all")
    return ids


@pytest.fixture
def models(postgres_url: str, redis_url: str, home: Path) -> Command:
    """Runs `leadml models`, which must end with an expected code and never with a traceback."""

    def run(
        *options: str | Path, code: int = 0, redis: str = redis_url
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [LEADML, "models", *map(str, options), "--home", str(home)],
            env=environment()
            | {"LEADML_POSTGRES_URL": postgres_url, "LEADML_REDIS_URL": redis, "COLUMNS": "100"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


def test_the_list_tells_who_answers_in_a_hundred_columns(models: Command, ids: list[str]) -> None:
    shown = models("list").stdout
    assert all(model_id in shown for model_id in ids)
    assert f"toy answers by {ids[0]}" in shown
    assert max(map(len, shown.splitlines())) <= 100
    listed = json.loads(models("list", "--json", "--limit", "2").stdout)
    assert [one["model_id"] for one in listed] == ids[:0:-1]


def test_an_empty_registry_is_a_sentence(models: Command, registry: Registry) -> None:
    assert "no model was registered yet" in models("list").stdout


def test_show_tells_all_of_one_model(models: Command, ids: list[str]) -> None:
    shown = models("show", "toy@champion").stdout
    for part in (ids[0], "ROC AUC", "heuristic", "logistic", "promote", "worst slice"):
        assert part in shown
    assert max(map(len, shown.splitlines()[:20])) <= 100
    told = json.loads(models("show", ids[0], "--json").stdout)
    assert told["changes"][0]["reason"] == "the first one of all"
    assert told["evaluation"]["model"]["roc_auc"]["low"] > 0.5


def test_compare_puts_models_side_by_side(models: Command, ids: list[str]) -> None:
    shown = models("compare", ids[1]).stdout
    assert all(part in shown for part in (ids[0], ids[1], "ROC AUC"))


def test_a_model_is_not_compared_with_itself(models: Command, ids: list[str]) -> None:
    said = models("compare", "toy@champion", code=1).stderr
    assert f"{ids[0]} would stand beside itself; give another model" in " ".join(said.split())
    models("compare", ids[0], ids[0], code=1)


def test_a_path_in_square_brackets_is_printed_as_it_is(
    models: Command, ids: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / "[red]" / "card[" / "bold]"
    assert f"to {folder}" in models("card", ids[0], "--out", folder).stdout


def test_promotion_and_rollback_are_published_at_once_and_recorded(
    models: Command, ids: list[str], pointers: ModelPointers
) -> None:

    def online() -> str | None:
        pointer = pointers.get("toy", "champion")
        return None if pointer is None else str(pointer["model_id"])

    done = models("promote", ids[1], "--by", "ben")
    assert f"{ids[1]} is champion instead of {ids[0]}" in done.stdout
    assert "serving was told" in done.stdout
    assert online() == ids[1]
    done = models("rollback", "toy", "--reason", "wrong for partners", "--by", "carl")
    assert f"{ids[0]} is champion again" in done.stdout
    assert online() == ids[0]
    history = models("history", "toy").stdout
    assert "rollback" in history
    assert "carl" in history


def test_with_redis_away_the_change_stands_and_that_is_said(
    models: Command, ids: list[str], registry: Registry
) -> None:
    done = models("promote", ids[1], redis=NOBODY_LISTENS)
    assert "serving was not told yet: Redis can't be reached" in done.stdout
    assert "The change stands" in done.stdout
    assert registry.find("toy@champion").model_id == ids[1]


def test_a_model_that_was_not_compared_with_the_champion_is_refused_before_anything_is_done(
    models: Command,
    ids: list[str],
    registry: Registry,
    trained: TrainedModel,
    examined: Examination,
) -> None:
    another = registry.store(trained, examined, ids[1]).model_id
    done = models("promote", another, code=1)
    said = " ".join(done.stderr.split())
    assert f"was compared with {ids[1]}, and the champion is {ids[0]}" in said
    assert "Train again" in said
    assert "--force --reason TEXT" in said
    assert done.stdout == ""
    models("promote", another, "--force", "--reason", "the champion fails in Texas")
    assert registry.find("toy@champion").model_id == another


def test_a_rejected_model_needs_force_and_a_reason(
    models: Command, ids: list[str], registry: Registry
) -> None:
    assert "under the floor" in models("promote", ids[2], code=1).stderr
    assert "says why" in models("promote", ids[2], "--force", code=1).stderr
    models("promote", ids[2], "--force", "--reason", "the champion leaks the label")
    assert registry.find("toy@champion").model_id == ids[2]


def test_a_challenger_is_published_with_its_share_and_withdrawn(
    models: Command, ids: list[str], pointers: ModelPointers
) -> None:
    assert "10.0% of the entities" in models("challenge", ids[1], "--share", "0.1").stdout
    pointer = pointers.get("toy", "challenger")
    assert pointer is not None
    assert (pointer["model_id"], pointer["traffic_share"]) == (ids[1], 0.1)
    assert f"{ids[1]} for 10.0%" in models("list").stdout
    models("end-challenge", "toy")
    assert pointers.get("toy", "challenger") is None


def test_the_card_is_markdown_or_a_folder_with_its_plots(
    models: Command, ids: list[str], examined: Examination, tmp_path: Path
) -> None:
    assert models("card", ids[0]).stdout.encode() == examined.card["card.md"]
    models("card", ids[0], "--out", tmp_path / "card")
    written = {path.name: path.read_bytes() for path in (tmp_path / "card").iterdir()}
    assert written == dict(examined.card)


def test_a_model_nobody_registered_is_a_sentence(models: Command, registry: Registry) -> None:
    done = models("show", "toy_19700101_000000", code=1)
    assert "there is no model toy_19700101_000000" in done.stderr


def test_models_are_signed_again_with_a_newer_key(
    models: Command, ids: list[str], home: Path, tmp_path: Path
) -> None:
    old = tmp_path / "old.key"
    (home / "signing.key").rename(old)
    shown = models("resign", "--old-key-file", old).stdout
    assert shown.count("signed again") == len(ids)
    key = SigningKey(path=home / "signing.key").read()
    assert key != SigningKey(path=old).read()
    assert key.decode() not in shown
    models("rollback", "toy", code=1)
    models("promote", ids[1])


def test_signing_again_goes_on_with_the_others_and_ends_with_those_that_were_not(
    models: Command, ids: list[str], home: Path, tmp_path: Path, postgres_url: str
) -> None:
    old = tmp_path / "old.key"
    (home / "signing.key").rename(old)
    uri = move(postgres_url, ids[2], "ftp://127.0.0.1:1/models/away")  # the first one asked for
    (home / "artifacts" / ids[1] / "card.md").write_text("changed")
    shown = models("resign", "--old-key-file", old, code=1).stdout
    assert f"{ids[0]}: signed again" in shown
    assert f"{ids[1]}: not signed again" in shown
    assert f"{ids[2]}: not signed again: ftp://127.0.0.1:1/models did not answer" in shown
    last = shown.splitlines()[-1]
    assert "2 of 3 were not signed again, and are not loaded" in last
    assert f"{ids[2]}, {ids[1]}." in last
    move(postgres_url, ids[2], uri)
    shown = models("resign", "--old-key-file", old, code=1).stdout
    assert f"{ids[0]}: is signed with the present key already" in shown
    assert f"{ids[2]}: signed again" in shown
    assert shown.splitlines()[-1].startswith("1 of 3 were not")


def move(postgres_url: str, model_id: str, uri: str) -> str:
    """Let a record name another address; the one before."""
    with connect(postgres_url) as connection:
        row = connection.execute(
            "SELECT artifact_uri FROM leadml.models WHERE model_id = %s", (model_id,)
        ).fetchone()
        connection.execute(
            "UPDATE leadml.models SET artifact_uri = %s WHERE model_id = %s", (uri, model_id)
        )
    assert row is not None
    return str(row[0])


def age(postgres_url: str, days: int) -> None:
    """Let every model have been trained so many days earlier."""
    with connect(postgres_url) as connection:
        connection.execute(
            "UPDATE leadml.models SET trained_at = trained_at - make_interval(days => %s)", (days,)
        )


def test_old_models_are_pruned_after_a_look_at_what_would_be(
    models: Command, ids: list[str], home: Path, postgres_url: str
) -> None:
    age(postgres_url, 91)
    options = ("prune", "--newest", "1")
    shown = models(*options, "--dry-run").stdout
    assert ids[1] in shown
    assert "would free" in shown
    assert (home / "artifacts" / ids[1]).exists()
    shown = models(*options).stdout
    assert ids[1] in shown
    assert "freed" in shown
    assert "2 models keep their files" in shown
    assert max(map(len, shown.splitlines()[:-1])) <= 100
    assert not (home / "artifacts" / ids[1]).exists()
    assert "pruned" in models("list").stdout
    assert "deleted" in models("show", ids[1]).stdout
    said = models("promote", ids[1], code=1).stderr
    assert "by `leadml models prune`, so it can answer no more" in " ".join(said.split())
    assert ids[1] not in models(*options).stdout


def test_the_age_and_the_number_that_are_kept_are_options_and_settings(
    models: Command, ids: list[str], postgres_url: str
) -> None:
    age(postgres_url, 91)
    assert "freed 0 bytes; 3 models keep their files" in models("prune").stdout
    assert "freed 0 bytes" in models("prune", "--newest", "1", "--days", "92").stdout
    assert ids[1] in models("prune", "--newest", "1", "--days", "90", "--dry-run").stdout


def test_what_can_not_be_pruned_is_told_with_a_status(
    models: Command, ids: list[str], postgres_url: str
) -> None:
    age(postgres_url, 91)
    move(postgres_url, ids[1], "ftp://127.0.0.1:1/models/away")
    shown = models("prune", "--newest", "1", code=1).stdout
    assert f"{ids[1]}: not deleted: ftp://127.0.0.1:1/models did not answer" in shown
    assert f"1 could not be deleted: {ids[1]}." in shown.splitlines()[-1]


def test_signing_again_skips_models_whose_files_are_gone(
    models: Command, ids: list[str], home: Path, tmp_path: Path, postgres_url: str
) -> None:
    age(postgres_url, 91)
    models("prune", "--newest", "1")
    old = tmp_path / "old.key"
    (home / "signing.key").rename(old)
    shown = models("resign", "--old-key-file", old).stdout
    assert shown.count("signed again") == 2
    assert ids[1] not in shown
