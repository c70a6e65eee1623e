from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leadml_pipelines.online import keys


@pytest.mark.parametrize("entity_id", ["1", "a b", "ä:ö:ü", "x" * 256, "🦊", "{slot}", "*?[a]"])
def test_any_characters_may_be_in_an_id(entity_id: str) -> None:
    assert keys.entity_keys("lead", [entity_id]) == [f"leadml:lead:{entity_id}"]
    assert keys.is_allowed_id(entity_id)


@pytest.mark.parametrize(
    ("entity_id", "reason"),
    [
        ("", "number 2 is empty"),
        ("x" * 257, "257 characters; 256 is the limit"),
        ("a\nb", "control character"),
        ("a\x00", "control character"),
        ("a\x7f", "control character"),
        ("\ud800", "control character"),
    ],
)
def test_id_that_can_be_no_key_is_refused_by_its_place(entity_id: str, reason: str) -> None:
    with pytest.raises(keys.EntityIdError, match=f"lead id .*{reason}"):
        keys.entity_keys("lead", ["good", entity_id])
    assert not keys.is_allowed_id(entity_id)


@pytest.mark.parametrize("entity_type", ["", "Lead", "lead:x", "schema", "model", "snapshot", "9"])
def test_entity_type_that_could_be_mistaken_is_refused(entity_type: str) -> None:
    with pytest.raises(keys.EntityTypeError, match="is no entity type"):
        keys.entity_keys(entity_type, ["1"])


@pytest.mark.parametrize(("name", "role"), [("churn:x", "champion"), ("churn", "Champion")])
def test_model_key_of_a_strange_name_is_refused(name: str, role: str) -> None:
    with pytest.raises(ValueError, match="use lower-case letters"):
        keys.model_key(name, role)


@given(st.lists(st.text(max_size=20), max_size=5))
@settings(deadline=None, max_examples=100)
def test_batch_and_single_check_agree(ids: list[str]) -> None:
    try:
        keys.entity_keys("lead", ids)
        accepted = True
    except keys.EntityIdError:
        accepted = False
    assert accepted == all(keys.is_allowed_id(entity_id) for entity_id in ids)
