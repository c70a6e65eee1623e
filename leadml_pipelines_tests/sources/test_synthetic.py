from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from leadml_pipelines.sources import faults
from leadml_pipelines.sources.contract import CONTRACT_TABLES, TABLES
from leadml_pipelines.sources.synthetic import MAX_ROWS, generate
from leadml_pipelines.sources.synthetic.world import CHUNK
from leadml_pipelines.sources.validation import validate
from leadml_pipelines.times import NaiveTimeError
from leadml_pipelines_tests.sources.funnel_data import (
    END,
    LEADS,
    batches,
    converted,
    digest,
    first_leads,
    tables,
)


def _inbound() -> pd.DataFrame:
    events = tables()["lead_events"]
    return events[events["direction"] == "inbound"]


def test_the_same_arguments_give_the_same_rows_whatever_the_hash_seed() -> None:
    other = subprocess.run(
        [sys.executable, "-c", f"from {digest.__module__} import digest; print(digest())"],
        env={**os.environ, "PYTHONHASHSEED": "12345"},
        capture_output=True,
        check=True,
        text=True,
    )
    assert other.stdout.strip() == digest()


def test_another_seed_gives_other_rows() -> None:
    one, other = (
        pd.concat([b.frame for b in generate(50, seed=s, end=END) if b.table == "lead_events"])
        for s in (1, 2)
    )
    assert not one.equals(other)


def test_dirt_does_not_change_the_clean_rows() -> None:
    dirty = [b.frame for b in batches() if b.table == "policies"]
    pd.testing.assert_frame_equal(pd.concat(dirty, ignore_index=True), tables()["policies"])


@pytest.mark.parametrize("table", CONTRACT_TABLES)
def test_every_table_has_the_columns_of_the_contract(table: str) -> None:
    assert tuple(tables()[table].columns) == TABLES[table].names


@pytest.mark.parametrize("table", CONTRACT_TABLES)
def test_times_are_utc_microseconds(table: str) -> None:
    frame = tables()[table]
    assert {str(frame[name].dtype) for name in TABLES[table].times} == {"datetime64[us, UTC]"}


@pytest.mark.parametrize("table", CONTRACT_TABLES)
def test_clean_rows_pass_the_checks_of_the_door(table: str) -> None:
    assert not len(validate(table, tables()[table]).faults)


@pytest.mark.parametrize("table", [t for t in CONTRACT_TABLES if t != "leads"])
def test_keys_are_unique(table: str) -> None:
    assert not tables()[table].duplicated(list(TABLES[table].key)).any()


def test_every_lead_asked_for_is_there_once_as_it_came_in() -> None:
    assert len(first_leads()) == LEADS


def test_a_lead_comes_before_everything_that_names_it() -> None:
    known: set[str] = set()
    for batch in batches():
        if batch.table == "leads":
            known.update(batch.frame["lead_id"])
        elif not batch.frame.dtypes.eq(object).all():
            for column in TABLES[batch.table].leads:
                assert set(batch.frame[column]) <= known


def test_no_event_happens_before_its_lead_exists() -> None:
    events = tables()["lead_events"]
    assert (events["occurred_at"] >= events["lead_id"].map(first_leads()["created_at"])).all()


@pytest.mark.parametrize("table", CONTRACT_TABLES)
def test_nothing_is_at_or_after_the_end(table: str) -> None:
    for name in TABLES[table].times:
        assert not (tables()[table][name] >= END).any()


def test_a_closed_lead_does_nothing_any_more() -> None:
    closed = tables()["closures"].set_index("lead_id")["closed_at"]
    events = tables()["lead_events"]
    assert not (events["occurred_at"] > events["lead_id"].map(closed)).any()


def test_a_lead_is_closed_at_most_once() -> None:
    assert tables()["closures"]["lead_id"].is_unique


def test_an_assignment_ends_when_the_next_one_begins() -> None:
    frame = tables()["assignments"].sort_values(["lead_id", "assigned_at"])
    handed = frame["lead_id"].eq(frame["lead_id"].shift(-1))
    assert handed.sum() > 50
    ends, begins = frame["ended_at"][handed], frame["assigned_at"].shift(-1)[handed]
    assert (ends == begins).all()


def test_a_lead_has_about_twenty_events() -> None:
    assert 17 <= len(tables()["lead_events"]) / LEADS <= 24


def test_about_an_eighth_of_the_leads_bind_a_policy() -> None:
    assert 0.10 <= converted().mean() <= 0.155


def test_the_last_two_months_bring_as_many_leads_as_any() -> None:
    created = first_leads()["created_at"]
    age = (END - created) // timedelta(days=60)
    counts = age.value_counts()
    assert counts[0] > 0.75 * counts.mean()


def test_agents_rest_on_sundays() -> None:
    calls = tables()["lead_events"].query("event_type == 'call_attempt'")
    local = calls["occurred_at"].dt.tz_convert("America/New_York")
    by_day = local.dt.day_of_week.value_counts()
    assert by_day[6] < 0.25 * by_day[1]


def test_agents_work_in_the_hours_of_the_leads_state() -> None:
    calls = tables()["lead_events"].query("event_type == 'call_attempt'")
    state = calls["lead_id"].map(first_leads()["state"])
    created = calls["lead_id"].map(first_leads()["created_at"])
    later = calls["occurred_at"] - created > timedelta(days=1)
    for code, zone in (("CA", "America/Los_Angeles"), ("NY", "America/New_York")):
        hour = calls.loc[later & (state == code), "occurred_at"].dt.tz_convert(zone).dt.hour
        assert len(hour) > 300
        assert hour.between(7, 19).all()


def test_health_is_asked_for_most_around_the_turn_of_the_year() -> None:
    leads = first_leads()
    winter = leads["created_at"].dt.month.isin([12, 1])
    summer = leads["created_at"].dt.month.isin([6, 7])
    health = leads["product_interest"].eq("health")
    assert health[winter].mean() > 1.5 * health[summer].mean()


def test_referrals_are_worth_more_than_social_media() -> None:
    bound = converted()
    source = first_leads()["source"].reindex(bound.index)
    rate = bound.groupby(source).mean()
    assert rate["referral"] > rate["web"] > rate["social"]


def test_campaigns_differ_within_a_source() -> None:
    worth = first_leads().groupby("campaign_id")["campaign_worth"].first()
    assert worth.groupby(worth.index.str.rsplit("_", n=1).str[0]).std().mean() > 0.1


def test_conversations_with_skilled_agents_are_followed_by_more_activity() -> None:
    calls = tables()["lead_events"].query("event_type == 'call_connected'").copy()
    calls["skill"] = calls["lead_id"].map(first_leads()["agent_skill"])
    inbound = _inbound()[["lead_id", "occurred_at"]]
    after = calls[["event_id", "lead_id", "occurred_at", "skill"]].merge(
        inbound, on="lead_id", suffixes=("", "_next")
    )
    gap = after["occurred_at_next"] - after["occurred_at"]
    soon = after[(gap > timedelta(hours=12)) & (gap < timedelta(days=8))]
    followed = soon.groupby("event_id").size().reindex(calls["event_id"], fill_value=0).to_numpy()
    middle = calls["skill"].median()
    good, poor = (calls["skill"] > middle).to_numpy(), (calls["skill"] <= middle).to_numpy()
    assert followed[good].mean() > 1.1 * followed[poor].mean()


def test_agents_mostly_get_leads_of_their_specialty() -> None:
    first = tables()["assignments"].drop_duplicates("lead_id")
    specialty = first["agent_id"].map(tables()["agents"].set_index("agent_id")["specialty"])
    product = first["lead_id"].map(first_leads()["product_interest"])
    told = product.notna()
    assert (specialty[told] == product[told]).mean() > 0.5


def test_no_agent_is_assigned_before_being_hired() -> None:
    hired = tables()["agents"].set_index("agent_id")["hired_at"]
    frame = tables()["assignments"]
    assert (frame["assigned_at"] >= frame["agent_id"].map(hired)).all()


def test_better_leads_refer_better_leads() -> None:
    pairs, quality = tables()["referrals"], first_leads()["quality"]
    one, other = pairs["from_lead_id"].map(quality), pairs["to_lead_id"].map(quality)
    assert len(pairs) > 300
    assert np.corrcoef(one, other)[0, 1] > 0.35


def test_a_household_shares_state_and_hidden_quality() -> None:
    leads = first_leads().dropna(subset=["household_id"])
    shared = leads[leads["household_id"].duplicated(keep=False)].groupby("household_id")
    assert shared.ngroups > 200
    assert (shared["state"].nunique() == 1).all()
    within = shared["hidden"].std().pow(2).mean() ** 0.5
    assert within < 0.75 * leads["hidden"].std()


def test_the_activity_of_unsold_leads_decays() -> None:
    unsold = converted()[lambda sold: ~sold].index
    inbound = _inbound()
    inbound = inbound[inbound["lead_id"].isin(unsold)]
    week = (inbound["occurred_at"] - inbound["lead_id"].map(first_leads()["created_at"])).dt.days
    counts = (week // 7).value_counts()
    assert counts[0] > 1.5 * counts[1] > 1.5 * counts[4]


def test_some_events_arrive_hours_or_days_late_and_most_at_once() -> None:
    events = tables()["lead_events"]
    lag = events["ingested_at"] - events["occurred_at"]
    assert (lag >= timedelta(0)).all()
    assert (lag < timedelta(minutes=2)).mean() > 0.85
    assert 0.02 < (lag > timedelta(hours=1)).mean() < 0.12
    assert (lag > timedelta(days=1)).sum() > 50


def test_email_events_come_late_in_six_hourly_batches() -> None:
    events = tables()["lead_events"].query("channel == 'email'")
    lag = events["ingested_at"] - events["occurred_at"]
    late = events[(lag > timedelta(minutes=10)) & (lag < timedelta(hours=6))]
    after = late["ingested_at"] - late["ingested_at"].dt.floor("6h")
    assert (after < timedelta(minutes=5)).mean() > 0.9


def test_premiums_follow_the_product_and_the_quote() -> None:
    policies = tables()["policies"]
    median = policies.groupby("product")["annual_premium"].median()
    assert median["health"] > median["home"] > median["life"]
    quotes = tables()["lead_events"].query("event_type == 'quote_sent'").set_index("lead_id")
    first = policies.drop_duplicates("lead_id").set_index("lead_id")["annual_premium"]
    both = quotes.join(first, how="inner")
    assert (both["value"] == both["annual_premium"]).all()


def test_customers_who_cancel_have_called_more_in_the_month_before() -> None:
    policies = tables()["policies"].drop_duplicates("lead_id").set_index("lead_id")
    calls = tables()["lead_events"].query("event_type == 'call_inbound'")
    ended = policies["cancelled_at"].dropna()
    assert len(ended) > 30
    before = calls["lead_id"].map(ended)
    gap = before - calls["occurred_at"]
    month = gap.between(timedelta(0), timedelta(days=30)).sum() / len(ended)
    staying = policies[policies["cancelled_at"].isna()]["bound_at"]
    since = calls["occurred_at"] - calls["lead_id"].map(staying)
    months = ((END - staying) / timedelta(days=30)).sum()
    usual = (since > timedelta(0)).sum() / months
    assert month > 2 * usual


def test_some_leads_complete_their_attributes_later() -> None:
    leads = tables()["leads"]
    later = leads[leads["updated_at"] > leads["created_at"]].set_index("lead_id")
    assert 0.02 < len(later) / LEADS < 0.15
    first = first_leads()["attributes"].reindex(later.index)
    assert (later["attributes"].str.len() > first.str.len()).mean() > 0.7


@lru_cache(maxsize=1)
def _two_chunks() -> tuple[list[tuple[str, int]], pd.DataFrame]:
    """Table and size of each batch, and the referrals, of a funnel of a bit over one chunk."""
    sizes, referrals = [], []
    for batch in generate(CHUNK + 500, end=END, days=30):
        sizes.append((batch.table, len(batch.frame)))
        if batch.table == "referrals":
            referrals.append(batch.frame)
    return sizes, pd.concat(referrals)


def test_no_batch_is_larger_than_the_limit() -> None:
    assert max(rows for _, rows in _two_chunks()[0]) == MAX_ROWS


def test_a_chunk_is_finished_before_the_next_one_begins() -> None:
    sizes = _two_chunks()[0]
    first = next(i for i, (table, _) in enumerate(sizes) if table == "policies")
    assert [rows for table, rows in sizes[:first] if table == "leads"] == [CHUNK]


def test_leads_of_a_later_chunk_know_leads_of_an_earlier_one() -> None:
    pairs = _two_chunks()[1]
    number = pairs[["from_lead_id", "to_lead_id"]].map(lambda i: int(i[5:]))
    assert ((number["from_lead_id"] < CHUNK) & (number["to_lead_id"] >= CHUNK)).any()


def test_what_is_done_grows_to_all_leads() -> None:
    done = [batch.done for batch in batches()]
    assert all(a <= b for a, b in pairwise(done))
    assert done[-1] == LEADS


def test_dirt_holds_every_kind_of_fault_that_a_row_can_show_by_itself() -> None:
    found: Counter[str] = Counter()
    for batch in batches():
        found.update(fault.reason for _, fault in validate(batch.table, batch.frame).faults)
    assert set(found) == {
        faults.NAIVE_TIME,
        faults.WRONG_TYPE,
        faults.UNKNOWN_DIRECTION,
        faults.MISSING_KEY,
        faults.END_BEFORE_START,
    }


@pytest.mark.parametrize(("leads", "days"), [(1, 7), (1, 540), (40, 7)])
def test_the_smallest_funnels_work(leads: int, days: int) -> None:
    made = [b.frame for b in generate(leads, end=END, days=days) if b.table == "leads"]
    assert len(made[0]) == leads


def test_an_end_within_a_day_is_kept_to() -> None:
    end = END + timedelta(hours=15, minutes=20)
    events = pd.concat(
        b.frame for b in generate(200, end=end, dirt=False) if b.table == "lead_events"
    )
    assert events["ingested_at"].max() < end
    assert events["ingested_at"].max() > end - timedelta(days=1)


def test_a_naive_end_is_refused() -> None:
    with pytest.raises(NaiveTimeError):
        generate(10, end=datetime(2026, 1, 1))


def test_no_leads_at_all_are_refused() -> None:
    with pytest.raises(ValueError, match="leads is 0"):
        generate(0, end=END)
