"""The present of computed values: PostgreSQL's clock, or how far a historical data set reaches."""

from __future__ import annotations

from typing import Literal

from leadml_pipelines.features.entity_types import entity_type

Clock = Literal["now", "data"]


def present_sql(clock: Clock, entity: str) -> str:
    """SQL of PostgreSQL for the moment as of which a value is computed now.

    By the clock `now` it is the start of the transaction, which comes before the moment at which
    the statement looks at the tables: a value dated `t` has seen everything committed by `t`. By
    the clock `data` it is the moment of the newest checked snapshot, or that of a later event
    that was posted; it never lies past PostgreSQL's clock.

    Args:
        clock: The setting of that name.
        entity: Entity type.

    Raises:
        UnknownEntityTypeError: there is none of this name.
    """
    name = entity_type(entity).name
    if clock == "now":
        return "now()"
    return (
        "LEAST(now(), GREATEST("  # noqa: S608 - the name is one of ours
        "(SELECT max(f.as_of) FROM leadml.feature_snapshots AS f "
        f"WHERE f.entity = '{name}' AND f.checked_at IS NOT NULL), "
        "(SELECT d.newest FROM leadml.data_clock AS d)))"
    )
