"""Who answered, held against who was champion then."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from leadml_pipelines.monitoring.answering import TAKING_OVER, Answering, read_answering
from leadml_pipelines.monitoring.enough import NotEnough
from leadml_pipelines.postgres import connect
from leadml_pipelines_tests.monitoring.predictions import add_predictions
from leadml_pipelines_tests.tables import empty_registry

NOW = datetime(2026, 4, 12, 5, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)

Promote = Callable[[str, datetime], None]


@pytest.fixture
def promote(postgres_url: str) -> Promote:
    """Notes that a version of churn became champion; nothing else was promoted or predicted."""
    with connect(postgres_url) as connection:
        empty_registry(connection)
        connection.execute("TRUNCATE leadml.predictions")

    def note(model_id: str, at: datetime) -> None:
        with connect(postgres_url) as connection:
            connection.execute(
                "INSERT INTO leadml.model_alias_changes (name, alias, kind, model_id, changed_at,"
                " changed_by) VALUES ('churn', 'champion', 'promote', %s, %s, 'anna')",
                (model_id, at),
            )

    return note


def _read(url: str) -> Answering:
    found = read_answering(url, "churn", NOW)
    assert isinstance(found, Answering)
    return found


def test_each_version_may_answer_while_it_is_champion_and_a_little_longer(
    postgres_url: str, promote: Promote
) -> None:
    promote("churn_1", NOW - 48 * HOUR)
    promote("churn_2", NOW - 2 * HOUR)
    add_predictions(postgres_url, ["a", "b"], NOW - 3 * HOUR)
    add_predictions(postgres_url, ["a"], NOW - 2 * HOUR + TAKING_OVER - MINUTE)
    add_predictions(postgres_url, ["a"], NOW - HOUR, model_id="churn_2")
    assert _read(postgres_url) == Answering("churn", 4, {}, None)


def test_the_version_before_that_answers_on_is_counted(postgres_url: str, promote: Promote) -> None:
    promote("churn_1", NOW - 48 * HOUR)
    promote("churn_2", NOW - 2 * HOUR)
    late = NOW - 2 * HOUR + TAKING_OVER + MINUTE
    add_predictions(postgres_url, ["a", "b"], late)
    add_predictions(postgres_url, ["a"], NOW - HOUR, model_id="churn_2")
    assert _read(postgres_url) == Answering("churn", 3, {"churn_1": 2}, late)


def test_a_version_that_became_champion_again_may_answer_again(
    postgres_url: str, promote: Promote
) -> None:
    promote("churn_1", NOW - 48 * HOUR)
    promote("churn_2", NOW - 4 * HOUR)
    promote("churn_1", NOW - 2 * HOUR)
    add_predictions(postgres_url, ["a"], NOW - HOUR)
    add_predictions(postgres_url, ["a"], NOW - 3 * HOUR)
    assert _read(postgres_url).others == {"churn_1": 1}


def test_challengers_other_days_and_what_was_before_the_first_promotion_do_not_count(
    postgres_url: str, promote: Promote
) -> None:
    promote("churn_2", NOW - 2 * HOUR)
    add_predictions(postgres_url, ["a"], NOW - 3 * HOUR)
    add_predictions(postgres_url, ["a"], NOW - HOUR, role="challenger")
    add_predictions(postgres_url, ["a"], NOW + HOUR)
    assert isinstance(read_answering(postgres_url, "churn", NOW), NotEnough)
    promote("churn_2", NOW - 72 * HOUR)
    add_predictions(postgres_url, ["a"], NOW - 25 * HOUR)
    assert _read(postgres_url) == Answering("churn", 1, {"churn_1": 1}, NOW - 3 * HOUR)
