from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from leadml_pipelines.settings import MissingSettingError, Settings, settings_table

DOCS = Path(__file__).parent.parent / "docs"


@pytest.fixture(autouse=True)
def _no_settings_of_this_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in os.environ:
        if name.startswith("LEADML_"):
            monkeypatch.delenv(name)


def test_the_environment_wins_over_the_home_folders_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "leadml.toml").write_text('clock = "data"\nseed = 3\n')
    monkeypatch.setenv("LEADML_HOME", str(tmp_path))
    monkeypatch.setenv("LEADML_SEED", "5")
    settings = Settings()
    assert (settings.clock, settings.seed) == ("data", 5)


def test_durations_of_a_model_are_read_from_the_file(tmp_path: Path) -> None:
    (tmp_path / "leadml.toml").write_text(
        '[models.conversion]\nhorizon = "14d"\nages = ["1h", "24h"]\n'
    )
    changes = Settings(home=tmp_path).models["conversion"]
    assert changes.horizon == timedelta(days=14)
    assert changes.ages == (timedelta(hours=1), timedelta(hours=24))


def test_an_unknown_setting_in_the_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "leadml.toml").write_text("colour = 1\n")
    with pytest.raises(ValidationError, match="colour"):
        Settings(home=tmp_path)


def test_printing_the_settings_shows_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEADML_POSTGRES_URL", "postgresql://leadml:hunter2@db/leadml")
    monkeypatch.setenv("LEADML_NEO4J_PASSWORD", "hunter2")
    settings = Settings()
    assert "hunter2" not in f"{settings} {settings!r} {settings.model_dump_json()}"
    assert settings.require_postgres() == "postgresql://leadml:hunter2@db/leadml"


def test_a_misspelt_setting_is_named_and_its_password_is_not_shown(tmp_path: Path) -> None:
    text = 'postgres_ulr = "postgresql://u:hunter2@h/db"\n[models.churn]\nhorizn = "hunter2"\n'
    (tmp_path / "leadml.toml").write_text(text)
    with pytest.raises(ValidationError, match="postgres_ulr") as raised:
        Settings(home=tmp_path)
    assert "horizn" in str(raised.value)
    assert "hunter2" not in str(raised.value)


def test_a_missing_address_says_which_variable_and_the_way_out() -> None:
    with pytest.raises(MissingSettingError, match=r"LEADML_REDIS_URL is not set.*leadml up"):
        Settings().require_redis()


def test_a_schema_name_that_could_carry_sql_is_refused() -> None:
    with pytest.raises(ValidationError, match="crm_schema"):
        Settings(crm_schema='crm"; drop table x; --')


def test_the_table_in_the_docs_is_the_table_of_the_code() -> None:
    assert settings_table() in (DOCS / "settings.md").read_text(encoding="utf-8")
