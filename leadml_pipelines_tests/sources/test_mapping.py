from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from leadml_pipelines.settings import Settings
from leadml_pipelines.sources.mapping import Mapping, MappingError

WHOLE = """
[files.people]
path = "people*.csv"

[files.steps]
path = "steps*.csv"

[leads]
file = "people"
[leads.columns]
lead_id = "id"
created_at = "created"
source = { constant = "web" }

[lead_events]
file = "steps"
[lead_events.columns]
event_id = { template = "{id}:{n}" }
lead_id = "id"
occurred_at = "at"
[[lead_events.rules]]
when = { kind = "opened" }
event_type = "email_open"

[settings]
clock = "data"

[models.conversion]
horizon = "14d"
test_share = 0.2
ages = ["1h", "24h"]
"""


def read(tmp_path: Path, text: str) -> Mapping:
    path = tmp_path / "mapping.toml"
    path.write_text(text, encoding="utf-8")
    return Mapping.read(path)


def test_a_whole_mapping_is_read(tmp_path: Path) -> None:
    mapping = read(tmp_path, WHOLE)

    assert mapping.leads[0].columns["lead_id"].column == "id"
    assert mapping.lead_events[0].columns["event_id"].columns == ("id", "n")
    assert mapping.lead_events[0].rules[0].names() == ("email_open", "email", "inbound")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('file = "people"\n', 'file = "people"\ncolour = 1\n', "leads.*colour: there is no such"),
        (
            'file = "people"',
            'file = "persons"',
            r"reads file 'persons'; there are \[files\] people",
        ),
        ('lead_id = "id"\nc', 'id = "id"\nc', r"\[leads.columns\] has id; its columns are lead_id"),
        ('created_at = "created"\n', "", r"\[leads.columns\] lacks created_at"),
        ('"{id}:{n}"', '"id"', "must name columns"),
        ('"{id}:{n}"', '"{id:>5}"', "without formats"),
        ('{ constant = "web" }', '{ constant = "web", column = "x" }', "exactly one of"),
        ('{ constant = "web" }', '{ lead = "source" }', r"only \[won\] may"),
        ('event_type = "email_open"', 'event_type = "e"', "name its channel and direction"),
        ('event_type = "email_open"', 'channel = "e"', "names no event_type"),
        ('"email_open"', '"email_open"\noutcome = "won"', r"no \[won\] section"),
        ('occurred_at = "at"', 'occurred_at = "at"\nchannel = "c"', "but the rules say it"),
        ('path = "people*.csv"', 'path = "p"\ntime_zone = "Mars/Base"', "is not a time zone"),
        ('clock = "data"', 'clock = "sundial"', "Input should be 'now' or 'data'"),
        ('clock = "data"', 'home = "/tmp"', "home is not a setting a mapping may make"),
        ('horizon = "14d"', 'horizon = "soon"', "'soon' is not a duration"),
        ("[leads]", "[leads", "is not TOML"),
    ],
)
def test_a_fault_in_a_mapping_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in WHOLE

    with pytest.raises(MappingError, match=message):
        read(tmp_path, WHOLE.replace(old, new, 1))


def test_a_mapping_that_is_not_there_is_an_error_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(MappingError, match=r"missing\.toml can't be read"):
        Mapping.read(tmp_path / "missing.toml")


def test_the_settings_of_a_mapping_are_a_leadml_toml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mapping = read(tmp_path, WHOLE)
    monkeypatch.delenv("LEADML_CLOCK", raising=False)
    (tmp_path / "leadml.toml").write_text(mapping.settings_toml(), encoding="utf-8")

    settings = Settings(home=tmp_path)

    assert settings.clock == "data"
    assert settings.models["conversion"].model_dump(exclude_none=True).keys() == {
        "horizon",
        "test_share",
        "ages",
    }


def test_settings_texts_survive_quotes_and_backslashes(tmp_path: Path) -> None:
    odd = 'duckdb_memory_limit = "a\\"b\\\\c"'

    mapping = read(tmp_path, WHOLE.replace('clock = "data"', odd))

    assert tomllib.loads(mapping.settings_toml())["duckdb_memory_limit"] == 'a"b\\c'


def test_a_mapping_without_settings_makes_no_leadml_toml(tmp_path: Path) -> None:
    text = WHOLE[: WHOLE.index("[settings]")]

    assert read(tmp_path, text).settings_toml() == ""
