"""`leadml features training-set` and `training-sets`, as a user runs them."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from leadml_pipelines_tests.end_to_end.commands import leadml
from leadml_pipelines_tests.features.world import NOW, World

CSV = """entity_id,as_of,label,note
007,2026-04-12T11:30:15.123457+02:00,1,x
007,2026-04-10T00:00:00Z,0,
NA,2026-04-12T09:30:15.123457+00:00,,"a, b"
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with an extract in which lead 007 opened a page two hours ago."""
    home = tmp_path / "home"
    folder = home / "extracts" / "20260412T093015000000Z"
    world = World().lead("007", NOW - timedelta(days=9)).event("007", NOW - timedelta(hours=2))
    paths = world.parquet(folder)
    manifest = {
        "extract_id": folder.name,
        "as_of": NOW.isoformat(),
        "data_end": NOW.isoformat(),
        "rows": dict.fromkeys(paths, 0),
        "left_out": {},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return home


def test_a_csv_becomes_a_training_set_that_is_saved_and_listed(home: Path, tmp_path: Path) -> None:
    (tmp_path / "spine.csv").write_text(CSV, encoding="utf-8")
    given = ("--spine", tmp_path / "spine.csv", "--features", "inbound_count_7d, source")
    output = tmp_path / "out" / "set.parquet"
    done = leadml(
        *("features", "training-set", "--home", home, *given, "--label", "label"),
        *("--output", output, "--name", "mine"),
    )
    assert done.returncode == 0, done.stderr
    assert "3 rows, 2 features" in done.stdout
    rows = pd.read_parquet(output)
    assert rows["entity_id"].tolist() == ["007", "007", "NA"]
    assert rows["as_of"].tolist()[0] == NOW
    assert rows["label"].tolist() == [1, 0, pd.NA]
    assert rows["inbound_count_7d"].tolist() == [1, 0, 0]
    listed = leadml("features", "training-sets", "--home", home)
    assert listed.returncode == 0, listed.stderr
    assert "mine" in listed.stdout
    assert "20260412T093015000000Z"[:8] in listed.stdout


def test_times_of_any_zone_in_a_parquet_spine_are_utc_in_the_csv_of_the_result(
    home: Path, tmp_path: Path
) -> None:
    frame = pd.DataFrame({"lead": ["007"], "at": pd.Series([NOW]).dt.tz_convert("Asia/Tokyo")})
    frame.to_parquet(tmp_path / "spine.parquet")
    output = tmp_path / "set.csv"
    done = leadml(
        *("features", "training-set", "--home", home, "--spine", tmp_path / "spine.parquet"),
        *("--features", "source", "--key", "lead=lead", "--time", "at", "--output", output),
    )
    assert done.returncode == 0, done.stderr
    assert output.read_text(encoding="utf-8").splitlines() == [
        "lead,at,source",
        "007,2026-04-12T09:30:15.123457+00:00,web",
    ]


def test_without_a_saved_set_the_list_says_so(tmp_path: Path) -> None:
    done = leadml("features", "training-sets", "--home", tmp_path / "home")
    assert (done.returncode, done.stdout.strip()) == (0, "no training set was saved yet")


@pytest.mark.parametrize(
    ("spine", "more", "sentence"),
    [
        ("entity_id,as_of\n1,2026-01-01T00:00:00\n", (), "line 2 of"),
        ("entity_id,as_of\n1,2026-13-01T00:00:00Z\n", (), "as_of holds what is no time"),
        ("entity_id,when\n1,2026-01-01T00:00:00Z\n", (), "has no column as_of; it has entity_id"),
        (CSV, ("--features", "sourse"), "no feature named sourse; did you mean source?"),
        (CSV, ("--label", "lable"), "exactly one column lable, and has none; did you mean label"),
        (CSV, ("--output", "{tmp}/spine.csv"), "spine.csv is there already; name another file"),
        (CSV, ("--output", "{tmp}/set.txt"), "set.txt is neither .csv nor .parquet"),
        (CSV.replace("2026-04-10", "2027-04-10"), (), "1 of 3 rows of the spine lie after"),
    ],
)
def test_what_a_user_can_mend_is_a_sentence_and_nothing_is_written(
    home: Path, tmp_path: Path, spine: str, more: tuple[str, ...], sentence: str
) -> None:
    (tmp_path / "spine.csv").write_text(spine, encoding="utf-8")
    done = leadml(
        *("features", "training-set", "--home", home, "--spine", tmp_path / "spine.csv"),
        *("--features", "source", "--output", tmp_path / "set.parquet"),
        *(word.format(tmp=tmp_path) for word in more),
    )
    assert done.returncode == 1, done.stdout
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "set.parquet").exists()
    assert (tmp_path / "spine.csv").read_text(encoding="utf-8") == spine


def test_a_home_without_an_extract_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "spine.csv").write_text(CSV, encoding="utf-8")
    done = leadml(
        *("features", "training-set", "--home", tmp_path / "home"),
        *("--spine", tmp_path / "spine.csv", "--features", "source"),
        *("--output", tmp_path / "set.csv"),
    )
    assert done.returncode == 1
    assert "materialize the sources first" in done.stderr


def test_the_examples_of_the_page_about_training_sets_run(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = Path(__file__).parents[2] / "docs" / "training-sets.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LEADML_HOME", str(home))
    spine = pd.DataFrame({"entity_id": ["007"], "as_of": pd.Series([NOW]), "converted": [1]})
    spine.to_parquet("spine.parquet")
    scored = pd.Series([NOW - timedelta(days=1)])
    pd.DataFrame(
        {"entity_id": ["007"], "scored_at": scored, "received_at": scored, "score": [640]}
    ).to_parquet("credit_scores.parquet")
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)  # noqa: S102
    assert names["x"]["inbound_count_7d"].tolist() == [1]
    assert names["y"].tolist() == [1]
    assert names["saved"].rows == 1
    assert names["rows"]["score"].tolist() == [640]
