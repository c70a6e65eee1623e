from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from leadml_pipelines_tests.end_to_end.commands import leadml, processes_of, start
from leadml_pipelines_tests.end_to_end.conftest import LEADS, Demo

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(600)]


def test_the_demo_does_the_main_job_and_exits_with_zero(demo: Demo) -> None:
    assert demo.returncode == 0, demo.output


def test_the_summary_counts_the_rows_and_the_dirt(demo: Demo) -> None:
    assert demo.summary["rows"]["leads"] == LEADS
    assert demo.summary["rows"]["lead_events"] > 5 * LEADS
    assert demo.summary["rows"]["quarantine"] > 0


def test_the_summary_has_at_least_thirty_features_over_the_four_views(demo: Demo) -> None:
    features = demo.summary["features"]
    assert {"profile", "engagement", "engineered", "graph"} <= set(features)
    assert sum(features.values()) >= 30


@pytest.mark.parametrize(
    ("model", "metric"),
    [("churn", "roc_auc"), ("conversion", "roc_auc"), ("lead_score", "gini")],
)
def test_each_model_is_better_than_the_heuristic_that_it_replaces(
    demo: Demo, model: str, metric: str
) -> None:
    result = demo.summary["models"][model]
    assert result["model_id"].startswith(model)
    assert result["seconds"] > 0
    assert result["metrics"][metric] > result["baseline"][metric]


def test_every_lead_and_every_model_is_published(demo: Demo) -> None:
    assert demo.summary["published"] == {"features": LEADS, "models": 3}


def test_the_latencies_that_were_seen_are_reported(demo: Demo) -> None:
    seen = demo.summary["latency_ms"]
    assert {"predict churn", "predict conversion", "predict lead_score"} <= set(seen)
    assert all(0 < times["p50"] <= times["p95"] for times in seen.values())


def test_what_was_served_is_what_the_offline_engine_computes(demo: Demo) -> None:
    assert demo.summary["audit"]["mismatches"] == 0
    assert demo.summary["audit"]["audited"] >= 100
    assert "served vectors audited, 0 mismatches" in demo.output


def test_the_demo_leaves_no_process_behind(demo: Demo) -> None:
    assert processes_of(demo.home) == []


def test_no_password_is_printed_or_logged(demo: Demo) -> None:
    passwords = json.loads((demo.home / "secrets.json").read_text(encoding="utf-8")).values()
    written = demo.output + "".join(
        path.read_text(encoding="utf-8", errors="replace")
        for path in (demo.home / "logs").glob("*.log")
    )
    assert len(list(passwords)) >= 3
    assert not [password for password in passwords if password in written]


def test_other_leads_in_the_same_home_are_refused_with_a_way_out(demo: Demo) -> None:
    done = leadml("demo", "--home", demo.home, "--leads", LEADS + 1)
    assert done.returncode == 1
    assert "another --home" in done.stderr
    assert "Traceback" not in done.stderr


def _servers_start(home: Path) -> bool:
    return (home / "state.json").exists()


def _assets_materialize(home: Path) -> bool:
    return any((home / "extracts").glob("*/manifest.json"))


@pytest.mark.parametrize("sign", [_servers_start, _assets_materialize])
def test_ctrl_c_leaves_no_process_and_the_next_demo_works(
    tmp_path: Path, sign: Callable[[Path], bool]
) -> None:
    home = tmp_path / "home"
    running = start("demo", "--home", home, "--leads", 1_000)
    deadline = time.monotonic() + 120
    while not sign(home):
        assert running.poll() is None, running.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.5)
    running.send_signal(signal.SIGINT)
    output, _ = running.communicate(timeout=60)
    assert running.returncode == 130, output
    assert "interrupted" in output
    assert processes_of(home) == []
    if sign is _assets_materialize:
        again = leadml("demo", "--home", home, "--leads", 1_000)
        assert again.returncode == 0, again.stdout + again.stderr
