"""The bytes of a packed value: golden vector, round trips, and what is refused."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leadml_pipelines.online.batch import Batch
from leadml_pipelines.online.format import (
    Field,
    FormatError,
    Schema,
    decode,
    encode,
    invalidation,
    python_values,
    recode,
)

SCHEMA = Schema(
    "lead",
    (
        Field("quality_score", "double", "points", owner="growth"),
        Field("inbound_count_30d", "integer", "events"),
        Field("is_open", "boolean"),
        Field("stage", "category", "", ("closed", "customer", "open")),
    ),
)
AS_OF = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z
COMPUTED_AT = 1_767_225_601_500_000
VALUES = np.array([[85.5, 3.0, 1.0, np.nan]])
GOLDEN = (
    "01000000dc229738"  # version, flags, reserved, schema id
    "0040204648470600"  # as_of
    "6023374648470600"  # computed_at
    "0000000000605540"  # 85.5
    "0000000000000840"  # 3
    "000000000000f03f"  # true
    "000000000000f87f"  # missing
)

micros = st.integers(0, 2**53 - 1)


def _find(*schemas: Schema):
    return {schema.schema_id: schema for schema in schemas}.get


def test_bytes_are_the_golden_ones() -> None:
    assert encode(SCHEMA, AS_OF, COMPUTED_AT, VALUES)[0].hex() == GOLDEN


def test_documented_bytes_are_the_golden_ones() -> None:
    page = Path(__file__).parents[2] / "docs" / "redis-format.md"
    text = page.read_text(encoding="utf-8")
    assert GOLDEN in "".join(text.split())
    assert SCHEMA.document.decode() in text
    assert str(SCHEMA.schema_id) in text


def test_golden_bytes_read_as_python_values() -> None:
    rows = decode([bytes.fromhex(GOLDEN)], ["leadml:lead:x"], _find(SCHEMA))
    batch = Batch(("x",), tuple(rows))
    assert batch.python_rows() == [
        {"quality_score": 85.5, "inbound_count_30d": 3, "is_open": True, "stage": None}
    ]
    assert batch.as_of().tolist() == [AS_OF]


def test_schema_id_is_the_first_four_bytes_of_the_hash() -> None:
    import hashlib

    head = encode(SCHEMA, AS_OF, COMPUTED_AT, VALUES)[0][4:8]
    assert head == hashlib.sha256(SCHEMA.document).digest()[:4]


def test_schema_survives_its_document() -> None:
    assert Schema.from_document(SCHEMA.document) == SCHEMA


def test_document_of_another_version_is_refused() -> None:
    document = SCHEMA.document.replace(b'"format":1', b'"format":2')
    with pytest.raises(FormatError, match="format version 2"):
        Schema.from_document(document)


def test_text_that_is_no_schema_is_refused() -> None:
    with pytest.raises(FormatError, match="not a schema document"):
        Schema.from_document(b"[1, 2]")


def test_two_features_with_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two features named age"):
        Schema("lead", (Field("age", "double"), Field("age", "integer")))


@given(
    st.lists(
        st.tuples(
            st.lists(st.floats(width=64, allow_nan=True), min_size=3, max_size=3), micros, micros
        ),
        min_size=1,
        max_size=20,
    )
)
@settings(deadline=None, max_examples=60)
def test_every_matrix_survives_bit_for_bit(rows: list[tuple[list[float], int, int]]) -> None:
    schema = Schema("lead", tuple(Field(f"f{i}", "double") for i in range(3)))
    values = np.array([row[0] for row in rows])
    as_of, computed_at = (np.array([row[i] for row in rows], np.int64) for i in (1, 2))
    payloads = encode(schema, as_of, computed_at, values)
    (group,) = decode(payloads, [f"k{i}" for i in range(len(rows))], _find(schema))
    assert group.values.tobytes() == values.tobytes()
    assert group.as_of.tolist() == as_of.tolist()
    assert group.computed_at.tolist() == computed_at.tolist()


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_python_values_survive_by_type(data: st.DataObject) -> None:
    words = tuple(data.draw(st.lists(st.text(max_size=8), unique=True, min_size=1, max_size=5)))
    cases = {
        "double": st.floats(allow_nan=False),
        "integer": st.integers(-(2**53), 2**53),
        "boolean": st.booleans(),
        "category": st.sampled_from(words),
    }
    for kind, values in cases.items():
        field = Field("f", kind, vocabulary=words if kind == "category" else ())  # type: ignore[arg-type]
        expected = data.draw(st.lists(st.none() | values, max_size=8))
        column = np.array(
            [
                np.nan if v is None else float(words.index(v)) if kind == "category" else float(v)
                for v in expected
            ],
            np.float64,
        )
        found = python_values(field, column)
        assert found == expected
        assert [type(v) for v in found] == [type(v) for v in expected]


def test_integer_is_no_float_and_boolean_is_no_number() -> None:
    assert repr(python_values(Field("n", "integer"), np.array([2.0, np.nan]))) == "[2, None]"
    assert repr(python_values(Field("b", "boolean"), np.array([1.0, 0.0]))) == "[True, False]"


def test_code_without_a_word_is_refused() -> None:
    with pytest.raises(FormatError, match="stage has a code outside"):
        python_values(SCHEMA.fields[3], np.array([3.0]))


def test_a_value_with_a_code_without_a_word_names_the_key() -> None:
    good, bad = encode(SCHEMA, 1, 1, np.array([[1.0, 1.0, 1.0, 2.0], [1.0, 1.0, 1.0, 3.0]]))
    with pytest.raises(FormatError, match="leadml:lead:bad has a code without a word"):
        decode([good, bad], ["leadml:lead:good", "leadml:lead:bad"], _find(SCHEMA))


def test_values_with_codes_without_a_word_are_broken_and_those_beside_them_are_not() -> None:
    values = np.array([[1.0, 1.0, 1.0, code] for code in (-1.0, np.nan, 2.0, 3.0)])
    broken: list[int] = []
    (rows,) = decode(
        encode(SCHEMA, 1, 1, values),
        list("abcd"),
        _find(SCHEMA),
        lambda position, error: broken.append(position),
    )
    assert broken == [0, 3]
    assert rows.positions.tolist() == [1, 2]
    np.testing.assert_array_equal(rows.values, values[1:3])


@pytest.mark.parametrize(
    "change",
    [
        {"type": "text"},
        {"type": "double", "vocabulary": ["a"]},
        {"type": "category", "vocabulary": ["a", "a"]},
        {"name": "inbound_count_30d"},
    ],
)
def test_a_document_that_makes_no_schema_is_refused(change: dict[str, Any]) -> None:
    content = json.loads(SCHEMA.document)
    content["features"][0] |= change
    with pytest.raises(FormatError, match="not a schema document"):
        Schema.from_document(json.dumps(content).encode())


def test_rows_of_two_schemas_come_back_in_their_places() -> None:
    older = Schema("lead", (Field("quality_score", "double"),))
    mixed = [
        encode(older, 1, 1, np.array([[1.0]]))[0],
        None,
        encode(SCHEMA, 2, 2, VALUES)[0],
        encode(older, 3, 3, np.array([[3.0]]))[0],
    ]
    batch = Batch(tuple("abcd"), tuple(decode(mixed, list("abcd"), _find(SCHEMA, older))))
    assert batch.missing() == [1]
    assert batch.as_of().tolist() == [1, 0, 2, 3]
    column = batch.matrix(["quality_score"])[:, 0]
    assert column.tolist()[0::2] == [1.0, 85.5]
    assert np.isnan(column[1])
    assert column[3] == 3.0


def test_categories_are_recoded_to_the_asked_vocabulary() -> None:
    codes = recode(np.array([0.0, 2.0, np.nan]), ("closed", "customer", "open"), ("open", "closed"))
    assert codes.tolist()[:2] == [1.0, 0.0]
    assert np.isnan(codes[2])


def test_unknown_word_is_missing_in_the_asked_vocabulary() -> None:
    assert np.isnan(recode(np.array([1.0]), ("a", "b"), ("a",))).all()


def test_invalidated_key_counts_as_missing() -> None:
    assert decode([invalidation(AS_OF)], ["leadml:lead:x"], _find(SCHEMA)) == []


def test_unknown_format_version_names_the_key() -> None:
    payload = b"\x02" + bytes.fromhex(GOLDEN)[1:]
    with pytest.raises(FormatError, match="leadml:lead:x holds format version 2"):
        decode([payload], ["leadml:lead:x"], _find(SCHEMA))


def test_unknown_schema_names_the_key() -> None:
    with pytest.raises(FormatError, match=f"leadml:lead:x is of schema {SCHEMA.schema_id}"):
        decode([bytes.fromhex(GOLDEN)], ["leadml:lead:x"], _find())


@pytest.mark.parametrize("length", [0, 3, 8, 23, 24, 55])
def test_truncated_value_names_the_key_among_good_ones(length: int) -> None:
    good = bytes.fromhex(GOLDEN)
    with pytest.raises(FormatError, match="leadml:lead:bad holds"):
        decode([good, good[:length]], ["leadml:lead:good", "leadml:lead:bad"], _find(SCHEMA))


def test_value_of_twice_the_size_is_not_taken_for_two() -> None:
    good = bytes.fromhex(GOLDEN)
    with pytest.raises(FormatError, match="leadml:lead:long holds 112 bytes"):
        decode([good + good], ["leadml:lead:long"], _find(SCHEMA))


def test_matrix_of_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match="has 4 features"):
        encode(SCHEMA, 1, 1, np.zeros((1, 3)))


def test_header_is_little_endian_everywhere() -> None:
    version, flags, reserved, _, as_of, computed_at = struct.unpack(
        "<BBHIqq", bytes.fromhex(GOLDEN)[:24]
    )
    assert (version, flags, reserved, as_of, computed_at) == (1, 0, 0, AS_OF, COMPUTED_AT)
