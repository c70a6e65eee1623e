"""Entities whose values somebody else made untrue: what was cached of them is computed anew."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from leadml_pipelines.features.entity_types import entity_type as known_type
from leadml_pipelines.online.keys import entity_keys
from leadml_pipelines.serving.connections import Connections
from leadml_pipelines.serving.metrics import Metrics
from leadml_pipelines.serving.outbox import Outbox, deliver_now, keep
from leadml_pipelines.serving.redis_state import RedisState
from leadml_pipelines.times import require_utc


class EntityDoor:
    """Takes in that rows of entities were written past the app. Safe to share between threads.

    A policy, a closure or an assignment that the CRM writes into the tables itself changes features
    like an event does. Whoever wrote it says so here, after its own commit.

    Args:
        connections: To PostgreSQL.
        outbox: What Redis is told.
        redis_state: Whether Redis can be told now.
        metrics: Where to count.
    """

    def __init__(
        self,
        connections: Connections,
        outbox: Outbox,
        redis_state: RedisState,
        metrics: Metrics,
    ) -> None:
        self._connections = connections
        self._outbox = outbox
        self._redis_state = redis_state
        self._metrics = metrics

    def invalidate(self, entity_type: str, ids: Sequence[str], at: datetime | None = None) -> bool:
        """Make the values of before untrue; whoever reads after this returns, sees what is there.

        An id that nobody knows is as good as any: its row may just have been deleted.

        Args:
            entity_type: Such as `lead`.
            ids: Whose values.
            at: The moment from which they are untrue, where it lies ahead, as by the clock of a
                sender that runs a little fast; now if None or past.

        Returns:
            Whether Redis knows. If not, it is told as soon as it can be reached.

        Raises:
            UnknownEntityTypeError: there is no such type.
            EntityIdError: an id can be no key. Nothing was invalidated.
            NaiveTimeError: the moment has no time zone.
            PostgresUnavailableError: nothing was noted, or nobody knows; say it again.
            StatementFailedError: nothing was noted.
        """
        name = known_type(entity_type).name
        entity_keys(name, ids)
        moment = None if at is None else require_utc(at, "at")
        names = list(dict.fromkeys(ids))
        # A statement is a transaction of its own.
        self._connections.run(
            lambda connection: keep(connection, ((name, one, moment) for one in names))
        )
        self._metrics.invalidated.labels(name).inc(len(names))
        return deliver_now(self._outbox, self._redis_state, names)
