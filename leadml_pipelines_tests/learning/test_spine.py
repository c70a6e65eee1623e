from __future__ import annotations

from datetime import datetime, timedelta

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leadml_pipelines.learning.spine import build_spine
from leadml_pipelines_tests.learning.frames import DAY, START, BareEngine, spec_for

END = START + 100 * DAY


@pytest.fixture
def engine() -> BareEngine:
    return BareEngine()


def _moments(engine: BareEngine, end: datetime = END, **changes: object) -> pd.DataFrame:
    return build_spine(spec_for(**changes), engine, end).frame


def test_ages_make_rows_at_exactly_that_age(engine: BareEngine) -> None:
    engine.add("leads", ("a", START))
    frame = _moments(engine, every=None)
    assert frame["as_of"].tolist() == [START + timedelta(hours=1), START + DAY]
    assert frame["moment"].tolist() == ["1h", "24h"]
    assert frame["created_at"].tolist() == [START, START]


def test_times_come_back_in_utc_with_microseconds(engine: BareEngine) -> None:
    engine.add("leads", ("a", START + timedelta(microseconds=7)))
    frame = _moments(engine, every=None)
    assert str(frame["as_of"].dtype) == "datetime64[us, UTC]"
    assert frame["as_of"].iloc[0] == START + timedelta(hours=1, microseconds=7)


def test_the_calendar_of_one_lead_is_evenly_spaced_and_starts_within_the_first_step(
    engine: BareEngine,
) -> None:
    engine.add("leads", ("a", START))
    times = _moments(engine, ages=())["as_of"]
    assert START <= times.iloc[0] < START + 7 * DAY
    assert set(times.diff().dropna()) == {pd.Timedelta(days=7)}
    assert len(times) in (11, 12)


def test_calendars_of_different_leads_fall_on_different_weekdays(engine: BareEngine) -> None:
    engine.add("leads", *((f"lead_{n}", START) for n in range(60)))
    times = _moments(engine, ages=())["as_of"]
    assert times.dt.day_of_week.nunique() == 7
    assert times.dt.hour.nunique() > 12


def test_a_closed_lead_makes_no_row_from_the_moment_it_was_closed(engine: BareEngine) -> None:
    engine.add("leads", ("a", START))
    engine.add("closures", ("a", START + DAY, "lost"))
    assert _moments(engine, every=None)["moment"].tolist() == ["1h"]


def test_a_customer_is_no_open_lead_while_the_policy_is_active(engine: BareEngine) -> None:
    engine.add("leads", ("a", START))
    engine.add("policies", ("p", "a", 100, START + timedelta(hours=2), START + 50 * DAY))
    assert _moments(engine, every=None)["moment"].tolist() == ["1h"]
    customer = _moments(engine, every=None, candidates="customer")
    assert customer["moment"].tolist() == ["24h"]
    alive = _moments(engine, every=None, candidates="alive")
    assert alive["moment"].tolist() == ["1h", "24h"]


def test_a_lead_whose_policy_was_cancelled_is_open_again(engine: BareEngine) -> None:
    engine.add("leads", ("a", START))
    engine.add("policies", ("p", "a", 100, START, START + timedelta(hours=20)))
    assert _moments(engine, every=None)["moment"].tolist() == ["24h"]


def test_moments_whose_label_is_not_known_yet_are_counted_and_left_out(engine: BareEngine) -> None:
    engine.add("leads", ("a", START), ("b", END - 20 * DAY - timedelta(hours=2)))
    spine = build_spine(spec_for(every=None), engine, END)
    assert (spine.candidates, spine.unknown) == (4, 1)
    assert (spine.frame["as_of"] + pd.Timedelta(days=20) <= pd.Timestamp(END)).all()


def test_the_label_of_the_very_last_moment_is_known(engine: BareEngine) -> None:
    engine.add("leads", ("a", END - 20 * DAY - timedelta(hours=1)))
    assert build_spine(spec_for(every=None), engine, END).frame["moment"].tolist() == ["1h"]


def test_sampling_takes_the_same_rows_each_time_and_counts_the_others(engine: BareEngine) -> None:
    engine.add("leads", *((f"lead_{n}", START + n * timedelta(hours=7)) for n in range(40)))
    first = build_spine(spec_for(max_rows=25), engine, END)
    again = build_spine(spec_for(max_rows=25), engine, END)
    assert len(first.frame) == 25
    assert first.sampled_out == first.candidates - first.unknown - 25
    pd.testing.assert_frame_equal(first.frame, again.frame)
    assert first.frame["as_of"].is_monotonic_increasing


def test_a_funnel_without_leads_has_an_empty_spine(engine: BareEngine) -> None:
    spine = build_spine(spec_for(), engine, END)
    assert spine.frame.empty
    assert spine.frame["as_of"].dtype == "datetime64[us, UTC]"


@settings(max_examples=15, deadline=None)
@given(
    closed=st.integers(0, 100 * 86_400), cut=st.integers(1, 99), bound=st.integers(0, 100 * 86_400)
)
def test_what_happens_after_a_moment_does_not_decide_whether_it_is_a_row(
    closed: int, cut: int, bound: int
) -> None:
    """Everything after a cut is forgotten; the rows before the cut must stay the same."""
    moment = START + cut * DAY
    whole, past = BareEngine(), BareEngine()
    closed_at, bound_at = START + timedelta(seconds=closed), START + timedelta(seconds=bound)
    for engine in (whole, past):
        engine.add("leads", ("a", START), ("b", START + 3 * DAY))
        if engine is whole or closed_at <= moment:
            engine.add("closures", ("a", closed_at, "lost"))
        if engine is whole or bound_at <= moment:
            engine.add("policies", ("p", "b", 100, bound_at, None))
    frames = [build_spine(spec_for(), engine, END + 50 * DAY).frame for engine in (whole, past)]
    before = [f[f["as_of"] <= pd.Timestamp(moment)].reset_index(drop=True) for f in frames]
    pd.testing.assert_frame_equal(*before)
