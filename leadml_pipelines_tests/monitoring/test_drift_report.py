"""The page that is kept: made apart, and without a word to anybody."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from leadml_pipelines.monitoring.drift import DriftLimits, column_drifts
from leadml_pipelines.monitoring.drift_report import (
    ReportError,
    remove_old_reports,
    write_report,
)
from leadml_pipelines.monitoring.populations import Populations
from leadml_pipelines_tests.monitoring.watched import LEARNED, TODAY, leads


def sides(**changes: str) -> Populations:
    """Two populations, of which `quality_score` has moved."""
    before, now = leads(800, 1), leads(400, 2)
    now["quality_score"] += 40
    return Populations(
        "churn_1",
        before.rename(columns=changes),
        np.zeros(len(before), np.int64),
        now.rename(columns=changes),
        tuple(type(c)(changes.get(c.name, c.name), c.type) for c in LEARNED),
        TODAY,
    )


def test_the_page_names_what_moved_and_needs_no_server(tmp_path: Path) -> None:
    """The process that makes it fails at the first connection that anything tries."""
    both = sides(state="a <b> state")
    drifts = column_drifts(both.reference, both.current, both.columns, DriftLimits())
    page = write_report(tmp_path, "churn", both, drifts, DriftLimits(), "one has moved & so on")
    assert page == tmp_path / "drift" / "churn" / "20260301T020000Z-snapshot.html"
    text = page.read_text(encoding="utf-8")
    assert "churn: churn_1 and the 400 of the snapshot of 2026-03-01 02:00 UTC" in text
    assert "one has moved &amp; so on" in text
    assert "a &lt;b&gt; state" in text
    assert '<tr class="moved"><td>quality_score</td>' in text
    assert text.count('class="moved"') == 1
    assert "Drift is detected for 20" in text
    assert "Dataset Drift is detected" in text
    assert [path.name for path in page.parent.iterdir()] == [page.name]


ATTEMPTS = """
import os, socket, subprocess, warnings
warnings.simplefilter("ignore")
from leadml_pipelines.monitoring import drift_page
drift_page._give_pandas_the_name_that_evidently_asks_for()
drift_page.stay_inside()
from evidently.telemetry import event_logger
for attempt in (
    lambda: socket.create_connection(("127.0.0.1", 9)),
    lambda: socket.getaddrinfo("example.org", 80),
    lambda: subprocess.Popen(["true"]),
    lambda: os.posix_spawn("/bin/true", ["true"], {}),
    lambda: os.system("true"),
    lambda: event_logger.send_event("a", "b"),
):
    try:
        attempt()
    except drift_page.ConnectionRefusedHereError:
        print("refused")
"""


def test_the_process_that_makes_the_page_can_reach_nobody() -> None:
    """Evidently's statistics too, were they not switched off by the variables as well."""
    done = subprocess.run(
        [sys.executable, "-c", ATTEMPTS],
        env={name: value for name, value in os.environ.items() if "DO_NOT_TRACK" not in name},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.split() == ["refused"] * 6


def test_a_report_that_fails_says_why(tmp_path: Path) -> None:
    both = sides()
    with pytest.raises(ReportError, match="ZeroDivisionError"):
        write_report(tmp_path, "churn", both, [], DriftLimits(), "")
    assert list((tmp_path / "drift" / "churn").iterdir()) == []


def test_old_reports_go_and_the_newest_stays(tmp_path: Path) -> None:
    folder = tmp_path / "drift" / "churn"
    folder.mkdir(parents=True)
    now = datetime(2026, 4, 1, tzinfo=UTC)
    for days, population in ((40, "snapshot"), (30, "served"), (25, "served"), (20, "snapshot")):
        path = folder / f"{days}-{population}.html"
        path.touch()
        moment = (now - timedelta(days=days)).timestamp()
        os.utime(path, (moment, moment))
    assert remove_old_reports(tmp_path, "churn", 14, now) == 2
    left = sorted(path.name for path in folder.iterdir())
    assert left == ["20-snapshot.html", "25-served.html"]
    assert remove_old_reports(tmp_path, "nobody", 14, now) == 0
