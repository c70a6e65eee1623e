"""Alerts begin, go on and end; and what of them is news."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from leadml_pipelines.monitoring.alert_state import (
    JudgingError,
    firing_alerts,
    judging,
    last_judged,
    note_told,
    record_judgements,
    telling,
    untold_alerts,
)
from leadml_pipelines.monitoring.alerts import Judgement
from leadml_pipelines.postgres import connect

NOW = datetime(2026, 4, 12, 5, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def _no_alerts(postgres_url: str) -> Iterator[None]:
    yield
    with connect(postgres_url) as connection:
        connection.execute("TRUNCATE leadml.alerts, leadml.alert_runs")


def stale(value: float = 0.2, *, firing: bool = True, severity: str = "warning") -> Judgement:
    sentence = f"{value:.0%} are stale"
    return Judgement("stale_share", "serving", firing, sentence, value, 0.05, severity)  # type: ignore[arg-type]


def drift(*columns: str) -> Judgement:
    return Judgement("drift", "churn", True, "moved", 1.0, 0.0, "critical", columns)


def test_an_alert_keeps_its_beginning_and_tells_its_newest_number(postgres_url: str) -> None:
    record_judgements(postgres_url, [stale(0.2)], NOW)
    (alert,) = record_judgements(postgres_url, [stale(0.3)], NOW + HOUR)
    assert (alert.since, alert.judged_at, alert.value) == (NOW, NOW + HOUR, 0.3)
    assert firing_alerts(postgres_url) == [alert]


def test_what_to_do_names_the_model(postgres_url: str) -> None:
    (alert,) = record_judgements(postgres_url, [drift("age")], NOW)
    assert "the asset churn_drift" in alert.what_to_do


def test_the_worst_alert_comes_first(postgres_url: str) -> None:
    record_judgements(postgres_url, [stale()], NOW)
    alerts = record_judgements(postgres_url, [stale(), drift("age")], NOW + HOUR)
    assert [alert.rule for alert in alerts] == ["drift", "stale_share"]


@pytest.mark.parametrize("after", [[stale(firing=False)], []])
def test_an_alert_that_does_not_fire_any_more_has_ended(
    postgres_url: str, after: list[Judgement]
) -> None:
    record_judgements(postgres_url, [stale()], NOW)
    assert record_judgements(postgres_url, after, NOW + HOUR) == []
    (again,) = record_judgements(postgres_url, [stale()], NOW + 2 * HOUR)
    assert again.since == NOW + 2 * HOUR


UNKNOWN = Judgement("stale_share", "serving", False, "serving: not enough yet: 3 predictions")


def test_an_alert_that_can_not_be_judged_stays_open_and_says_so(postgres_url: str) -> None:
    record_judgements(postgres_url, [stale(0.2)], NOW)
    (alert,) = record_judgements(postgres_url, [UNKNOWN], NOW + HOUR)
    assert (alert.since, alert.judged_at, alert.value) == (NOW, NOW, 0.2)
    assert alert.not_judged == UNKNOWN.sentence
    assert alert.words == "20% are stale (not judged since 2026-04-12 05:30 UTC)"
    (alert,) = record_judgements(postgres_url, [stale(0.3)], NOW + 2 * HOUR)
    assert (alert.since, alert.not_judged, alert.words) == (NOW, None, "30% are stale")
    record_judgements(postgres_url, [UNKNOWN], NOW + 3 * HOUR)
    assert record_judgements(postgres_url, [stale(firing=False)], NOW + 4 * HOUR) == []


def test_a_rule_that_can_not_be_judged_begins_no_alert(postgres_url: str) -> None:
    assert record_judgements(postgres_url, [UNKNOWN], NOW) == []


def test_the_time_of_the_last_judgement_is_known_from_the_first_on(postgres_url: str) -> None:
    assert last_judged(postgres_url) is None
    record_judgements(postgres_url, [], NOW)
    record_judgements(postgres_url, [UNKNOWN], NOW + HOUR)
    assert last_judged(postgres_url) == NOW + HOUR


def news(url: str, judgements: list[Judgement], now: datetime) -> list[tuple[str, str]]:
    """What a webhook hears after these judgements."""
    record_judgements(url, judgements, now)
    alerts = untold_alerts(url, now)
    note_told(url, alerts, now)
    return [(alert.rule, str(alert.document()["status"])) for alert in alerts]


def test_an_alert_is_news_once_and_again_after_a_day(postgres_url: str) -> None:
    assert news(postgres_url, [stale()], NOW) == [("stale_share", "firing")]
    assert news(postgres_url, [stale(0.4)], NOW + HOUR) == []
    assert news(postgres_url, [stale()], NOW + 24 * HOUR) == [("stale_share", "firing")]


def test_an_alert_that_changed_is_news(postgres_url: str) -> None:
    assert news(postgres_url, [drift("age")], NOW) == [("drift", "firing")]
    assert news(postgres_url, [drift("age", "income")], NOW + HOUR) == [("drift", "firing")]
    assert news(postgres_url, [stale(), drift("age", "income")], NOW + HOUR) == [
        ("stale_share", "firing")
    ]
    assert news(postgres_url, [stale(severity="critical"), drift("age", "income")], NOW + HOUR) == [
        ("stale_share", "firing")
    ]


def test_the_end_of_an_alert_is_news_once_if_its_beginning_was(postgres_url: str) -> None:
    news(postgres_url, [stale()], NOW)
    assert news(postgres_url, [], NOW + HOUR) == [("stale_share", "resolved")]
    assert news(postgres_url, [], NOW + 2 * HOUR) == []
    record_judgements(postgres_url, [stale()], NOW + 3 * HOUR)
    assert news(postgres_url, [], NOW + 4 * HOUR) == []


def test_a_night_without_predictions_is_no_news_and_no_end(postgres_url: str) -> None:
    assert news(postgres_url, [stale()], NOW) == [("stale_share", "firing")]
    assert news(postgres_url, [UNKNOWN], NOW + HOUR) == []
    assert news(postgres_url, [UNKNOWN], NOW + 30 * HOUR) == []
    assert news(postgres_url, [stale()], NOW + 31 * HOUR) == [("stale_share", "firing")]
    assert news(postgres_url, [stale(firing=False)], NOW + 32 * HOUR) == [
        ("stale_share", "resolved")
    ]


def test_of_two_who_judge_at_once_one_waits_and_does_not_for_ever(postgres_url: str) -> None:
    with (
        judging(postgres_url),
        pytest.raises(JudgingError, match=r"has been judging the alert rules for 0\.1 s"),
        judging(postgres_url, seconds=0.1),
    ):
        pytest.fail("both judge")
    with judging(postgres_url, seconds=0.1):
        pass


def test_of_many_who_judge_and_tell_at_once_one_alert_is_made_and_told_once(
    postgres_url: str,
) -> None:
    def run(_: int) -> int:
        with judging(postgres_url):
            record_judgements(postgres_url, [stale()], NOW)
        with telling(postgres_url) as mine:
            if not mine:
                return 0
            alerts = untold_alerts(postgres_url, NOW)
            note_told(postgres_url, alerts, NOW)
            return len(alerts)

    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(run, range(16)))
    assert sum(told) == 1
    with connect(postgres_url) as connection:
        assert connection.execute("SELECT count(*) FROM leadml.alerts").fetchone() == (1,)


def test_only_one_tells_at_a_time(postgres_url: str) -> None:
    with telling(postgres_url) as first, telling(postgres_url) as second:
        assert (first, second) == (True, False)
    with telling(postgres_url) as third:
        assert third


def test_a_clock_that_was_ahead_and_put_back_neither_ends_nor_doubles_an_alert(
    postgres_url: str,
) -> None:
    assert news(postgres_url, [stale()], NOW + 24 * HOUR) == [("stale_share", "firing")]
    assert news(postgres_url, [stale()], NOW) == []
    (alert,) = firing_alerts(postgres_url)
    assert alert.judged_at == NOW
    assert news(postgres_url, [stale(firing=False)], NOW + HOUR) == [("stale_share", "resolved")]
    assert news(postgres_url, [stale(firing=False)], NOW + 25 * HOUR) == []
