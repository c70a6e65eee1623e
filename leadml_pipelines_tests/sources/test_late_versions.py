from __future__ import annotations

import itertools
import threading
import time

import pandas as pd
import pytest

from leadml_pipelines.postgres import connect
from leadml_pipelines.sources.door import Admitted, Door, merge_checked
from leadml_pipelines.sources.validation import validate
from leadml_pipelines_tests.sources.builders import T0, leads, rows


def version(day: int, state: str) -> pd.DataFrame:
    return leads("l", state=state, updated_at=T0 + pd.Timedelta(days=day))


def history(url: str) -> list[tuple[int, str]]:
    """Day from which a version is valid, and its state."""
    return [((row["valid_from"] - T0).days, row["state"]) for row in rows(url, "lead_versions")]


@pytest.mark.parametrize("order", list(itertools.permutations([(2, "a"), (5, "b"), (9, "c")])))
def test_the_history_is_the_same_in_whatever_order_versions_arrive(
    crm: str, order: tuple[tuple[int, str], ...]
) -> None:
    for day, state in order:
        assert Door(crm).admit("leads", version(day, state), "test") == Admitted(accepted=1)

    assert history(crm) == [(0, "a"), (5, "b"), (9, "c")]
    assert rows(crm, "leads")[0]["state"] == "c"


def test_late_versions_of_one_batch_all_enter_the_history(crm: str) -> None:
    Door(crm).admit("leads", version(9, "c"), "test")
    late = pd.concat([version(5, "b"), version(2, "a")])

    assert Door(crm).admit("leads", late, "test") == Admitted(accepted=2)
    assert history(crm) == [(0, "a"), (5, "b"), (9, "c")]


def test_late_versions_that_come_again_change_nothing(crm: str) -> None:
    frames = [version(9, "c"), version(5, "b"), version(2, "a")]
    for frame in frames:
        Door(crm).admit("leads", frame, "test")

    assert Door(crm).admit("leads", pd.concat(frames), "test") == Admitted(unchanged=3)


def test_a_late_version_that_says_what_the_history_says_is_no_news(crm: str) -> None:
    Door(crm).admit("leads", version(2, "a"), "test")
    Door(crm).admit("leads", version(9, "c"), "test")

    assert Door(crm).admit("leads", version(5, "a"), "test") == Admitted(unchanged=1)
    assert history(crm) == [(0, "a"), (9, "c")]


def test_a_lead_that_is_erased_and_comes_again_has_a_new_first_version(crm: str) -> None:
    Door(crm).admit("leads", version(5, "b"), "test")
    with connect(crm) as connection:
        connection.execute("DELETE FROM crm.leads")
    Door(crm).admit("leads", version(0, "a"), "test")
    Door(crm).admit("leads", version(9, "c"), "test")

    Door(crm).admit("leads", version(2, "x"), "test")

    assert history(crm) == [(0, "a"), (2, "x"), (9, "c")]


def test_of_two_writers_at_once_the_older_version_enters_the_history(crm: str) -> None:
    Door(crm).admit("leads", version(0, "a"), "test")
    made: list[Admitted] = []
    older = threading.Thread(
        target=lambda: made.append(Door(crm).admit("leads", version(5, "b"), "test"))
    )
    with connect(crm) as connection:
        merge_checked(connection, validate("leads", version(9, "c")), "crm")
        older.start()
        with connect(crm, autocommit=True) as watch:
            waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'" + (
                " AND datname = current_database()"
            )
            while watch.execute(waiting.encode()).fetchone() == (0,):
                assert older.is_alive()
                time.sleep(0.01)
    older.join()

    assert made == [Admitted(accepted=1)]
    assert history(crm) == [(0, "a"), (5, "b"), (9, "c")]
