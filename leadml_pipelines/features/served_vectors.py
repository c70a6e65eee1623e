"""Reading the log of served vectors (`leadml.served_features`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from leadml_pipelines.postgres import connect

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ServedVectors:
    """Logged vectors of one schema, as they come from PostgreSQL.

    Attributes:
        document: The schema document (`docs/redis-format.md`).
        entity_ids: Whose they are.
        as_of: What moment they describe.
        computed_at: When they were computed.
        vectors: The numbers, in the order of the schema's features.
        sources: Where the reader found them.
        served_at: When they were handed out.
    """

    document: Mapping[str, Any]
    entity_ids: Sequence[str]
    as_of: Sequence[datetime]
    computed_at: Sequence[datetime]
    vectors: Sequence[Sequence[float]]
    sources: Sequence[str]
    served_at: Sequence[datetime]

    @cached_property
    def columns(self) -> dict[str, list[float]]:
        """Feature -> its numbers."""
        names = [entry["name"] for entry in self.document["features"]]
        return dict(zip(names, map(list, zip(*self.vectors, strict=True)), strict=True))

    @cached_property
    def words(self) -> dict[str, list[str]]:
        """Category -> its vocabulary."""
        return {
            entry["name"]: entry["vocabulary"]
            for entry in self.document["features"]
            if entry["type"] == "category"
        }

    def spine(self) -> pd.DataFrame:
        """`n` (place of the vector), `entity_id`, `as_of` and `computed_at`."""
        import pandas as pd

        time = "datetime64[us, UTC]"
        return pd.DataFrame(
            {
                "n": range(len(self.entity_ids)),
                "entity_id": pd.Series(list(self.entity_ids), dtype=object),
                "as_of": pd.Series(list(self.as_of), dtype=time),
                "computed_at": pd.Series(list(self.computed_at), dtype=time),
            }
        )


def read_served(
    url: str, entity: str, until: datetime, *, sample: int, within: timedelta
) -> list[ServedVectors]:
    """Draw logged vectors at random.

    Args:
        url: `postgresql://...`.
        entity: Entity type.
        until: The latest moment that they may describe.
        sample: How many, at most.
        within: How long before the newest of them was served the others may have been.

    Returns:
        The vectors, by schema.
    """
    with connect(url) as connection:
        rows = connection.execute(
            "SELECT schema_id, entity_id, as_of, computed_at, vector, source, served_at "
            "FROM leadml.served_features WHERE entity_type = %(entity)s AND as_of <= %(until)s "
            "AND served_at >= (SELECT max(served_at) FROM leadml.served_features "
            "WHERE entity_type = %(entity)s AND as_of <= %(until)s) - %(within)s "
            "ORDER BY random() LIMIT %(sample)s",
            {"entity": entity, "until": until, "within": within, "sample": sample},
        ).fetchall()
        documents = dict(
            connection.execute(
                "SELECT schema_id, document FROM leadml.served_schemas WHERE entity_type = %s",
                (entity,),
            ).fetchall()
        )
    groups: dict[int, list[tuple[Any, ...]]] = {}
    for schema_id, *row in rows:
        groups.setdefault(schema_id, []).append(tuple(row))
    found = []
    for schema_id, group in groups.items():
        ids, as_of, computed_at, vectors, sources, served_at = zip(*group, strict=True)
        found.append(
            ServedVectors(
                documents[schema_id], ids, as_of, computed_at, vectors, sources, served_at
            )
        )
    return found


def count_newer(url: str, entity: str, moment: datetime) -> int:
    """How many logged vectors of an entity type describe a moment after this one."""
    with connect(url) as connection:
        row = connection.execute(
            "SELECT count(*) FROM leadml.served_features WHERE entity_type = %s AND as_of > %s",
            (entity, moment),
        ).fetchone()
    return 0 if row is None else int(row[0])
