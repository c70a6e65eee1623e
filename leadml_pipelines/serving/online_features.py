"""Online features in process: what the HTTP app answers, without HTTP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Self

import structlog

from leadml_pipelines.closing import Closing
from leadml_pipelines.features.catalogue import Catalogue, catalogue
from leadml_pipelines.online.format import Matrix
from leadml_pipelines.online.store import OnlineStore
from leadml_pipelines.serving.connections import (
    Connections,
    PostgresUnavailableError,
    StatementFailedError,
)
from leadml_pipelines.serving.entity_door import EntityDoor
from leadml_pipelines.serving.events import MAX_EVENTS, EventDoor, Receipt
from leadml_pipelines.serving.found import Found, Server, Source
from leadml_pipelines.serving.lookup import LOOKUPS, PresentReader, SnapshotReader
from leadml_pipelines.serving.metrics import Metrics
from leadml_pipelines.serving.outbox import Courier, Outbox
from leadml_pipelines.serving.reader import FeatureReader
from leadml_pipelines.serving.redis_state import REDIS_TIMEOUT, RedisState
from leadml_pipelines.serving.served_log import ServedLog
from leadml_pipelines.settings import Settings
from leadml_pipelines.times import from_micros

Status = Literal["present", "stale", "unknown", "unavailable"]

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Entity:
    """What is known of an entity.

    Attributes:
        entity_id: Its id.
        status: `unknown`: LeadML has no such entity; `stale`: the values are older than they
            should be, and could not be computed anew; `unavailable`: it is not cached, and
            PostgreSQL can't say now whether there is one.
        as_of: The moment that the values describe; None for an unknown or unavailable entity.
        age_seconds: Time since then, likewise.
        source: Where they come from, likewise.
        features: Values by name, None where there is no value; None for such an entity.
        degraded: Servers that could not be asked or believed for the whole answer.
    """

    entity_id: str
    status: Status
    as_of: datetime | None
    age_seconds: float | None
    source: Source | None
    features: dict[str, Any] | None
    degraded: tuple[Server, ...] = ()


class OnlineFeatures(Closing):
    """Reads features and takes in events. Safe to share between threads.

    Use it in a `with` statement, or `start` and `close` it: after a failure of Redis it is only the
    background thread that finds out that Redis can be used again.

    Args:
        settings: Addresses of Redis and PostgreSQL, the clock, the schema of the source tables.
        metrics: Where to count.
        views: The catalogue; the built-in one by default.

    Raises:
        MissingSettingError: Redis or PostgreSQL have no address.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics | None = None,
        *,
        views: Catalogue | None = None,
    ) -> None:
        url = settings.require_postgres()
        clock, schema = settings.clock, settings.crm_schema
        self._metrics = metrics or Metrics()
        self._views = catalogue() if views is None else views
        self.store = OnlineStore(
            settings.require_redis(),
            ttl_seconds=settings.online_ttl_seconds,
            timeout_seconds=REDIS_TIMEOUT,
        )
        self._connections = Connections(url, LOOKUPS)
        self.present = PresentReader(url, schema, clock, views)
        self._snapshots = SnapshotReader(url)
        outbox = Outbox(self._connections, self.store, clock)
        state = RedisState(self._metrics)
        self._courier = Courier(outbox, state, self._metrics)
        self._served_log = ServedLog(url, settings.audit_sample, self._metrics)
        self.reader = FeatureReader(
            self.store,
            self.present,
            self._snapshots,
            self._metrics,
            clock,
            redis_state=state,
            postgres_away=lambda: self._courier.postgres_away,
            served_log=self._served_log,
            views=views,
        )
        self.event_door = EventDoor(self._connections, outbox, state, self._metrics, schema, clock)
        self.entity_door = EntityDoor(self._connections, outbox, state, self._metrics)

    def __enter__(self) -> Self:
        self.start()
        return self

    def start(self) -> None:
        """Begin to deliver in the background, and to look whether both servers are there."""
        self._courier.start()

    def prepare(self) -> None:
        """Compile what a first miss needs, so that it does not wait for it."""
        for entity_type in self._views.entities:
            try:
                self.present.prepare(entity_type)
            except (PostgresUnavailableError, StatementFailedError) as error:
                log.warning("not_prepared", entity_type=entity_type, error=str(error))

    def close(self) -> None:
        """End the background thread and close all connections."""
        self._courier.stop()
        self._served_log.close()
        self.present.close()
        self._snapshots.close()
        self._connections.close()
        self.store.close()

    def get(
        self, entity_type: str, ids: Sequence[str], names: Sequence[str] | None = None
    ) -> list[Entity]:
        """Features of any number of entities, in their order; one without any says why.

        Args:
            entity_type: Such as `lead`.
            ids: Their ids; repeats are answered as often.
            names: Features; all of them if None.

        Raises:
            EntityIdError: an id can be no key.
            UnknownFeatureError: there is no feature of this name.
            ApiError: neither Redis nor PostgreSQL can say.
        """
        for name in names or ():
            self._views.feature(name)
        found = self.reader.read(entity_type, ids)
        rows = found.batch.python_rows(names)
        as_of = found.batch.as_of().tolist()
        stale = found.stale.tolist()
        return [_entity(found, at, row, as_of[at], stale[at]) for at, row in enumerate(rows)]

    def matrix(self, entity_type: str, ids: Sequence[str], names: Sequence[str]) -> Matrix:
        """Numbers of features, float64[n, len(names)]; NaN for missing values and unknown entities.

        Categories are the codes of the schema of their value.

        Raises:
            EntityIdError: an id can be no key.
            KeyError: a value is of a schema without such a feature.
            ApiError: neither Redis nor PostgreSQL can say something of each entity.
        """
        found = self.reader.read(entity_type, ids)
        if found.shortage is not None:
            # In a matrix nothing could tell it from an unknown entity.
            raise found.shortage
        return found.batch.matrix(names)

    def post(self, events: Sequence[Mapping[str, Any]]) -> list[Receipt]:
        """Store any number of events, up to 1,000 in a transaction; the next read sees them.

        Args:
            events: In the columns of `lead_events`.

        Returns:
            A receipt for each transaction, in order.

        Raises:
            ValueError, TypeError, PostgresUnavailableError, StatementFailedError: as
                `EventDoor.post`; what came before in the order is stored.
        """
        return [
            self.event_door.post(events[start : start + MAX_EVENTS])
            for start in range(0, len(events), MAX_EVENTS)
        ]

    def invalidate(self, entity_type: str, ids: Sequence[str], at: datetime | None = None) -> bool:
        """Have the features of any number of entities computed anew by the next read.

        For whoever wrote rows of theirs into the tables past `post`, after its commit.

        Args:
            entity_type: Such as `lead`.
            ids: Their ids.
            at: As of `EntityDoor.invalidate`.

        Returns:
            Whether Redis knows; if not, it is told as soon as it can be reached.

        Raises:
            UnknownEntityTypeError, EntityIdError, NaiveTimeError, PostgresUnavailableError,
                StatementFailedError: as `EntityDoor.invalidate`.
        """
        return self.entity_door.invalidate(entity_type, ids, at)


def _entity(found: Found, at: int, row: dict[str, Any] | None, as_of: int, stale: bool) -> Entity:
    name = found.batch.entity_ids[at]
    if row is None:
        without: Status = "unavailable" if at in found.unavailable else "unknown"
        return Entity(name, without, None, None, None, None, found.degraded)
    status: Status = "stale" if stale else "present"
    age = found.age_seconds(as_of)
    source = found.sources[at]
    return Entity(name, status, from_micros(as_of), age, source, row, found.degraded)
