"""The packed value: how one entity's features look in Redis (`docs/redis-format.md`).

A value is a 24-byte header and one little-endian float64 per feature, in the order of a schema that
the header names. Missing is NaN; a category is the code of its word in the schema's vocabulary. A
batch that shares a schema is one NumPy view over the bytes as they came from Redis: nothing here
touches a value in Python, except where Python values are asked for.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

FORMAT_VERSION = 1
HEADER = struct.Struct("<BBHIqq")
"""Format version, flags, reserved, schema id, `as_of`, `computed_at` (microseconds, UTC)."""
INVALIDATED = 0x01
"""Flag of a header without features: whatever is older than its `as_of` is no longer true."""

FieldType = Literal["double", "integer", "boolean", "category"]
Micros = npt.NDArray[np.int64]
Matrix = npt.NDArray[np.float64]


class FormatError(ValueError):
    """Bytes in Redis that are not a packed value of a known schema. The message names the key."""


@dataclass(frozen=True, slots=True)
class Field:
    """One feature of a schema.

    Attributes:
        name: Name of the feature, unique in the schema.
        type: What the number stands for.
        unit: Unit of a number, as in `days`; empty when it has none.
        vocabulary: Words of a category; the code of a word is its place in here.
        owner: Who answers for the feature.
    """

    name: str
    type: FieldType
    unit: str = ""
    vocabulary: tuple[str, ...] = ()
    owner: str = ""

    def __post_init__(self) -> None:
        if self.type not in ("double", "integer", "boolean", "category"):
            raise ValueError(
                f"feature {self.name} has type {self.type!r}; "
                "it must be double, integer, boolean or category"
            )
        if self.type != "category" and self.vocabulary:
            raise ValueError(f"feature {self.name} is a {self.type}; only a category has words")
        if len(set(self.vocabulary)) != len(self.vocabulary):
            raise ValueError(f"feature {self.name} has the same word twice in its vocabulary")


@dataclass(frozen=True)
class Schema:
    """What the numbers of a packed value mean.

    Attributes:
        entity_type: What is described, such as `lead`.
        fields: The features in the order of their numbers.
    """

    entity_type: str
    fields: tuple[Field, ...]

    def __post_init__(self) -> None:
        names = [field.name for field in self.fields]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"the {self.entity_type} schema has two features named {twice[0]}")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the features, in order."""
        return tuple(field.name for field in self.fields)

    @cached_property
    def positions(self) -> Mapping[str, int]:
        """Place of each feature by its name."""
        return {name: at for at, name in enumerate(self.names)}

    @cached_property
    def codes(self) -> tuple[Mapping[str, float], ...]:
        """Code of each word, by the place of the feature; empty but for categories."""
        return tuple(
            {word: float(code) for code, word in enumerate(field.vocabulary)}
            for field in self.fields
        )

    @cached_property
    def categories(self) -> tuple[npt.NDArray[np.intp], Matrix]:
        """Places of the categories, and how many words each has."""
        places = [at for at, field in enumerate(self.fields) if field.type == "category"]
        sizes = [float(len(self.fields[at].vocabulary)) for at in places]
        return np.array(places, np.intp), np.array(sizes)

    @cached_property
    def document(self) -> bytes:
        """The schema as canonical JSON: sorted keys, no spaces, UTF-8 as it is."""
        content = {
            "entity_type": self.entity_type,
            "features": [
                {
                    "name": field.name,
                    "owner": field.owner,
                    "type": field.type,
                    "unit": field.unit,
                    "vocabulary": list(field.vocabulary),
                }
                for field in self.fields
            ],
            "format": FORMAT_VERSION,
        }
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
        return text.encode()

    @cached_property
    def schema_id(self) -> int:
        """First four bytes of the document's SHA-256, as a little-endian u32."""
        return document_id(self.document)

    @cached_property
    def dtype(self) -> np.dtype[np.void]:
        """The packed value as a NumPy record."""
        return np.dtype(
            [
                ("version", "u1"),
                ("flags", "u1"),
                ("reserved", "<u2"),
                ("schema_id", "<u4"),
                ("as_of", "<i8"),
                ("computed_at", "<i8"),
                ("values", "<f8", (len(self.fields),)),
            ]
        )

    @classmethod
    def from_document(cls, document: bytes) -> Schema:
        """Read a schema from its JSON.

        Raises:
            FormatError: the document is not a schema of this format version.
        """
        try:
            content = json.loads(document)
            if content["format"] != FORMAT_VERSION:
                raise FormatError(
                    f"schema of format version {content['format']}; "
                    f"this reader knows version {FORMAT_VERSION}"
                )
            fields = tuple(
                Field(f["name"], f["type"], f["unit"], tuple(f["vocabulary"]), f["owner"])
                for f in content["features"]
            )
            return cls(content["entity_type"], fields)
        except FormatError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(f"not a schema document: {error!r}") from error


def document_id(document: bytes) -> int:
    """The schema id that belongs to these bytes."""
    return int.from_bytes(hashlib.sha256(document).digest()[:4], "little")


@dataclass(frozen=True, slots=True)
class Rows:
    """The values of a batch that share a schema.

    Attributes:
        schema: What the columns mean.
        positions: Place of each row in the batch, int64[n].
        as_of: Moment that each row describes, int64[n], microseconds since 1970 UTC.
        computed_at: When each row was computed, likewise.
        values: float64[n, features]; NaN is missing, a category is its code. A read-only view.
    """

    schema: Schema
    positions: npt.NDArray[np.intp]
    as_of: Micros
    computed_at: Micros
    values: Matrix

    def where(self, kept: npt.NDArray[np.bool_]) -> Rows:
        """Some of the rows, by a mask, bool[n]."""
        return Rows(
            self.schema,
            self.positions[kept],
            self.as_of[kept],
            self.computed_at[kept],
            self.values[kept],
        )


def encode(
    schema: Schema, as_of: Micros | int, computed_at: Micros | int, values: Matrix
) -> list[bytes]:
    """Pack a matrix, one value per row.

    Args:
        schema: What the columns mean.
        as_of: Moment that each row describes, or one for all; microseconds since 1970 UTC.
        computed_at: When each row was computed, or one for all.
        values: float64[n, features] in schema order; NaN is missing, a category is its code.

    Raises:
        ValueError: the matrix has another number of columns than the schema has features.
    """
    if values.ndim != 2 or values.shape[1] != len(schema.fields):
        raise ValueError(
            f"a matrix of shape {values.shape} does not fit the {schema.entity_type} schema "
            f"{schema.schema_id}, which has {len(schema.fields)} features"
        )
    records = np.zeros(len(values), schema.dtype)
    records["version"] = FORMAT_VERSION
    records["schema_id"] = schema.schema_id
    records["as_of"] = as_of
    records["computed_at"] = computed_at
    records["values"] = values
    blob, size = records.tobytes(), schema.dtype.itemsize
    return [blob[start : start + size] for start in range(0, len(blob), size)]


def invalidation(as_of: int, computed_at: int | None = None) -> bytes:
    """A header alone, which says that everything older is no longer true.

    Args:
        as_of: Moment from which values are true again, microseconds since 1970 UTC.
        computed_at: When it was made untrue, where that is another moment: of two values of the
            same `as_of`, the one computed earlier is older.
    """
    known = as_of if computed_at is None else computed_at
    return HEADER.pack(FORMAT_VERSION, INVALIDATED, 0, 0, as_of, known)


Moments = tuple[int, int]
"""`as_of` and `computed_at`: of two values of an entity the greater pair is the newer one."""


def moments(payload: bytes) -> Moments:
    """`as_of` and `computed_at` of a value or an invalidation, microseconds since 1970 UTC."""
    _, _, _, _, as_of, computed_at = HEADER.unpack_from(payload)
    return as_of, computed_at


def decode(
    payloads: Sequence[bytes | None],
    keys: Sequence[str],
    schema_of: Callable[[int], Schema | None],
    on_broken: Callable[[int, FormatError], None] | None = None,
    on_invalidated: Callable[[int, Moments], None] | None = None,
) -> list[Rows]:
    """Unpack a batch; rows that share a schema become one view over their bytes.

    Args:
        payloads: What Redis returned; None where there was no key.
        keys: The key of each payload, for errors.
        schema_of: Finds a schema by its id; None when nobody knows it.
        on_broken: Told the place of each broken value and what is wrong with it, which then counts
            as missing; without it the first one is an error.
        on_invalidated: Told the place and the moments of each invalidation.

    Returns:
        Groups of rows. A key that was missing or invalidated is in none of them.

    Raises:
        FormatError: a value is truncated, of an unknown format version or of an unknown schema, or
            a category has a code without a word.
    """
    result = []
    for positions, blob in _groups(payloads):
        try:
            rows = _decode_group(blob, positions, keys[positions[0]], schema_of)
            if rows is not None:
                rows = _with_words(rows, keys, on_broken)
        except FormatError as error:
            if on_broken is None:
                raise
            for position in positions:
                on_broken(position, error)
            continue
        if rows is not None:
            result.append(rows)
        elif on_invalidated is not None:
            for position in positions:
                if payload := payloads[position]:
                    on_invalidated(position, moments(payload))
    return result


def _groups(payloads: Sequence[bytes | None]) -> list[tuple[Sequence[int], bytes]]:
    """Values with the same first bytes and the same length: their places, and their bytes in a row.

    Mostly all are there and alike, which is found out without a look at each in Python.
    """
    try:
        blob = b"".join(payloads)  # type: ignore[arg-type]
        sizes = set(map(len, payloads))  # type: ignore[arg-type]
    except TypeError:
        pass
    else:
        size = min(sizes, default=0)
        if len(sizes) == 1 and size >= 8:
            heads = np.ndarray(len(payloads), "<u8", blob, strides=(size,))
            if (heads == heads[0]).all():
                return [(range(len(payloads)), blob)]
    alike: dict[tuple[bytes, int], list[int]] = {}
    for position, payload in enumerate(payloads):
        if payload is not None:
            alike.setdefault((payload[:8], len(payload)), []).append(position)
    return [
        (places, b"".join([value for at in places if (value := payloads[at]) is not None]))
        for places in alike.values()
    ]


def _decode_group(
    blob: bytes,
    positions: Sequence[int],
    first: str,
    schema_of: Callable[[int], Schema | None],
) -> Rows | None:
    """Values with the same first bytes and the same length; `first` is the key of one of them."""
    size = len(blob) // len(positions)
    if size < 8:
        raise FormatError(f"{first} holds {size} bytes; a value has at least {HEADER.size}")
    version, flags, _, schema_id = struct.unpack_from("<BBHI", blob)
    if version != FORMAT_VERSION:
        raise FormatError(
            f"{first} holds format version {version}; this reader knows version {FORMAT_VERSION}"
        )
    if flags & INVALIDATED:
        if size < HEADER.size:
            raise FormatError(f"{first} holds {size} bytes; a header has {HEADER.size}")
        return None
    schema = schema_of(schema_id)
    if schema is None:
        raise FormatError(f"{first} is of schema {schema_id}, which Redis does not hold")
    if size != schema.dtype.itemsize:
        raise FormatError(
            f"{first} holds {size} bytes; a value of schema {schema_id} "
            f"has {schema.dtype.itemsize} (it was cut short, or written by another schema)"
        )
    records = np.frombuffer(blob, schema.dtype)
    return Rows(
        schema,
        np.arange(len(positions)) if isinstance(positions, range) else np.array(positions),
        records["as_of"],
        records["computed_at"],
        records["values"],
    )


def _with_words(
    rows: Rows, keys: Sequence[str], on_broken: Callable[[int, FormatError], None] | None
) -> Rows:
    """Those of the rows whose categories all have a word or are missing."""
    places, sizes = rows.schema.categories
    if not len(places):
        return rows
    codes = rows.values[:, places]
    wordless: npt.NDArray[np.bool_] = np.any((codes < 0) | (codes >= sizes), axis=1)
    if not wordless.any():
        return rows
    for position in rows.positions[wordless].tolist():
        error = FormatError(
            f"{keys[position]} has a code without a word in schema {rows.schema.schema_id}"
        )
        if on_broken is None:
            raise error
        on_broken(position, error)
    return rows.where(~wordless)


def python_values(field: Field, column: Matrix) -> list[Any]:
    """One feature's numbers as Python values of its type, None where missing.

    Args:
        field: The feature.
        column: float64[n].

    Raises:
        FormatError: a category has a code without a word.
    """
    missing = np.isnan(column)
    if field.type == "category":
        return _words(field, column, missing)
    values: list[Any]
    if field.type == "double":
        values = column.tolist()
    elif field.type == "boolean":
        values = (column == 1.0).tolist()
    else:
        values = np.where(missing, 0, column).astype(np.int64).tolist()
    for at in np.flatnonzero(missing).tolist():
        values[at] = None
    return values


def _words(field: Field, column: Matrix, missing: npt.NDArray[np.bool_]) -> list[Any]:
    words = field.vocabulary
    if ((column < 0) | (column >= len(words))).any():
        raise FormatError(
            f"feature {field.name} has a code outside of its vocabulary of {len(words)} words"
        )
    codes = np.where(missing, -1, column).astype(np.int64).tolist()
    return [None if code < 0 else words[code] for code in codes]


def recode(column: Matrix, source: Sequence[str], target: Sequence[str]) -> Matrix:
    """Codes of one vocabulary as codes of another; a word that is not there becomes NaN.

    Args:
        column: float64[n], codes of `source`.
        source: Vocabulary that the codes are of.
        target: Vocabulary that they shall be of.
    """
    if tuple(source) == tuple(target[: len(source)]):
        return column
    codes = {word: float(code) for code, word in enumerate(target)}
    table = np.array([*(codes.get(word, np.nan) for word in source), np.nan])
    known = ~np.isnan(column) & (column >= 0) & (column < len(source))
    return table[np.where(known, column, len(source)).astype(np.intp)]
