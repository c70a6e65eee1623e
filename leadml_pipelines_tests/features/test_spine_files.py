"""Spines from files and training sets to files; the command's tests hold the rest."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from leadml_pipelines.features.spine_files import read_spine, write_rows
from leadml_pipelines.times import NaiveTimeError


def csv(folder: Path, *times: str) -> Path:
    path = folder / "spine.csv"
    path.write_text("entity_id,as_of\n" + "".join(f"1,{time}\n" for time in times), "utf-8")
    return path


@pytest.mark.parametrize(
    "time",
    ["2026-01-31", "2026-01", "20260131", "2026-01-31 -05", "2026-01-31Z", "2026-01-31T09:30:00"],
)
def test_a_date_alone_or_a_time_without_a_zone_is_refused(tmp_path: Path, time: str) -> None:
    path = csv(tmp_path, "2026-01-01T00:00:00Z", time)
    with pytest.raises(NaiveTimeError, match=f"line 3 of .*: as_of is {time}, which is no time"):
        read_spine(path)


@pytest.mark.parametrize(
    "time",
    [
        "2026-01-31T09:30:00Z",
        "2026-01-31 09:30:00.000000 +00:00",
        "2026-01-31T10:30+01",
        "2026-01-31T05:30:00-0400",
        "20260131T093000Z",
    ],
)
def test_a_time_with_its_zone_is_read_in_utc(tmp_path: Path, time: str) -> None:
    read = read_spine(csv(tmp_path, time))["as_of"]
    assert read.tolist() == [datetime(2026, 1, 31, 9, 30, tzinfo=UTC)]


def test_only_times_with_a_zone_are_written_with_one(tmp_path: Path) -> None:
    moment = pd.Timestamp("2026-01-31T09:30:00.000001")
    frame = pd.DataFrame(
        {
            "as_of": pd.Series([moment, None]).dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo"),
            "local": [moment, None],
            "label": [1, 0],
        }
    )
    write_rows(tmp_path / "set.csv", frame)
    assert (tmp_path / "set.csv").read_text(encoding="utf-8").splitlines() == [
        "as_of,local,label",
        "2026-01-31T09:30:00.000001+00:00,2026-01-31 09:30:00.000001,1",
        ",,0",
    ]
