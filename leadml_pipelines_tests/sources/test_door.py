from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal

import pandas as pd
import pytest

from leadml_pipelines.postgres import connect
from leadml_pipelines.sources.door import Admitted, Door
from leadml_pipelines.sources.quarantine import list_rows
from leadml_pipelines_tests.sources.builders import T0, assignment, events, leads, rows


def policy(premium: object = 100, cancelled: object = None, product: str = "car") -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "policy_id": "p",
                "lead_id": "l",
                "product": product,
                "annual_premium": premium,
                "bound_at": T0,
                "cancelled_at": cancelled,
            }
        ]
    )


def test_good_rows_are_in_the_table_with_their_values(crm: str) -> None:
    door = Door(crm)
    door.admit("leads", leads("l", state="NY", attributes=[{"age": 30}]), "test")

    admitted = door.admit("lead_events", events("e", lead="l", value=1.5), "test")

    assert admitted == Admitted(accepted=1)
    assert rows(crm, "leads")[0]["attributes"] == {"age": 30}
    (event,) = rows(crm, "lead_events")
    assert event["value"] == Decimal("1.5000")
    assert event["properties"] == {}
    assert event["ingested_at"] == event["occurred_at"] == datetime(2024, 3, 1, 10, tzinfo=UTC)


def test_texts_come_through_as_they_are(crm: str) -> None:
    odd = 'a, "b"\n\\N \\. Ωé,'

    Door(crm).admit("leads", leads("l", state=odd), "test")

    assert rows(crm, "leads")[0]["state"] == odd


def test_the_same_rows_again_change_nothing(crm: str) -> None:
    door = Door(crm)
    frame = leads("a", "b", attributes=[{"age": 30}, {}])
    door.admit("leads", frame, "test")

    assert door.admit("leads", frame, "test") == Admitted(unchanged=2)


def test_a_repeat_within_a_batch_is_one_row(crm: str) -> None:
    door = Door(crm)
    door.admit("leads", leads("l"), "test")

    assert door.admit("lead_events", events("e", "e", lead="l"), "test") == Admitted(1, 1)


def test_a_repeat_that_arrives_later_is_the_same_event(crm: str) -> None:
    door = Door(crm)
    door.admit("leads", leads("l"), "test")
    door.admit("lead_events", events("e", lead="l", ingested_at=T0 + pd.Timedelta("1h")), "test")

    again = events("e", lead="l", ingested_at=T0 + pd.Timedelta("9h"))

    assert door.admit("lead_events", again, "test") == Admitted(unchanged=1)


def test_a_key_with_other_content_is_refused_and_names_what_differs(crm: str) -> None:
    door = Door(crm)
    door.admit("leads", leads("l"), "test")
    door.admit("lead_events", events("e", lead="l"), "test")

    admitted = door.admit("lead_events", events("e", lead="l", channel="web", value=3), "test")

    assert admitted == Admitted(quarantined={"duplicate_key": 1})
    assert "another channel, value" in list_rows(crm)[0].message
    assert rows(crm, "lead_events")[0]["channel"] == "email"


def test_of_two_rows_of_a_batch_with_one_key_the_first_counts(crm: str) -> None:
    door = Door(crm)
    door.admit("leads", leads("l"), "test")

    frame = events("e", "e", lead="l", channel=["phone", "web"])

    assert door.admit("lead_events", frame, "test") == Admitted(1, 0, {"duplicate_key": 1})
    assert rows(crm, "lead_events")[0]["channel"] == "phone"


def test_a_row_of_an_unknown_lead_is_refused(crm: str) -> None:
    Door(crm).admit("leads", leads("a"), "test")

    both = pd.concat([events("e", lead="a"), events("f", lead="nobody")])
    admitted = Door(crm).admit("lead_events", both, "test")

    assert admitted == Admitted(1, 0, {"unknown_lead": 1})


def test_either_end_of_a_referral_may_be_unknown(crm: str) -> None:
    Door(crm).admit("leads", leads("a"), "test")
    frame = pd.DataFrame({"from_lead_id": ["a", "x"], "to_lead_id": ["x", "a"], "referred_at": T0})

    assert Door(crm).admit("referrals", frame, "test").quarantined == {"unknown_lead": 2}


def test_a_newer_version_of_a_lead_wins_and_an_older_one_is_no_news(crm: str) -> None:
    door = Door(crm)
    old = leads("l", state="NY", updated_at=T0)
    new = leads("l", state="NJ", updated_at=T0 + pd.Timedelta("1D"))
    door.admit("leads", old, "test")

    assert door.admit("leads", new, "test") == Admitted(accepted=1)
    assert door.admit("leads", old, "test") == Admitted(unchanged=1)
    assert rows(crm, "leads")[0]["state"] == "NJ"


def test_all_versions_of_a_lead_in_one_batch_enter_its_history(crm: str) -> None:
    states = ["c", "a", "b"]
    days = [2, 0, 1]
    frame = leads("l", "l", "l", state=states).assign(
        updated_at=[T0 + pd.Timedelta(days=day) for day in days]
    )

    assert Door(crm).admit("leads", frame, "test") == Admitted(accepted=3)
    assert [version["state"] for version in rows(crm, "lead_versions")] == ["a", "b", "c"]
    assert rows(crm, "leads")[0]["state"] == "c"
    assert Door(crm).admit("leads", frame, "test") == Admitted(unchanged=3)


def test_the_same_version_with_other_content_is_refused(crm: str) -> None:
    Door(crm).admit("leads", leads("l", state="NY"), "test")

    admitted = Door(crm).admit("leads", leads("l", state="NJ"), "test")

    assert admitted.quarantined == {"duplicate_key": 1}


def test_a_lead_id_that_is_used_for_another_lead_is_refused(crm: str) -> None:
    Door(crm).admit("leads", leads("l"), "test")
    other = leads("l", updated_at=T0 + pd.Timedelta("9D")).assign(
        created_at=T0 + pd.Timedelta("8D")
    )

    assert Door(crm).admit("leads", other, "test").quarantined == {"duplicate_key": 1}


def test_an_assignment_may_get_its_end_later_but_not_another_one(crm: str) -> None:
    door = Door(crm)
    door.admit("leads", leads("l"), "test")
    end = T0 + pd.Timedelta("1D")

    assert door.admit("assignments", assignment("l", "a", T0), "test") == Admitted(accepted=1)
    assert door.admit("assignments", assignment("l", "a", T0, end), "test") == Admitted(accepted=1)
    assert door.admit("assignments", assignment("l", "a", T0), "test") == Admitted(unchanged=1)
    later = assignment("l", "a", T0, end + pd.Timedelta("1D"))
    assert door.admit("assignments", later, "test").quarantined == {"duplicate_key": 1}
    assert rows(crm, "assignments")[0]["ended_at"] == end


def test_a_policy_may_be_cancelled_but_not_become_another_one(crm: str) -> None:
    door = Door(crm)
    door.admit("leads", leads("l"), "test")
    door.admit("policies", policy(), "test")
    end = T0 + pd.Timedelta("30D")

    assert door.admit("policies", policy(200, end), "test").quarantined == {"duplicate_key": 1}
    assert rows(crm, "policies")[0]["cancelled_at"] is None
    assert door.admit("policies", policy(100, end), "test") == Admitted(accepted=1)


def test_counts_add_up_to_the_rows_handed_in(crm: str) -> None:
    door = Door(crm)
    door.admit("leads", leads("l"), "test")
    frame = events(*"abcdab", lead=["l", "l", "x", "l", "l", "l"], channel=list("eeeeex"))
    frame.loc[3, "direction"] = "up"

    admitted = door.admit("lead_events", frame, "test")

    assert admitted.rows == len(frame)
    assert admitted == Admitted(
        2, 1, {"duplicate_key": 1, "unknown_direction": 1, "unknown_lead": 1}
    )


def test_two_writers_of_the_same_rows_at_once_lose_none_and_quarantine_none(crm: str) -> None:
    ids = [f"lead-{number}" for number in range(3000)]
    forward, backward = leads(*ids), leads(*reversed(ids))

    with ThreadPoolExecutor(4) as pool:
        results = list(
            pool.map(
                lambda frame: Door(crm).admit("leads", frame, "test"),
                [forward, backward, forward, backward],
            )
        )

    total = sum(results, Admitted())
    assert total == Admitted(accepted=3000, unchanged=9000)
    assert len(rows(crm, "leads")) == len(rows(crm, "lead_versions")) == 3000


def test_an_unknown_table_is_an_error_that_lists_those_there_are(crm: str) -> None:
    with pytest.raises(KeyError, match="takes no rows for lead_versions; it takes them for leads"):
        Door(crm).admit("lead_versions", leads("l"), "test")


def test_a_view_of_the_customers_is_never_written(crm: str) -> None:
    with connect(crm) as connection:
        connection.execute("CREATE SCHEMA sold; CREATE VIEW sold.leads AS TABLE crm.leads")

    with pytest.raises(TypeError, match=r"sold\.leads is not a table but a view"):
        Door(crm, "sold").admit("leads", leads("l"), "test")
    with pytest.raises(TypeError, match=r"there is no table sold\.agents"):
        Door(crm, "sold").admit("agents", pd.DataFrame({"agent_id": ["a"]}), "test")
