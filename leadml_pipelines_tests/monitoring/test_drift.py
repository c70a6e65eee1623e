"""PSI and KS: against scipy, and on planted changes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from leadml_pipelines.learning.encoding import Column
from leadml_pipelines.monitoring.drift import (
    ColumnDrift,
    DriftLimits,
    column_drifts,
    ks_distance,
)

NUMBERS = st.lists(
    st.floats(-1e6, 1e6, allow_subnormal=False) | st.integers(-3, 3).map(float), min_size=2
)
MAYBE = st.lists(st.none() | st.floats(allow_nan=False), min_size=1, max_size=60)
COLUMNS = (
    Column("size", "double"),
    Column("count", "integer"),
    Column("open", "boolean"),
    Column("source", "category"),
)


def population(rows: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "size": np.where(rng.random(rows) < 0.1, np.nan, rng.normal(size=rows)),
            "count": pd.Series(rng.poisson(0.4, rows)).astype("Int64"),
            "open": pd.Series(rng.random(rows) < 0.7).astype("boolean"),
            "source": rng.choice(["web", "partner", "event"], rows),
        }
    )


def one(before: list[float | None], now: list[float | None]) -> ColumnDrift:
    frames = [pd.DataFrame({"x": pd.Series(side, dtype="float64")}) for side in (before, now)]
    (found,) = column_drifts(*frames, [Column("x", "double")], DriftLimits())
    return found


def drifted(before: pd.DataFrame, now: pd.DataFrame) -> list[str]:
    return [d.name for d in column_drifts(before, now, COLUMNS, DriftLimits()) if d.drifted]


@given(NUMBERS, NUMBERS)
def test_ks_is_that_of_scipy(before: list[float], now: list[float]) -> None:
    expected = ks_2samp(before, now, method="asymp").statistic
    found = ks_distance(np.sort(np.array(before)), np.sort(np.array(now)))
    assert found == pytest.approx(expected, abs=1e-12)


@given(MAYBE, st.randoms())
def test_equal_samples_have_no_distance(values: list[float | None], random: object) -> None:
    shuffled = list(values)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    found = one(values, shuffled)
    assert (found.psi, found.ks or 0.0, found.drifted) == (0.0, 0.0, False)


@given(MAYBE, MAYBE)
def test_psi_is_finite_and_never_negative(
    before: list[float | None], now: list[float | None]
) -> None:
    assert 0 <= one(before, now).psi < 30


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_the_further_the_shift_the_greater_psi_and_ks(seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=2_000)
    found = [one(list(values), list(values + shift)) for shift in (0.0, 0.3, 0.6, 1.2)]
    assert [d.psi for d in found] == sorted({d.psi for d in found})
    assert [d.ks for d in found] == sorted({d.ks or 0.0 for d in found})
    assert [d.drifted for d in found] == [False, False, True, True]


def test_two_samples_of_one_population_have_hardly_ever_drifted() -> None:
    """From the least number of rows on that is compared by default."""
    alarms = [drifted(population(2_000, 2 * n), population(200, 2 * n + 1)) for n in range(100)]
    assert sum(bool(names) for names in alarms) <= 3


@pytest.mark.parametrize("name", ["size", "count", "open", "source"])
def test_a_change_in_one_column_is_found_there_and_nowhere_else(name: str) -> None:
    before, now = population(5_000, 1), population(500, 2)
    if name == "source":
        now[name] = now[name].replace("web", "a word nobody knew")
    elif name == "open":
        now[name] = ~now[name]
    else:
        now[name] = now[name] + 1
    assert drifted(before, now) == [name]


def test_missing_values_are_a_bin_of_their_own() -> None:
    before, now = population(5_000, 1), population(500, 2)
    now.loc[:150, "size"] = np.nan
    assert drifted(before, now) == ["size"]
    (found, *_) = column_drifts(before, now, COLUMNS, DriftLimits())
    assert found.missing_before == pytest.approx(0.1, abs=0.02)
    assert found.missing_now > 0.3
    assert found.ks is not None
    assert found.ks < 0.1


def test_a_column_that_is_missing_altogether_has_drifted() -> None:
    before, now = population(5_000, 1), population(500, 2)
    now["size"] = np.nan
    now["source"] = None
    assert sorted(drifted(before, now)) == ["size", "source"]


def test_a_column_that_broke_to_a_constant_has_drifted() -> None:
    before, now = population(5_000, 1), population(500, 2)
    now["size"] = 0.0
    assert drifted(before, now) == ["size"]


def test_a_value_below_the_only_one_there_was_is_seen() -> None:
    assert one([0.0] * 500, [-1.0] * 500).drifted


def test_what_is_equal_for_all_rows_of_one_moment_is_usual_where_each_day_was_so() -> None:
    """As the age of the graph: any age over many days, one age today."""
    rng = np.random.default_rng(3)
    days = np.repeat(np.arange(60), 100)
    age = (days % 7) + rng.random(6_000) * 0.01
    before = pd.DataFrame({"age": age, "size": rng.normal(size=6_000)})
    now = pd.DataFrame({"age": np.full(300, 3.005), "size": rng.normal(size=300)})
    columns = [Column("age", "double"), Column("size", "double")]
    blind = column_drifts(before, now, columns, DriftLimits())
    assert [d.name for d in blind if d.drifted] == ["age"]
    seeing = column_drifts(before, now, columns, DriftLimits(), days.astype(np.int64))
    assert [d.name for d in seeing if d.drifted] == []
    now["size"] += 1
    moved = column_drifts(before, now, columns, DriftLimits(), days.astype(np.int64))
    assert [d.name for d in moved if d.drifted] == ["size"]


def test_the_limits_are_those_that_are_given() -> None:
    before, now = population(5_000, 1), population(5_000, 2)
    now["size"] += 0.3
    assert drifted(before, now) == []
    strict = column_drifts(before, now, COLUMNS, DriftLimits(psi=0.02))
    assert [d.name for d in strict if d.drifted] == ["size"]


def test_an_empty_side_is_refused() -> None:
    with pytest.raises(ValueError, match="has no row"):
        column_drifts(population(0, 1), population(5, 1), COLUMNS, DriftLimits())
