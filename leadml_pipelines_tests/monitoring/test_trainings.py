"""Trainings are remembered, however they end."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest

from leadml_pipelines.monitoring.trainings import recorded_training, trainings
from leadml_pipelines.postgres import connect
from leadml_pipelines.times import utc_now

MONTH = timedelta(days=30)


@pytest.fixture(autouse=True)
def _none_yet(postgres_url: str) -> Iterator[None]:
    yield
    with connect(postgres_url) as connection:
        connection.execute("TRUNCATE leadml.trainings")


def states(url: str) -> list[tuple[str, str]]:
    """Model and state of each training."""
    return [(one.model_name, one.state) for one in trainings(url, utc_now(), MONTH)]


def test_a_training_is_under_way_until_it_ends_as_it_says(postgres_url: str) -> None:
    with recorded_training(postgres_url, "churn", "test"):
        assert states(postgres_url) == [("churn", "under way")]
    with recorded_training(postgres_url, "conversion", "test", "a_run") as training:
        training.outcome = "rejected"
    assert states(postgres_url) == [("churn", "succeeded"), ("conversion", "rejected")]
    assert [one.run_id for one in trainings(postgres_url, utc_now(), MONTH)] == [None, "a_run"]


def test_an_error_is_a_failure_and_an_interruption_a_cancellation(postgres_url: str) -> None:
    for raised in (ValueError, KeyboardInterrupt):
        with pytest.raises(raised), recorded_training(postgres_url, "churn", "test"):
            raise raised
    assert states(postgres_url) == [("churn", "failed"), ("churn", "cancelled")]


def test_a_step_that_went_well_is_no_training_and_one_that_did_not_is(postgres_url: str) -> None:
    with recorded_training(postgres_url, "churn", "test") as training:
        training.outcome = None
    assert states(postgres_url) == []
    with pytest.raises(KeyError), recorded_training(postgres_url, "churn", "test"):
        raise KeyError
    assert states(postgres_url) == [("churn", "failed")]


KILLED = """
import sys, time
from leadml_pipelines.monitoring.trainings import recorded_training
with recorded_training(sys.argv[1], "churn", "test"):
    print("training", flush=True)
    time.sleep(600)
"""


def test_a_training_that_was_killed_has_died_and_one_beside_it_goes_on(postgres_url: str) -> None:
    with recorded_training(postgres_url, "conversion", "test"):
        command = [sys.executable, "-c", KILLED, postgres_url]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "training\n"
            assert states(postgres_url) == [("conversion", "under way"), ("churn", "under way")]
            process.send_signal(signal.SIGKILL)
        # The server notices a closed connection within moments.
        deadline = time.monotonic() + 30
        expected = [("conversion", "under way"), ("churn", "died")]
        while states(postgres_url) != expected and time.monotonic() < deadline:
            time.sleep(0.05)
        assert states(postgres_url) == expected


def test_a_training_whose_connection_is_lost_still_says_how_it_ended(postgres_url: str) -> None:
    with recorded_training(postgres_url, "churn", "test") as training:
        with connect(postgres_url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        training.outcome = "rejected"
    assert states(postgres_url) == [("churn", "rejected")]


def test_a_training_that_began_by_a_clock_that_was_ahead_counts(postgres_url: str) -> None:
    with recorded_training(postgres_url, "churn", "test"):
        pass
    assert len(trainings(postgres_url, utc_now() - timedelta(days=1), MONTH)) == 1
    assert trainings(postgres_url, utc_now() + MONTH, MONTH) == []
