"""Numbers as people say them."""

from __future__ import annotations

import pytest

from leadml_pipelines.features.quantities import quantity, rounded


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0, "days", "less than a minute"),
        (1 / 1440, "days", "1 minute"),
        (0.999, "hours", "1 hour"),
        (1.5, "days", "36 hours"),
        (1.98, "days", "2 days"),
        (23.4, "days", "23 days"),
        (1300.0, "days", "3.6 years"),
        (0.354, "share", "35.4%"),
        (0.00031, "share", "0.031%"),
        (1.0, "ratio", "1.0 times"),
        (25_000.0, "currency", "25,000"),
        (40.5, "currency", "40.50"),
        (1210.4, "currency per year", "1,210 a year"),
        (1.0, "points", "1 point"),
        (82.44, "points", "82.4 points"),
        (1, "policies", "1 policy"),
        (2, "hand-overs", "2 hand-overs"),
        (1, "edges", "1 relation"),
        (0.4, "events per day", "2.8 events a week"),
        (3.0, "events per day", "3 events a day"),
    ],
)
def test_a_quantity_is_said_with_a_unit_that_fits(value: float, unit: str, text: str) -> None:
    assert quantity(value, unit) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.0421, "0.042"), (3.14159, "3.1"), (31.4159, "31.4"), (1e-9, "almost 0")],
)
def test_a_number_has_no_more_digits_than_one_reads(value: float, text: str) -> None:
    assert rounded(value) == text
