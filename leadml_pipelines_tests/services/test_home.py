from __future__ import annotations

import re
import socket
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from leadml_pipelines.services.errors import ServiceError, StartCancelledError
from leadml_pipelines.services.home import Home, free_port, port_is_free


def test_a_new_home_is_closed_to_other_users(home: Path) -> None:
    Home(home).create()
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_a_home_that_was_there_keeps_its_mode(home: Path) -> None:
    home.mkdir()
    home.chmod(0o750)
    Home(home).create()
    assert stat.S_IMODE(home.stat().st_mode) == 0o750


def test_only_the_owner_can_read_the_secrets(home: Path) -> None:
    Home(home).secret("redis")
    assert stat.S_IMODE((home / "secrets.json").stat().st_mode) == 0o600


def test_a_secret_stays_the_same(home: Path) -> None:
    assert Home(home).secret("redis") == Home(home).secret("redis")


def test_each_home_and_each_service_has_a_secret_of_its_own(tmp_path: Path) -> None:
    one, two = Home(tmp_path / "one"), Home(tmp_path / "two")
    assert len({one.secret("redis"), one.secret("graph"), two.secret("redis")}) == 3


def test_a_secret_needs_no_escaping_in_a_url(home: Path) -> None:
    assert re.fullmatch(r"[\w-]{32}", Home(home).secret("redis"))


def test_a_port_is_the_same_as_last_time(home: Path) -> None:
    assert Home(home).port("redis") == Home(home).port("redis")


def test_a_port_that_was_taken_meanwhile_is_replaced(home: Path) -> None:
    taken = Home(home).port("redis")
    with socket.create_server(("127.0.0.1", taken)):
        assert not port_is_free(taken)
        assert Home(home).port("redis") != taken


def test_a_free_port_is_free() -> None:
    assert port_is_free(free_port())


def test_a_lock_lets_one_in_at_a_time(home: Path) -> None:
    cancelled = threading.Event()
    cancelled.set()
    with (
        Home(home).lock("redis"),
        pytest.raises(StartCancelledError, match="redis"),
        Home(home).lock("redis", cancelled),
    ):
        pytest.fail("the lock was given twice")


def test_locks_of_different_names_do_not_meet(home: Path) -> None:
    with Home(home).lock("redis"), Home(home).lock("graph"):
        pass


def test_changes_of_the_state_at_the_same_time_are_all_kept(home: Path) -> None:
    def count(state: dict[str, Any]) -> None:
        state["count"] = state.get("count", 0) + 1

    threads = [
        threading.Thread(target=lambda: [Home(home).update_state(count) for _ in range(10)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Home(home).state() == {"count": 40}


def test_a_change_that_fails_leaves_the_state_as_it_was(home: Path) -> None:
    Home(home).update_state(lambda state: state.update(count=1))

    def fail(state: dict[str, Any]) -> None:
        state["count"] = object()  # JSON can't hold it.

    with pytest.raises(TypeError):
        Home(home).update_state(fail)
    assert Home(home).state() == {"count": 1}
    assert sorted(path.name for path in home.iterdir()) == ["locks", "logs", "state.json"]


def test_a_state_that_is_not_json_is_named(home: Path) -> None:
    Home(home).create()
    (home / "state.json").write_text("{")
    with pytest.raises(ServiceError, match=re.escape(str(home / "state.json"))):
        Home(home).state()


def test_a_long_log_is_put_aside(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leadml_pipelines.services.home._LOG_LIMIT", 3)
    Home(home).create()
    log = Home(home).log("redis")
    log.write_text("old lines")
    with open(Home(home).open_log("redis"), "w", encoding="utf-8") as file:
        file.write("new")
    assert log.read_text() == "new"
    assert log.with_suffix(".log.old").read_text() == "old lines"
