"""Which experiment is asked for, and where its rows come from."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from leadml_pipelines.learning.experiments.lookup import (
    ExperimentError,
    challenger_of,
    examine_experiment,
)
from leadml_pipelines.learning.specs import SPECS
from leadml_pipelines.postgres import connect
from leadml_pipelines_tests.learning.experiments.reports import CHURN
from leadml_pipelines_tests.learning.frames import DAY, START, BareEngine


class _Registry:
    """What `challenger_of` asks of a registry."""

    def __init__(self, challenger: str | None) -> None:
        self._challenger = challenger

    def alias(self, name: str, alias: str) -> Any:
        return None if self._challenger is None else _Record(self._challenger)

    def models(self, name: str | None = None) -> list[Any]:
        return [_Record("churn_0")]


class _Record:
    threshold = 0.5

    def __init__(self, model_id: str) -> None:
        self.model_id = model_id


def test_the_challenger_of_now_or_an_earlier_one_is_asked_for() -> None:
    assert challenger_of(_Registry("churn_2"), SPECS, "churn")[1] == "churn_2"
    assert challenger_of(_Registry(None), SPECS, "churn", "churn_0")[1] == "churn_0"
    with pytest.raises(ExperimentError, match="challenge MODEL_ID"):
        challenger_of(_Registry(None), SPECS, "churn")
    with pytest.raises(ExperimentError, match="no registered version"):
        challenger_of(_Registry(None), SPECS, "churn", "churn_9")
    with pytest.raises(ExperimentError, match="the models are churn"):
        challenger_of(_Registry(None), SPECS, "chrun")


def test_the_log_and_the_outcomes_that_came_in_since_make_the_report(postgres_url: str) -> None:
    engine = BareEngine()
    rows = []
    for at in range(40):
        drawn = at % 2 == 0
        # An event within the horizon: it does not churn.
        if at % 4 < 2:
            engine.add("lead_events", (f"lead_{at}", "inbound", START + DAY, START + DAY))
        rows += [
            (f"p{at}_{n}", "churn_2" if drawn else "churn_1", "challenger" if drawn else "champion",
             f"lead_{at}", START + n * timedelta(hours=5), START + n * timedelta(hours=5), 0.4)
            for n in range(3)
        ]  # fmt: skip
    with connect(postgres_url) as connection:
        connection.cursor().executemany(
            "INSERT INTO leadml.predictions (prediction_id, model_name, model_id, role,"
            " entity_type, entity_id, features_as_of, predicted_at, value, source, stale, degraded,"
            " experiment, traffic_share) VALUES (%s, 'churn', %s, %s, 'lead', %s, %s, %s, %s,"
            " 'cache', false, false, 'churn_2', 0.5)",
            rows,
        )
    told = examine_experiment(postgres_url, CHURN, "churn_2", engine, START + 61 * DAY, {})
    for arm in (told.champion, told.challenger):
        assert arm is not None
        assert (arm.predictions, arm.entities, arm.rows, arm.known_entities) == (60, 20, 20, 20)
        assert arm.positives == 10
        assert arm.figures["roc_auc"]["value"] == 0.5
