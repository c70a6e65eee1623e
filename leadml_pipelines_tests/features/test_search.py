from __future__ import annotations

from datetime import timedelta

from leadml_pipelines.features.entries import Entry
from leadml_pipelines.features.lineage import Lineage, SourceColumn
from leadml_pipelines.features.search import near_names, search


def entry(name: str, description: str) -> Entry:
    return Entry(
        name, "lead", "v", "double", "", None, None, None, description, "fit", "team:x",
        timedelta(hours=1), None,
    )  # fmt: skip


ENTRIES = [
    entry("reply_count", "Replies to an email that was open."),
    entry("email_open_rate", "Share of messages."),
    entry("email_open", "Whether one was read."),
    entry("premium", "What is paid per year."),
]
LINEAGES = {
    one.name: Lineage((SourceColumn("policies", "bound_at"),), (), (), ())
    if one.name == "premium"
    else Lineage((SourceColumn("lead_events", "event_type"),), (), (), ())
    for one in ENTRIES
}


def names(text: str) -> list[str]:
    return [one.name for one in search(text, ENTRIES, LINEAGES)]


def test_a_whole_name_comes_before_its_parts_and_these_before_prose() -> None:
    assert names("email open") == ["email_open", "email_open_rate", "reply_count"]


def test_every_word_must_be_found() -> None:
    assert names("email premium") == []


def test_a_source_column_finds_what_comes_from_it() -> None:
    assert names("policies.bound_at") == ["premium"]
    assert names("Lead_Events.event_type") == ["reply_count", "email_open_rate", "email_open"]


def test_nothing_is_found_of_nothing() -> None:
    assert names("  ... ") == []


def test_near_names_are_those_with_a_word_alike() -> None:
    known = [one.name for one in ENTRIES]
    assert near_names("emial_open_rate", known)[0] == "email_open_rate"
    assert near_names("premum paid", known) == ["premium"]
    assert near_names("zzz", known) == []
