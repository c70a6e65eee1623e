"""The kinds of relations: how rows of the source tables are paired with a spine, and nothing later.

Each engine gets the form that it is good at:

* `Latest` is an ASOF join in DuckDB and a `LATERAL ... LIMIT 1` on the key's index in PostgreSQL.
* `Known` is a join on the key. With `within_days` DuckDB joins on the key and on a bucket of time
  as wide as the window, so that a row of the spine meets the rows of two buckets and never a whole
  history; PostgreSQL scans that stretch of an index.
* `Totals` has no window. Paired and grouped, it costs as many pairs as the spine has rows for each
  row of the table: right for a spine with a few rows per entity. For more (`deep`) DuckDB keeps
  running totals along the table and joins them ASOF, which costs the same however many rows of the
  spine there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

Dialect = Literal["duckdb", "postgres", "spark"]

TEXT, TIME, DOUBLE, INTEGER, MONEY = "string", "timestamp", "double", "bigint", "decimal(18,4)"
"""Column types as the DataFrame API spells them."""

_DAY_MICROS = 86_400_000_000


@dataclass(frozen=True)
class Known:
    """Every row of a table that was known at `as_of`, beside the spine's row.

    Attributes:
        name: What views call it.
        table: Source table.
        key: Column that holds the entity.
        clocks: Time columns that must all be `<= as_of`.
        columns: Column name -> type.
        masked: Time columns (ends, cancellations) that read as null while they lie after `as_of`.
        instead: Clock that may be null -> the clock that then counts.
        always: Clocks that, where they are null, have always held.
        within_days: Only rows whose first clock lies in the last so many times 24 hours.
        joined: Other source tables that `source` reads.
        source: A SELECT that stands for the table, with `{table}` for the name of each table.
    """

    name: str
    table: str
    key: str
    clocks: tuple[str, ...]
    columns: Mapping[str, str]
    masked: tuple[str, ...] = ()
    instead: Mapping[str, str] = field(default_factory=dict)
    always: tuple[str, ...] = ()
    within_days: int | None = None
    joined: tuple[str, ...] = ()
    source: str = ""

    @property
    def tables(self) -> tuple[str, ...]:
        """The source tables it reads."""
        return (self.table, *self.joined)

    @property
    def all_columns(self) -> dict[str, str]:
        """Columns that views see beside the keys."""
        return dict(self.columns)

    def sql(self, dialect: Dialect, names: Mapping[str, str], *, deep: bool = False) -> str:
        """The relation as a SELECT over `spine`.

        Args:
            dialect: The engine.
            names: Source table -> how the engine spells it.
            deep: Means nothing here.
        """
        columns = "".join(
            f", CASE WHEN r.{name} <= s.as_of THEN r.{name} END AS {name}"
            if name in self.masked
            else f", r.{name} AS {name}"
            for name in self.columns
        )
        tests = [f"r.{self.key} = s.entity_id", *(self._known(clock) for clock in self.clocks)]
        spine, rows = "spine", self._rows(names)
        if self.within_days is not None:
            since = f"s.as_of - INTERVAL '{24 * self.within_days}' HOUR"
            tests.append(f"r.{self.clocks[0]} > {since}")
            if dialect == "duckdb":
                tests.insert(1, "r.bucket = s.bucket")
                spine, rows = self._bucketed(rows)
        return (
            f"SELECT s.entity_id, s.as_of{columns} FROM {spine} AS s "  # noqa: S608
            f"JOIN {rows} AS r ON {' AND '.join(tests)}"
        )

    def _rows(self, names: Mapping[str, str]) -> str:
        if not self.source:
            return names[self.table]
        return f"({self.source.format_map(names)})"

    def _bucketed(self, rows: str) -> tuple[str, str]:
        """Spine and rows with the bucket of time that they lie in, the spine in the one before too.

        A window that is as wide as a bucket reaches back into the one before, and no further.
        """
        width = (self.within_days or 0) * _DAY_MICROS
        spine = (
            "(SELECT entity_id, as_of, UNNEST([bucket, bucket - 1]) AS bucket FROM "  # noqa: S608
            f"(SELECT entity_id, as_of, EPOCH_US(as_of) // {width} AS bucket FROM spine))"
        )
        return spine, (
            f"(SELECT *, EPOCH_US({self.clocks[0]}) // {width} AS bucket FROM {rows} AS t)"  # noqa: S608
        )

    def _known(self, clock: str) -> str:
        if clock in self.instead:
            return f"COALESCE(r.{clock}, r.{self.instead[clock]}) <= s.as_of"
        if clock in self.always:
            return f"COALESCE(r.{clock} <= s.as_of, TRUE)"
        return f"r.{clock} <= s.as_of"


@dataclass(frozen=True)
class Latest:
    """The newest row of a table with `time <= as_of`, if there is one, beside the spine's row.

    Key and time together must be unique in the table (they are its primary key in the contract).

    Attributes:
        name: What views call it.
        table: Source table.
        key: Column that holds the entity.
        time: Column that orders the rows; views read it as `valid_from`.
        columns: Column name -> type.
        where: Columns that must equal a constant text.
    """

    name: str
    table: str
    key: str
    time: str
    columns: Mapping[str, str]
    where: Mapping[str, str] = field(default_factory=dict)

    @property
    def tables(self) -> tuple[str, ...]:
        """The source tables it reads."""
        return (self.table,)

    @property
    def all_columns(self) -> dict[str, str]:
        """Columns that views see beside the keys."""
        return {"valid_from": TIME, **self.columns}

    def sql(self, dialect: Dialect, names: Mapping[str, str], *, deep: bool = False) -> str:
        """The relation as a SELECT over `spine`.

        Args:
            dialect: The engine.
            names: Source table -> how the engine spells it.
            deep: Means nothing here.
        """
        table = names[self.table]
        columns = "".join(f", r.{name} AS {name}" for name in self.columns)
        head = f"SELECT s.entity_id, s.as_of, r.{self.time} AS valid_from{columns}"
        tests = [f"t.{name} = '{value}'" for name, value in self.where.items()]
        where = f" WHERE {' AND '.join(tests)}" if tests else ""
        if dialect == "duckdb":
            return (
                f"{head} FROM spine AS s ASOF JOIN (SELECT * FROM {table} AS t{where}) AS r "  # noqa: S608
                f"ON r.{self.key} = s.entity_id AND r.{self.time} <= s.as_of"
            )
        seen = [f"t.{self.key} = s.entity_id", f"t.{self.time} <= s.as_of", *tests]
        if dialect == "postgres":
            return (
                f"{head} FROM spine AS s CROSS JOIN LATERAL ("  # noqa: S608
                f"SELECT t.* FROM {table} AS t WHERE {' AND '.join(seen)} "
                f"ORDER BY t.{self.time} DESC LIMIT 1) AS r"
            )
        return (
            f"{head} FROM (SELECT s.entity_id, s.as_of, MAX(t.{self.time}) AS newest "  # noqa: S608
            f"FROM spine AS s JOIN {table} AS t ON {' AND '.join(seen)} "
            f"GROUP BY s.entity_id, s.as_of) AS s JOIN (SELECT * FROM {table} AS t{where}) AS r "
            f"ON r.{self.key} = s.entity_id AND r.{self.time} = s.newest"
        )


@dataclass(frozen=True)
class Total:
    """One column of `Totals`.

    Attributes:
        how: `count`, or `min` or `max` of `clock`.
        condition: SQL over the table's columns that a row must meet; empty for all.
    """

    how: Literal["count", "min", "max"]
    condition: str = ""

    def sql(self, column: str) -> str:
        """The aggregate, with the same result on every engine: over times and counts only."""
        what = column if self.how != "count" else "1"
        return f"{self.how.upper()}(CASE WHEN {self.condition or 'TRUE'} THEN {what} END)"


@dataclass(frozen=True)
class Totals:
    """Counts, first and last times over all rows of a table that were known at `as_of`.

    Has no row for a spine's row at which nothing was known.

    Attributes:
        name: What views call it.
        table: Source table.
        key: Column that holds the entity.
        clock: When a row happened: what `min` and `max` are of.
        known: When a row was known; where it is null, when it happened.
        totals: Column name -> what it is.
    """

    name: str
    table: str
    key: str
    clock: str
    known: str
    totals: Mapping[str, Total]

    @property
    def tables(self) -> tuple[str, ...]:
        """The source tables it reads."""
        return (self.table,)

    @cached_property
    def all_columns(self) -> dict[str, str]:
        """Columns that views see beside the keys."""
        return {n: INTEGER if t.how == "count" else TIME for n, t in self.totals.items()}

    def sql(self, dialect: Dialect, names: Mapping[str, str], *, deep: bool = False) -> str:
        """The relation as a SELECT over `spine`.

        Args:
            dialect: The engine.
            names: Source table -> how the engine spells it.
            deep: Whether the spine has many rows per entity.
        """
        table = names[self.table]
        # A row is seen from the moment on at which both have passed.
        seen = f"GREATEST(t.{self.clock}, COALESCE(t.{self.known}, t.{self.clock}))"
        if deep and dialect == "duckdb":
            running = ", ".join(
                f"{t.sql(f't.{self.clock}')} OVER seen AS {n}" for n, t in self.totals.items()
            )
            columns = "".join(f", r.{name}" for name in self.totals)
            # A RANGE frame holds all rows of the same moment, so that any of them is the last.
            return (
                f"SELECT s.entity_id, s.as_of{columns} FROM spine AS s ASOF JOIN ("  # noqa: S608
                f"SELECT t.{self.key}, {seen} AS seen_at, {running} FROM {table} AS t "
                f"WHERE t.{self.key} IN (SELECT entity_id FROM spine) "
                f"WINDOW seen AS (PARTITION BY t.{self.key} ORDER BY {seen} "
                "RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)) AS r "
                f"ON r.{self.key} = s.entity_id AND r.seen_at <= s.as_of"
            )
        columns = "".join(f", {t.sql(f't.{self.clock}')} AS {n}" for n, t in self.totals.items())
        return (
            f"SELECT s.entity_id, s.as_of{columns} FROM spine AS s JOIN {table} AS t "  # noqa: S608
            f"ON t.{self.key} = s.entity_id AND t.{self.clock} <= s.as_of AND {seen} <= s.as_of "
            "GROUP BY s.entity_id, s.as_of"
        )


@dataclass(frozen=True)
class CurrentAgent:
    """The agent who works on the lead at `as_of`, and what was known about the agent then.

    Of several assignments that run, the newest; of several begun at one moment, the one of the
    smallest agent id, byte by byte. Beside it stand the agent's row in `agents` (missing before the
    agent was hired) and the agent's newest row in `graph_metrics` (missing before there is one).
    Has no row where no agent works on the lead.

    Attributes:
        name: What views call it.
        agents: Columns of `agents` -> type.
        metrics: Columns of `graph_metrics` -> type.
    """

    name: str
    agents: Mapping[str, str]
    metrics: Mapping[str, str]

    @property
    def tables(self) -> tuple[str, ...]:
        """The source tables it reads."""
        return ("assignments", "agents", "graph_metrics")

    @property
    def all_columns(self) -> dict[str, str]:
        """Columns that views see beside the keys."""
        return {"agent_id": TEXT, "assigned_at": TIME, **self.agents, **self.metrics}

    def sql(self, dialect: Dialect, names: Mapping[str, str], *, deep: bool = False) -> str:
        """The relation as a SELECT over `spine`.

        Args:
            dialect: The engine.
            names: Source table -> how the engine spells it.
            deep: Means nothing here.
        """
        columns = "".join(
            f", {alias}.{name} AS {name}"
            for alias, some in (("a", self.agents), ("m", self.metrics))
            for name in some
        )
        runs = (
            "t.lead_id = s.entity_id AND t.assigned_at <= s.as_of "
            "AND (t.ended_at IS NULL OR t.ended_at > s.as_of)"
        )
        agent = (
            f"LEFT JOIN {names['agents']} AS a "
            "ON a.agent_id = c.agent_id AND COALESCE(a.hired_at <= c.as_of, TRUE)"
        )
        metrics = (
            f"(SELECT * FROM {names['graph_metrics']} AS g "  # noqa: S608
            "WHERE g.entity_type = 'agent') AS m "
            "ON m.entity_id = c.agent_id AND m.as_of <= c.as_of"
        )
        if dialect == "postgres":
            return (
                f"SELECT c.entity_id, c.as_of, c.agent_id, c.assigned_at{columns} FROM ("  # noqa: S608
                "SELECT s.entity_id, s.as_of, r.agent_id, r.assigned_at FROM spine AS s "
                f"CROSS JOIN LATERAL (SELECT t.* FROM {names['assignments']} AS t WHERE {runs} "
                # As the other engines compare text.
                'ORDER BY t.assigned_at DESC, t.agent_id COLLATE "C" LIMIT 1) AS r) AS c '
                f"{agent} LEFT JOIN LATERAL (SELECT g.* FROM {names['graph_metrics']} AS g "
                "WHERE g.entity_type = 'agent' AND g.entity_id = c.agent_id "
                "AND g.as_of <= c.as_of ORDER BY g.as_of DESC LIMIT 1) AS m ON TRUE"
            )
        current = (
            "(SELECT * FROM (SELECT s.entity_id, s.as_of, t.agent_id, t.assigned_at, "  # noqa: S608
            "ROW_NUMBER() OVER (PARTITION BY s.entity_id, s.as_of "
            "ORDER BY t.assigned_at DESC, t.agent_id) AS place FROM spine AS s "
            f"JOIN {names['assignments']} AS t ON {runs}) AS p WHERE place = 1) AS c"
        )
        if dialect == "duckdb":
            return (
                f"SELECT c.entity_id, c.as_of, c.agent_id, c.assigned_at{columns} "  # noqa: S608
                f"FROM {current} ASOF LEFT JOIN {metrics} {agent}"
            )
        return (
            "SELECT * FROM (SELECT c.entity_id, c.as_of, c.agent_id, "  # noqa: S608
            f"c.assigned_at{columns}, ROW_NUMBER() OVER (PARTITION BY c.entity_id, c.as_of "
            f"ORDER BY m.as_of DESC) AS newest FROM {current} LEFT JOIN {metrics} {agent}) AS n "
            "WHERE newest = 1"
        )


Relation = Known | Latest | Totals | CurrentAgent
