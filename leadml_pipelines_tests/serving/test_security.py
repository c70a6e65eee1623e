"""API keys, the address, and the command."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from leadml_pipelines.serving.__main__ import main
from leadml_pipelines.serving.app import create_app
from leadml_pipelines.serving.security import (
    UnsafeAddressError,
    is_loopback,
    key_digests,
    require_safe_address,
)
from leadml_pipelines.settings import Settings
from leadml_pipelines_tests.serving.artifacts import KEY as SIGNING_KEY
from leadml_pipelines_tests.serving.conftest import World, serve, wait_for

KEY = "correct horse battery staple"
DIGEST = hashlib.sha256(KEY.encode()).hexdigest()
BODY = {"entity_ids": ["lead_0"]}
PATH = "/api/v1/features/batch"
BOUND_SECONDS = 8


@pytest.fixture(scope="module")
def world(kept_world: World) -> World:
    return kept_world


@pytest.fixture(scope="module")
def guarded(world: World) -> Iterator[httpx.Client]:
    digests = f"{'0' * 64}, {DIGEST.upper()}"
    with serve(world.settings.model_copy(update={"api_keys_sha256": digests})) as client:
        yield client


@pytest.mark.parametrize("headers", [{}, {"X-API-Key": "wrong"}, {"X-API-Key": DIGEST}])
def test_without_a_known_key_nothing_is_told(
    guarded: httpx.Client, headers: dict[str, str]
) -> None:
    response = guarded.post(PATH, json=BODY, headers=headers)
    assert response.status_code == 401
    assert response.json()["error"]["code"] == "unauthorized"


def test_every_route_that_is_described_needs_a_key(world: World, guarded: httpx.Client) -> None:
    described = create_app(world.settings).openapi()["paths"]
    assert len(described) >= 8
    for path, methods in described.items():
        for method in methods:
            asked = re.sub(r"{[^}]*}", "x", path)
            response = guarded.request(method.upper(), asked, json={})
            assert response.status_code == 401, (method, path)


def test_each_known_key_is_let_in(guarded: httpx.Client) -> None:
    response = guarded.post(PATH, json=BODY, headers={"X-API-Key": KEY})
    assert response.status_code == 200


def test_health_for_the_orchestrator_needs_no_key(guarded: httpx.Client) -> None:
    assert [guarded.get(p).status_code for p in ("/healthz", "/readyz", "/metrics")] == [200] * 3


def test_strange_digest_is_refused_without_showing_it() -> None:
    settings = Settings(api_keys_sha256=f"{DIGEST},oops-a-plain-key")
    with pytest.raises(ValueError, match="entry 2 of LEADML_API_KEYS_SHA256") as raised:
        key_digests(settings)
    assert "oops" not in str(raised.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_needs_no_key(host: str) -> None:
    assert is_loopback(host)
    require_safe_address(Settings(http_host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "leadml.example", ""])  # noqa: S104
def test_other_addresses_need_a_key(host: str) -> None:
    with pytest.raises(UnsafeAddressError, match="LEADML_API_KEYS_SHA256"):
        require_safe_address(Settings(http_host=host))
    require_safe_address(Settings(http_host=host, api_keys_sha256=DIGEST))


@contextmanager
def _command(world: World, log: Path, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """The command, whose errors go to a file: a pipe would stay open as long as its children."""
    settings = world.settings
    environment = {
        **os.environ,
        "LEADML_HOME": str(settings.home),
        "LEADML_REDIS_URL": settings.require_redis(),
        "LEADML_POSTGRES_URL": settings.require_postgres(),
        "LEADML_SIGNING_KEY": SIGNING_KEY,
        "LEADML_ARTIFACTS_URL": settings.artifacts,
        **variables,
    }
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "leadml_pipelines.serving"], env=environment, stderr=errors
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def test_command_refuses_an_open_address_without_keys(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LEADML_HTTP_HOST", "0.0.0.0")  # noqa: S104
    assert main() == 2
    assert "0.0.0.0, which other machines can reach" in capsys.readouterr().err


def test_command_names_a_misspelt_setting_and_shows_no_password(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "leadml.toml").write_text('postgres_ulr = "postgresql://u:hunter2@h/db"\n')
    monkeypatch.setenv("LEADML_HOME", str(tmp_path))
    assert main() == 2
    written = capsys.readouterr().err
    assert "postgres_ulr" in written
    assert "hunter2" not in written


def test_command_serves_until_it_is_told_to_end(world: World, tmp_path: Path) -> None:
    log = tmp_path / "errors.log"
    with _command(world, log, LEADML_HTTP_PORT="0") as process:
        found = wait_for(
            lambda: re.search(r"running on (http://\S+)", log.read_text(encoding="utf-8")),
            seconds=60,
        )
        with httpx.Client(base_url=found[1], trust_env=False, timeout=30) as client:
            wait_for(lambda: client.get("/readyz").status_code == 200, seconds=60)
            assert client.get("/api/v1/ml/health").json()["status"] == "ok"
    assert process.returncode in (0, -signal.SIGTERM)
    written = log.read_text(encoding="utf-8")
    assert "Traceback" not in written
    assert KEY not in written
    assert SIGNING_KEY not in written


def test_command_ends_soon_though_it_was_just_started(world: World, tmp_path: Path) -> None:
    log = tmp_path / "errors.log"
    with _command(world, log, LEADML_HTTP_PORT="0") as process:
        found = wait_for(
            lambda: re.search(r"running on (http://\S+)", log.read_text(encoding="utf-8")),
            seconds=60,
        )
        with httpx.Client(base_url=found[1], trust_env=False, timeout=30) as client:
            # What follows is imported and compiled for seconds.
            wait_for(lambda: client.get("/readyz").status_code == 200, seconds=60)
        told = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        # Two or three seconds, and room for a machine that does much else.
        assert time.monotonic() - told < BOUND_SECONDS
    assert "Traceback" not in log.read_text(encoding="utf-8")


def test_app_imports_nothing_heavy_before_it_listens() -> None:
    heavy = ["pandas", "xgboost", "sklearn", "duckdb", "sqlframe", "pyarrow", "dagster", "scipy"]
    code = (
        "import sys, leadml_pipelines.serving.__main__, leadml_pipelines.serving.app; "
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert found.stdout.strip() == "[]"
