"""What is left when PostgreSQL is there but can't compute: the newest checked snapshot.

Yesterday's values, marked `stale`, are worth more to a caller than none. They are never written
back, for they may lack an event that was posted since.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

import structlog

from leadml_pipelines.features.catalogue import Catalogue
from leadml_pipelines.online.format import Rows, decode
from leadml_pipelines.online.publish import pack
from leadml_pipelines.online.values import schema_for
from leadml_pipelines.serving.connections import PostgresUnavailableError, StatementFailedError
from leadml_pipelines.serving.seen import Seen
from leadml_pipelines.times import utc_now

if TYPE_CHECKING:
    import pandas as pd

log = structlog.get_logger(__name__)


class SnapshotLike(Protocol):
    """The newest checked snapshot, or some entities of it."""

    @property
    def frame(self) -> pd.DataFrame:
        """`entity_id` and the features."""

    @property
    def as_of(self) -> datetime:
        """The moment it describes."""


SnapshotLookup = Callable[[str, Sequence[str]], SnapshotLike]
"""From an entity type and ids to what the newest checked snapshot has of them.

Raises `PostgresUnavailableError`, `StatementFailedError`, and `LookupError` when there is no
checked snapshot yet."""


class SnapshotFallback:
    """Entities out of the newest checked snapshot. Safe to share between threads.

    Args:
        lookup: Looks them up.
        views: The catalogue.
    """

    def __init__(self, lookup: SnapshotLookup, views: Catalogue) -> None:
        self._lookup = lookup
        self._views = views

    def rows(
        self, entity_type: str, ids: Sequence[str], missing: list[int], seen: Seen
    ) -> list[Rows]:
        """What the newest checked snapshot has of missing entities; the rest is unavailable.

        Args:
            entity_type: Such as `lead`.
            ids: All ids of the read.
            missing: Positions of those that are missing.
            seen: Is told of those that the snapshot lacks too.

        Raises:
            ApiError: none of all ids is left that could be answered.
        """
        names = list(dict.fromkeys(ids[at] for at in missing))
        started = utc_now()
        try:
            snapshot = self._lookup(entity_type, names)
        except (PostgresUnavailableError, StatementFailedError, LookupError) as error:
            log.warning("no_snapshot_instead", entity_type=entity_type, error=str(error))
            why = "PostgreSQL can neither compute them nor give those of a snapshot"
            seen.lack(ids, missing, why)
            return []
        features = self._views.features(entity_type)
        schema = schema_for(entity_type, features, snapshot.frame)
        packed = pack(schema, features, snapshot.frame, snapshot.as_of, started)
        by_id = dict(zip(packed.ids, packed.payloads, strict=True))
        lacking = [at for at in missing if ids[at] not in by_id]
        if lacking:
            why = "PostgreSQL can't compute them, and the newest snapshot does not know them"
            seen.lack(ids, lacking, why)
        payloads: list[bytes | None] = [None] * len(ids)
        for position in missing:
            payloads[position] = by_id.get(ids[position])
        return decode(payloads, ids, lambda number: schema)
