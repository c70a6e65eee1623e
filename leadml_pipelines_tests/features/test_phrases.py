"""Every feature can be spoken of, in English that a salesperson understands."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadml_pipelines.features.catalogue import catalogue
from leadml_pipelines.features.functions import Count, Diversity, Ratio, Recency, Total, Trend
from leadml_pipelines.features.phrase import Phrase, PhraseError
from leadml_pipelines.features.phrases import at_age, derived_phrase, phrase_of, sentence, spoken
from leadml_pipelines.features.view import Feature, Value
from leadml_pipelines_tests.features import sentences

LEAD = catalogue().features("lead")
ALL = [f for entity in catalogue().entities for f in catalogue().features(entity)]

_UNITS = {
    "days": r"minute|hour|day|year",
    "hours": r"minute|hour|day|year",
    "share": r"\d%",
    "ratio": r"\d times",
    "currency per year": r"\d a year",
    "points": r"point",
    "years": r"year",
    "hour": r"o'clock",
}


def check_grammar(text: str) -> None:
    """What every sentence keeps to."""
    assert re.match(r"[A-Z0-9]", text), text
    assert text.endswith("."), text
    assert text.count(".") == 1 + len(re.findall(r"\d\.\d", text)), text
    for wrong in ("_", "{", "}", "  ", " ,", ",,", " .", "None"):
        assert wrong not in text, text
    assert not re.search(r"\b(nan|inf|null|missing)\b", text, re.IGNORECASE), text
    # "1.0 times", but never "1 days".
    assert not re.search(r"(?<![\d.,])1 (?!times\b)\w+s\b(?<!ss)", text), text
    assert len(re.findall(r"\b(raises?|lowers?) the \w+\.$", text)) == 1, text


def check_verb(phrase: Phrase, value: Value, text: str) -> None:
    """A number of several things has a verb in the plural, anything else one in the singular."""
    several = bool(phrase.one) and value not in (None, 0, 1)
    assert bool(re.search(r"\b(raise|lower) the \w+\.$", text)) == several, text


def test_sentences_of_all_lead_features_keep_to_the_grammar() -> None:
    for feature, value, text in sentences.spoken():
        check_grammar(text)
        check_verb(phrase_of(feature), value, text)
    for age_days in (sentences.NEW, sentences.GROWN):
        for feature, value, text in sentences.spoken_at(age_days):
            check_grammar(text)
            check_verb(at_age(phrase_of(feature), age_days), value, text)


def test_no_window_is_longer_than_the_age_of_the_lead() -> None:
    for age_days in (sentences.NEW, sentences.GROWN):
        for feature in LEAD:
            for value in sentences.samples(feature):
                text = sentence(feature, value, raises=True, outcome="the risk", age_days=age_days)
                days = [int(found) for found in re.findall(r"the last (\d+) days?\b", text)]
                # A pace over two windows is spoken of from the age of the shorter one on.
                assert not days or min(days) <= age_days, text
                assert "in the last day" not in text or age_days >= 1, text


def test_a_number_is_said_with_its_unit() -> None:
    for feature, value, text in sentences.spoken():
        special = phrase_of(feature)
        if value is None or (value == 0 and special.none) or feature.unit not in _UNITS:
            continue
        assert re.search(_UNITS[feature.unit], text), f"{feature.name}: {text}"


def test_the_sentences_are_those_that_were_read_by_people() -> None:
    """After a change: write them anew (see `sentences.py`), read them, and keep the file."""
    assert sentences.page() == sentences.SNAPSHOT.read_text(encoding="utf-8")


def test_every_lead_feature_is_in_the_snapshot() -> None:
    page = sentences.SNAPSHOT.read_text(encoding="utf-8").partition("\n\n\n")[0]
    names = re.findall(r"^(\w+)$", page, re.MULTILINE)
    assert names == [feature.name for feature in LEAD]


def test_every_lead_feature_has_a_phrase_of_its_own() -> None:
    assert [feature.name for feature in LEAD if feature.phrase is None] == []


@given(st.sampled_from(ALL), st.data(), st.booleans())
def test_any_value_of_any_feature_makes_a_sentence(
    feature: Feature, data: st.DataObject, raises: bool
) -> None:
    numbers = st.floats(feature.low, feature.high, allow_nan=False, allow_infinity=False)
    value: Any = data.draw(
        {
            "double": numbers,
            "integer": st.integers(
                int(feature.low or 0), 10**9 if feature.high is None else int(feature.high)
            ),
            "boolean": st.booleans(),
            "category": st.text("abz_-", min_size=1),
        }[feature.type]
        | st.none()
    )
    text = sentence(feature, value, raises=raises, outcome="the risk")
    check_grammar(text)
    check_verb(phrase_of(feature), value, text)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None])
def test_what_is_no_number_is_spoken_of_as_missing(value: float | None) -> None:
    feature = catalogue().feature("days_since_last_inbound")
    text = sentence(feature, value, raises=True, outcome="the risk")
    assert text == "The lead has never given a sign of life, which raises the risk."


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("days_since_last_inbound", 23.4, "No sign of life for 23 days lowers the chance."),
        ("quote_request_count_30d", 3, "3 quote requests in the last 30 days lower the chance."),
        ("quote_request_count_30d", 1, "1 quote request in the last 30 days lowers the chance."),
        ("quote_request_count_30d", 0, "No quote request in the last 30 days lowers the chance."),
        ("quality_score", 82.0, "The CRM's own quality mark of 82 points lowers the chance."),
        ("source", "referral", "The lead came through a referral, which lowers the chance."),
        ("is_open", False, "The lead is not open, which lowers the chance."),
        ("created_weekday", 6, "The lead came on a Saturday, which lowers the chance."),
        (
            "first_outbound_delay_hours",
            -30.0,
            "Our first attempt to reach the lead, 30 hours before it came, lowers the chance.",
        ),
    ],
)
def test_sentences_read_like_this(name: str, value: Value, text: str) -> None:
    feature = catalogue().feature(name)
    assert sentence(feature, value, raises=False, outcome="the chance") == text


def test_a_function_of_unknown_events_speaks_of_their_type() -> None:
    count = Count(event_type="policy_review", window="12h").feature
    assert sentence(count, 2, raises=True, outcome="the risk") == (
        "2 events of type policy review in the last 12 hours raise the risk."
    )


@pytest.mark.parametrize(
    "function",
    [
        Count(channel="phone", direction="inbound"),
        Total(event_type=("a_b", "c_d"), window="1d"),
        Ratio(of="a_b", per="c_d", window="30d"),
        Recency(event_type="a_b"),
        Trend(event_type="a_b"),
        Diversity(direction="outbound", window="7d"),
    ],
)
def test_every_function_makes_sentences(function: Count) -> None:
    feature = function.feature
    for value in (None, 0.0, 0.5, 1.0, 30.0):
        check_grammar(sentence(feature, value, raises=True, outcome="the risk"))


@pytest.mark.parametrize("kind", ["double", "integer", "boolean", "category"])
def test_a_feature_without_a_phrase_is_spoken_of_by_its_name(kind: str) -> None:
    phrase = derived_phrase("note_count_7d", kind)
    values: dict[str, Value] = {"double": 2.5, "integer": 3, "boolean": True, "category": "a_b"}
    for value in (values[kind], None):
        text = spoken(phrase, "", value, raises=True, outcome="the risk")
        check_grammar(text)
        assert "note" in text
        assert "in the last 7 days" in text


@pytest.mark.parametrize("text", ["small letter", "Full stop.", "Space at the end "])
def test_a_phrase_that_makes_no_sentence_is_refused(text: str) -> None:
    with pytest.raises(PhraseError, match=re.escape(text)):
        Phrase(text)
