"""One lead or agent and those around it, read from the graph now, within a short time.

The driver of the official client has no limit on how long a server may stay silent, and ArcadeDB
keeps no time limit of a transaction. So the asynchronous driver is used, in a thread with an event
loop of its own, where whatever takes too long is cancelled and its connection dropped. Callers are
ordinary functions in any number of threads.
"""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from leadml_pipelines.graph.bolt import GraphUnavailableError, to_micros_utc
from leadml_pipelines.graph.model import (
    AGENT,
    ASSIGNED_TO,
    EDGE_KINDS,
    HOUSEHOLD,
    LEAD,
    MEMBER_OF,
    REFERRED,
    EdgeKind,
    NodeKind,
)
from leadml_pipelines.graph.moments import holds, moment_parameters
from leadml_pipelines.times import from_micros, require_utc, utc_now

if TYPE_CHECKING:
    from neo4j import AsyncDriver, AsyncTransaction, Record

BUDGET_SECONDS = 0.8
"""What one answer may take, with everything."""
REST_SECONDS = 1.0
"""For how long nothing is asked after a failure: the answer would be the same, only late."""
WARM_SECONDS = 30.0
"""What the first plans of the statements may take, in the background after `open`."""
CONNECTIONS = 16
"""Connections kept at most, which is also how many answers are worked on at once."""

_SUBJECTS = {kind.entity_type: kind for kind in (LEAD, AGENT)}
_BY_RELATION = {kind.relation: kind for kind in EDGE_KINDS}

ENTITY_TYPES = tuple(_SUBJECTS)
"""Whose surroundings can be asked for."""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """One relationship of the entity, and who is at its other end.

    Attributes:
        entity_type: `lead`, `agent`, `household` or `campaign`.
        entity_id: Its id.
        relation: The relationship's type in the graph.
        direction: `out` if it starts at the entity that was asked for, else `in`.
        since: Since when it holds; None if that is not known.
        until: Until when (exclusive); None if no end is known.
        holds: Whether it holds now.
    """

    entity_type: str
    entity_id: str
    relation: str
    direction: str
    since: datetime | None
    until: datetime | None
    holds: bool


@dataclass(frozen=True, slots=True)
class Household:
    """The household of a lead.

    Attributes:
        household_id: Its id.
        since: Since when the lead belongs to it.
        members: Ids of the other leads in it now, ascending.
    """

    household_id: str
    since: datetime | None
    members: list[str]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the graph knows of one entity.

    Attributes:
        entity_type: `lead` or `agent`.
        entity_id: Its id.
        as_of: The moment of the answer.
        degree: Relationships that hold now, by their type; every type is there.
        neighbours: Those that hold first, then the newest first; no more than asked for.
        relationships: How many there are in all, also those that have ended.
        household: Of a lead, if it has one now.
        referrers: Who referred a lead, the newest first.
        referred: Whom it referred, the newest first.
        current_agent: Whom a lead is assigned to now.
    """

    entity_type: str
    entity_id: str
    as_of: datetime
    degree: dict[str, int]
    neighbours: list[Neighbour]
    relationships: int
    household: Household | None = None
    referrers: list[Neighbour] = field(default_factory=list)
    referred: list[Neighbour] = field(default_factory=list)
    current_agent: Neighbour | None = None


@dataclass(frozen=True, slots=True)
class _Failure:
    """What was wrong, and until when (`time.monotonic`) it is taken to be still wrong."""

    until: float
    why: str
    cause: BaseException


class LiveGraph:
    """Reads the surroundings of single entities. Safe to share between threads.

    Nothing is imported or connected before the first question or `open`.

    Args:
        address: URI, user, password, database.
        budget_seconds: What one answer may take.
    """

    def __init__(
        self, address: tuple[str, str, str, str], budget_seconds: float = BUDGET_SECONDS
    ) -> None:
        self._uri, self._user, self._password, self._database = address
        self._budget = budget_seconds
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._driver: AsyncDriver | None = None
        self._warming: Future[None] | None = None
        self._failed: _Failure | None = None

    def open(self) -> None:
        """Import the driver; connect and let the server plan the statements in the background.

        A server that was just started takes longer for that than the first question may.
        """
        import neo4j  # noqa: F401

        self._warm_up(self._running_loop())

    def surroundings(self, entity_type: str, entity_id: str, limit: int) -> Surroundings | None:
        """Who is around a lead or an agent.

        Args:
            entity_type: One of `ENTITY_TYPES`.
            entity_id: Its id.
            limit: How many neighbours at most; also of members, referrers and referred.

        Returns:
            None if the graph has no such entity.

        Raises:
            GraphUnavailableError: it did not answer in time, or refused; for a moment after that,
                the same again without asking.
            GraphContentError: what it holds is not understood.
        """
        failed = self._failed  # another thread may forget it meanwhile
        if failed is not None and time.monotonic() < failed.until:
            raise self._unavailable(failed.why) from failed.cause
        work = self._read(_SUBJECTS[entity_type], entity_id, limit, utc_now())
        loop = self._running_loop()
        future = asyncio.run_coroutine_threadsafe(work, loop)
        try:
            # Longer than the limit inside, which is the one that keeps connections in order.
            found = future.result(self._budget + 0.1)
        except (TimeoutError, CancelledError) as error:
            future.cancel()
            # The server drops a plan that it has not finished in time: it would be late for ever.
            self._warm_up(loop)
            raise self._rest(f"no answer in {self._budget:g} s", error) from error
        except _driver_errors() as error:
            raise self._rest(str(error), error) from error
        except _server_errors() as error:
            raise self._unavailable(str(error)) from error
        self._failed = None
        return found

    def close(self) -> None:
        """Close the connections and end the thread. It can be opened again afterwards."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is None or thread is None:
            return
        closing = asyncio.run_coroutine_threadsafe(self._close_driver(), loop)
        try:
            closing.result(self._budget)
        except TimeoutError:
            closing.cancel()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    def _unavailable(self, why: str) -> GraphUnavailableError:
        return GraphUnavailableError(
            f"the graph at {self._uri} (database {self._database}, user {self._user}) can't be "
            f"asked: {why}; check that it runs, and LEADML_NEO4J_URI, _USER, _PASSWORD and "
            "_DATABASE"
        )

    def _rest(self, why: str, cause: BaseException) -> GraphUnavailableError:
        """For a server that is away or too slow; one that refuses does so quickly."""
        self._failed = _Failure(time.monotonic() + REST_SECONDS, why, cause)
        return self._unavailable(why)

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=_run, args=(self._loop,), name="graph", daemon=True
                )
                self._thread.start()
            return self._loop

    def _warm_up(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let the server plan the statements in the background, unless it does so already."""
        with self._lock:
            if self._warming is None or self._warming.done():
                self._warming = asyncio.run_coroutine_threadsafe(self._warm(), loop)

    def _open_driver(self) -> AsyncDriver:
        """The driver; called in the loop only, so that there is one."""
        from neo4j import AsyncGraphDatabase

        if self._driver is None:
            self._driver = AsyncGraphDatabase.driver(
                self._uri,
                auth=(self._user, self._password),
                connection_timeout=self._budget,
                connection_acquisition_timeout=self._budget,
                max_connection_pool_size=CONNECTIONS,
                notifications_min_severity="OFF",
            )
        return self._driver

    async def _warm(self) -> None:
        from neo4j.exceptions import DriverError, Neo4jError

        # Whatever is wrong, the first question will meet it and say so.
        with suppress(DriverError, Neo4jError, TimeoutError):
            async with (
                asyncio.timeout(WARM_SECONDS),
                self._open_driver().session(
                    database=self._database, default_access_mode="READ"
                ) as session,
                await session.begin_transaction(timeout=WARM_SECONDS) as transaction,
            ):
                for kind in _SUBJECTS.values():
                    # Neo4j keeps a plan for each size of the parameters, by powers of ten.
                    for nobody in ("nobody", "nobody" * 6):
                        await _Question(transaction, kind, nobody, 50, utc_now()).plan()

    async def _close_driver(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        driver, self._driver = self._driver, None
        if driver is not None:
            await driver.close()

    async def _read(
        self, kind: NodeKind, entity_id: str, limit: int, now: datetime
    ) -> Surroundings | None:
        from neo4j.exceptions import ServiceUnavailable, SessionExpired

        async with asyncio.timeout(self._budget):
            try:
                return await self._ask(kind, entity_id, limit, now)
            except (ServiceUnavailable, SessionExpired):
                # A server that was started again has closed the connections of before.
                return await self._ask(kind, entity_id, limit, now)

    async def _ask(
        self, kind: NodeKind, entity_id: str, limit: int, now: datetime
    ) -> Surroundings | None:
        async with (
            self._open_driver().session(
                database=self._database, default_access_mode="READ"
            ) as session,
            # Neo4j ends what is given up here; ArcadeDB works on.
            await session.begin_transaction(timeout=self._budget) as transaction,
        ):
            return await _Question(transaction, kind, entity_id, limit, now).answer()


def _run(loop: asyncio.AbstractEventLoop) -> None:
    import neo4j  # noqa: F401  # 0.7 seconds, in which the loop could do nothing else.

    asyncio.set_event_loop(loop)
    loop.run_forever()


def _driver_errors() -> type[Exception]:
    from neo4j.exceptions import DriverError

    return DriverError


def _server_errors() -> type[Exception]:
    from neo4j.exceptions import Neo4jError

    return Neo4jError


class _Question:
    """The statements about one entity, in one transaction."""

    def __init__(
        self,
        transaction: AsyncTransaction,
        kind: NodeKind,
        entity_id: str,
        limit: int,
        now: datetime,
    ) -> None:
        self._transaction = transaction
        self._kind = kind
        self._entity_id = entity_id
        self._now = require_utc(now, "now")
        self._parameters = {"id": entity_id, "limit": limit, **moment_parameters(now)}
        self._limit = limit

    async def answer(self) -> Surroundings | None:
        counts = await self._run(_COUNT[self._kind.entity_type])
        if not counts:
            return None
        degree = dict.fromkeys(_BY_RELATION, 0)
        relationships = 0
        for relation, count, holding in counts:
            if relation is not None:
                degree[relation] = holding
                relationships += count
        neighbours = await self._neighbours() if relationships else []
        memberships = _some(neighbours, MEMBER_OF, "out")
        return Surroundings(
            entity_type=self._kind.entity_type,
            entity_id=self._entity_id,
            as_of=self._now,
            degree=degree,
            neighbours=neighbours[: self._limit],
            relationships=relationships,
            household=await self._household(memberships),
            referrers=_some(neighbours, REFERRED, "in"),
            referred=_some(neighbours, REFERRED, "out"),
            current_agent=_holding(_some(neighbours, ASSIGNED_TO, "out")),
        )

    async def plan(self) -> None:
        """Run every statement, whatever comes of it."""
        await self._run(_COUNT[self._kind.entity_type])
        await self._neighbours()
        await self._run(_MEMBERS, household=self._entity_id)

    async def _run(self, statement: str, **more: Any) -> list[Record]:
        result = await self._transaction.run(statement, self._parameters | more)
        return [record async for record in result]

    async def _neighbours(self) -> list[Neighbour]:
        """Up to `limit` of each relation and direction."""
        found = []
        for record in await self._run(_NEIGHBOURS[self._kind.entity_type]):
            relation, direction, entity_id, since, until, holding = record
            other = _BY_RELATION[relation].target if direction == "out" else LEAD
            found.append(
                Neighbour(
                    entity_type=other.entity_type,
                    entity_id=str(entity_id),
                    relation=relation,
                    direction=direction,
                    since=_moment(since, relation),
                    until=_moment(until, relation),
                    holds=holding,
                )
            )
        return sorted(found, key=_newest_first)

    async def _household(self, memberships: list[Neighbour]) -> Household | None:
        membership = _holding(memberships)
        if membership is None:
            return None
        members = await self._run(_MEMBERS, household=membership.entity_id)
        return Household(
            membership.entity_id, membership.since, sorted(str(member[0]) for member in members)
        )


def _newest_first(neighbour: Neighbour) -> tuple[bool, bool, float]:
    since = neighbour.since
    return not neighbour.holds, since is None, 0.0 if since is None else -since.timestamp()


def _some(neighbours: list[Neighbour], kind: EdgeKind, direction: str) -> list[Neighbour]:
    return [n for n in neighbours if n.relation == kind.relation and n.direction == direction]


def _holding(neighbours: list[Neighbour]) -> Neighbour | None:
    """The newest that holds: they come in this order."""
    return neighbours[0] if neighbours and neighbours[0].holds else None


def _moment(value: Any, relation: str) -> datetime | None:
    try:
        micros = to_micros_utc(value)
    except TypeError as error:
        raise GraphContentError(f"a time of a {relation} relationship is none: {error}") from error
    return None if micros is None else from_micros(micros)


def _count(kind: NodeKind) -> str:
    """By type, how many relationships there are and how many hold; no row where there is no entity.

    A relationship of an entity with itself is none.
    """
    cases = " ".join(
        f"WHEN '{edge.relation}' THEN CASE WHEN {holds(edge, 'e')} THEN 1 ELSE 0 END"
        for edge in EDGE_KINDS
    )
    return (
        f"MATCH (n:{kind.label}) WHERE n.{kind.key} = $id"
        f" OPTIONAL MATCH (n)-[e:{'|'.join(_BY_RELATION)}]-(m) WHERE m <> n"
        f" RETURN type(e), count(e), sum(CASE type(e) {cases} ELSE 0 END)"
    )


def _neighbours(kind: NodeKind) -> str:
    """All relations and directions in one statement: each costs the servers little, a trip more."""
    parts = []
    if kind is LEAD:
        parts += [_neighbours_by(kind, edge, "out") for edge in EDGE_KINDS]
    parts += [_neighbours_by(kind, edge, "in") for edge in EDGE_KINDS if edge.target is kind]
    return " UNION ALL ".join(parts)


def _neighbours_by(kind: NodeKind, edge: EdgeKind, direction: str) -> str:
    other = edge.target if direction == "out" else LEAD
    left, right = ("-", "->") if direction == "out" else ("<-", "-")
    end = f"e.{edge.end}" if edge.end else "null"
    return (
        f"MATCH (n:{kind.label}){left}[e:{edge.relation}]{right}(m:{other.label})"
        f" WHERE n.{kind.key} = $id AND m.{other.key} IS NOT NULL AND m <> n"
        f" WITH m.{other.key} AS id, e.{edge.start} AS since, {end} AS until,"
        f" {holds(edge, 'e')} AS holding"
        f" RETURN '{edge.relation}' AS relation, '{direction}' AS direction,"
        " id, since, until, holding"
        " ORDER BY holding DESC, since IS NULL, since DESC, id LIMIT $limit"
    )


_COUNT = {kind.entity_type: _count(kind) for kind in (LEAD, AGENT)}
_NEIGHBOURS = {kind.entity_type: _neighbours(kind) for kind in (LEAD, AGENT)}
_MEMBERS = (
    f"MATCH (h:{HOUSEHOLD.label})<-[e:{MEMBER_OF.relation}]-(m:{LEAD.label})"
    f" WHERE h.{HOUSEHOLD.key} = $household AND m.{LEAD.key} <> $id AND {holds(MEMBER_OF, 'e')}"
    f" RETURN DISTINCT m.{LEAD.key} AS id ORDER BY id LIMIT $limit"
)


class GraphContentError(GraphUnavailableError):
    """The graph answered, and what it holds is not what LeadML can read."""
