"""Bolt: open the graph, write in batches that are repeated when the server asks for it, read.

Only standard Cypher is spoken, with parameters. It runs on Neo4j 5.26 and on ArcadeDB 26.10, and so
do its tests. `docs/neo4j.md` lists all differences that were found; these shaped the code:

* a datetime with zone UTC comes back from ArcadeDB without one: `to_micros_utc` takes it as UTC;
* Neo4j never finds times with and without a zone equal, nor one instant in two zones: where times
  are compared in Cypher, the conditions of `graph.moments` are used;
* `MATCH ()-[e {since: $t}]->()` finds no datetime in ArcadeDB, `WHERE e.since = $t` does;
* `UNWIND $rows AS row MATCH (n {key: row.x})` finds nothing in ArcadeDB where the text reads like a
  parameter, as `$rows` does; `WHERE n.key = row.x` does;
* one transaction of many thousand rows takes a minute in ArcadeDB and can deadlock: batches stay
  small;
* ArcadeDB lets a reading session write, Neo4j refuses: `read` is for reading;
* only Neo4j keeps the time limit of a transaction: `graph.live` keeps its own;
* the driver ends the process (or shifts the time) when given a datetime with a named zone other
  than UTC: parameters are brought to UTC before it sees them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from leadml_pipelines.errors import UserError
from leadml_pipelines.times import require_utc, to_micros

if TYPE_CHECKING:
    from neo4j import Driver, ManagedTransaction, Record

BATCH_ROWS = 1000
"""Rows of one writing transaction."""

FETCH_ROWS = 5000
"""Records the server sends before it waits to be asked for more."""

RETRY_SECONDS = 60.0
"""How long a transaction is tried again after transient errors, with growing pauses."""


class Bolt:
    """An open graph: one database of one server. Made by `open_graph`."""

    def __init__(self, driver: Driver, database: str) -> None:
        self._driver = driver
        self._database = database

    def write(self, cypher: str, **parameters: Any) -> list[Record]:
        """Run one statement in a transaction of its own, again after transient errors.

        The driver repeats the whole transaction with exponential backoff on `TransientError`
        (a deadlock, a leader change) and on lost connections, so the statement must be idempotent.
        """
        given = in_utc(parameters)

        def work(transaction: ManagedTransaction) -> list[Record]:
            return list(transaction.run(cypher, given))

        with self._driver.session(database=self._database) as session:
            return session.execute_write(work)

    def write_rows(self, cypher: str, rows: Sequence[dict[str, Any]]) -> int:
        """Run a statement that starts with `UNWIND $rows AS row` and returns one count.

        Returns:
            The count the statement returned, 0 if it returned no record.
        """
        records = self.write(cypher, rows=list(rows))
        return int(records[0][0]) if records else 0

    def read(self, cypher: str, **parameters: Any) -> Iterator[Record]:
        """Stream the records of a reading statement; memory is bounded by `FETCH_ROWS`."""
        with self._driver.session(
            database=self._database, fetch_size=FETCH_ROWS, default_access_mode="READ"
        ) as session:
            yield from session.run(cypher, in_utc(parameters))

    def change_schema(self, cypher: str) -> None:
        """Run a statement about constraints or indexes, which shares no transaction with data."""
        with self._driver.session(database=self._database) as session:
            session.run(cypher).consume()


def in_utc(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of a statement with all their datetimes in UTC, also those in lists and maps.

    Raises:
        NaiveTimeError: one has no time zone; the message names its parameter.
    """
    return {name: _in_utc(value, name) for name, value in parameters.items()}


def _in_utc(value: Any, name: str) -> Any:
    if isinstance(value, datetime):
        return require_utc(value, name)
    if isinstance(value, dict):
        return {key: _in_utc(part, f"{name}.{key}") for key, part in value.items()}
    if isinstance(value, list):
        return [_in_utc(part, name) for part in value]
    return value


@contextmanager
def open_graph(graph: tuple[str, str, str, str]) -> Iterator[Bolt]:
    """Connect to the graph and check that it answers.

    Args:
        graph: URI, user, password, database.

    Raises:
        GraphUnavailableError: nothing answers there, or it refuses the user or the database.
    """
    from neo4j import GraphDatabase
    from neo4j.exceptions import DriverError, Neo4jError

    uri, user, password, database = graph
    with GraphDatabase.driver(
        uri,
        auth=(user, password),
        max_transaction_retry_time=RETRY_SECONDS,
        # Reading a property that no node has yet is normal here, not worth a warning per query.
        notifications_min_severity="OFF",
    ) as driver:
        try:
            driver.execute_query("RETURN 1 AS one", database_=database)
        except (DriverError, Neo4jError) as error:
            raise GraphUnavailableError(
                f"the graph at {uri} (database {database}, user {user}) does not answer: {error}; "
                "check LEADML_NEO4J_URI, _USER, _PASSWORD and _DATABASE"
            ) from error
        yield Bolt(driver, database)


def to_micros_utc(moment: Any) -> int | None:
    """Microseconds since 1970 of a Bolt datetime; one without zone is taken as UTC.

    Raises:
        TypeError: the property is no datetime, for example a date or text.
    """
    if moment is None:
        return None
    native = moment.to_native() if hasattr(moment, "to_native") else moment
    if not isinstance(native, datetime):
        raise TypeError(
            f"the graph holds {moment!r} where a datetime belongs; write it as datetime({moment!r})"
        )
    return to_micros(native.replace(tzinfo=UTC) if native.tzinfo is None else native)


class GraphUnavailableError(UserError):
    """The graph can't be reached, or does not let us in."""
