from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from playwright.sync_api import sync_playwright

from leadml_pipelines.learning.specs import SPECS
from leadml_pipelines.services.stack import ServiceStack
from leadml_pipelines_tests.end_to_end.commands import leadml, processes_of
from leadml_pipelines_tests.end_to_end.conftest import Demo

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(600)]

LAUNCH = """
mutation Launch($job: String!) {
  launchRun(executionParams: {
    selector: {
      repositoryLocationName: "leadml", repositoryName: "__repository__", jobName: $job
    }
  }) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}
"""
STATUS = "query Status($run: ID!) { runOrError(runId: $run) { ... on Run { status } } }"

NEWEST_RUN = """{
  runsOrError(limit: 1) { ... on Runs { results { runId assetSelection { path } } } }
}"""
# Root may not use Chromium's sandbox, and a machine without the internet needs no updates.
CHROMIUM_OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@dataclass(frozen=True)
class Up:
    """A deployment that runs.

    Attributes:
        demo: The demonstration whose home it is.
        dagster: Address of Dagster's UI.
        http: Address of the HTTP app.
    """

    demo: Demo
    dagster: str
    http: str

    def graphql(self, query: str, **variables: Any) -> dict[str, Any]:
        """Ask Dagster."""
        answer = httpx.post(
            f"{self.dagster}/graphql",
            json={"query": query, "variables": variables},
            timeout=30,
            trust_env=False,
        )
        answer.raise_for_status()
        data: dict[str, Any] = answer.json()["data"]
        return data

    def champion(self, name: str) -> str:
        """The model that the HTTP app answers with."""
        health = httpx.get(f"{self.http}/api/v1/ml/health", timeout=10, trust_env=False).json()
        model_id: str = health["models"][name]["model_id"]
        return model_id

    def run(self, job: str) -> None:
        """Launch a job as its schedule does, and wait for its success."""
        launched = self.graphql(LAUNCH, job=job)["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        run = launched["run"]["runId"]
        wait_until(
            lambda: self.graphql(STATUS, run=run)["runOrError"]["status"] in {"SUCCESS", "FAILURE"},
            f"{job} has ended",
            seconds=240,
        )
        assert self.graphql(STATUS, run=run)["runOrError"]["status"] == "SUCCESS"


def wait_until(condition: Callable[[], bool], what: str, seconds: float) -> None:
    """Poll until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain until {what}"
        time.sleep(0.5)


@pytest.fixture(scope="module")
def up(demo: Demo) -> Iterator[Up]:
    """`leadml up` in the home of the demonstration; `leadml down` must stop all of it."""
    started = leadml("up", "--home", demo.home)
    try:
        assert started.returncode == 0, started.stdout + started.stderr
        addresses = {line.name: line.address for line in ServiceStack(demo.home).status()}
        assert len(processes_of(demo.home)) >= 6
        yield Up(demo, addresses["dagster-webserver"], addresses["http"])
    finally:
        down = leadml("down", "--home", demo.home)
    assert down.returncode == 0, down.stderr
    assert processes_of(demo.home) == []


def test_up_shows_the_whole_asset_graph(up: Up) -> None:
    nodes = up.graphql("{ assetNodes { assetKey { path } } }")["assetNodes"]
    names = {node["assetKey"]["path"][-1] for node in nodes}
    assert {"leads", "graph_metrics", "engineered_features", "churn_model"} <= names
    assert {"online_features", "online_models"} <= names


def test_schedules_and_sensors_run_without_anyone_starting_them(up: Up) -> None:
    query = """{
      schedulesOrError(repositorySelector: {
        repositoryLocationName: "leadml", repositoryName: "__repository__"
      }) { ... on Schedules { results { name scheduleState { status } } } }
      sensorsOrError(repositorySelector: {
        repositoryLocationName: "leadml", repositoryName: "__repository__"
      }) { ... on Sensors { results { name sensorState { status } } } }
    }"""
    answer = up.graphql(query)
    schedules = {
        s["name"]: s["scheduleState"]["status"] for s in answer["schedulesOrError"]["results"]
    }
    sensors = {s["name"]: s["sensorState"]["status"] for s in answer["sensorsOrError"]["results"]}
    names = (
        "every_day_history",
        "every_day_monitoring",
        "every_hour_alerts",
        "every_night_features",
        "every_night_retention",
        "every_night_training",
    )
    assert schedules == dict.fromkeys(names, "RUNNING")
    assert sensors["checked_snapshot_sensor"] == "RUNNING"
    assert sensors["promoted_model_sensor"] == "RUNNING"


def test_a_retrained_model_reaches_the_serving_app_with_nobody_touching_it(up: Up) -> None:
    wait_until(lambda: _answers(up, "churn"), "the app has loaded its models", seconds=30)
    before = up.champion("churn")
    # The night's search may take ten minutes a model; here it has the time of a test.
    settings = "".join(f"[models.{name}]\ntuning_trials = 2\n" for name in SPECS)
    (up.demo.home / "leadml.toml").write_text(settings, encoding="utf-8")
    up.run("nightly_training")
    wait_until(lambda: up.champion("churn") != before, "the new model serves", seconds=90)


def _answers(up: Up, name: str) -> bool:
    try:
        return bool(up.champion(name))
    except (KeyError, TypeError, httpx.HTTPError):
        return False


def test_status_lists_what_runs_without_a_password(up: Up) -> None:
    shown = leadml("status", "--home", up.demo.home).stdout
    for name in ("postgres", "redis", "graph", "dagster-webserver", "dagster-daemon", "http"):
        assert name in shown
    assert "@127.0.0.1" not in shown


@pytest.mark.browser
def test_materialize_all_of_the_job_everything_in_a_browser_runs_green(up: Up) -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no Chromium on the path; install Debian's package chromium")

    def newest() -> dict[str, Any]:
        return up.graphql(NEWEST_RUN)["runsOrError"]["results"][0]

    before = newest()["runId"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_OPTIONS)
        page = browser.new_page(viewport={"width": 1700, "height": 1000})
        page.goto(f"{up.dagster}/asset-groups")
        for group in ("sources", "graph", "features", "training", "models", "online"):
            page.get_by_text(group, exact=True).first.wait_for(timeout=60_000)
        page.goto(f"{up.dagster}/locations/leadml/jobs/everything")
        page.get_by_role("button", name="Materialize all").click()
        wait_until(lambda: newest()["runId"] != before, "the browser's run is launched", seconds=60)
        run = newest()
        assert len(run["assetSelection"]) >= 20
        page.goto(f"{up.dagster}/runs/{run['runId']}")
        page.get_by_text("Success", exact=True).first.wait_for(timeout=240_000)
        browser.close()
