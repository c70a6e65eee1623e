"""Small random worlds: the same rows in PostgreSQL and in Parquet, and read by plain Python."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from leadml_pipelines.postgres import connect
from leadml_pipelines_tests.tables import empty_tables

NOW = datetime(2026, 4, 12, 9, 30, 15, 123457, tzinfo=UTC)
"""Between two changes to and from daylight saving time, with microseconds."""

MICROSECOND = timedelta(microseconds=1)

_TIME = pa.timestamp("us", "UTC")
SCHEMAS: dict[str, dict[str, pa.DataType]] = {
    "leads": {
        "lead_id": pa.string(),
        "created_at": _TIME,
        "source": pa.string(),
        "campaign_id": pa.string(),
        "product_interest": pa.string(),
        "state": pa.string(),
        "household_id": pa.string(),
        "attributes": pa.string(),
        "updated_at": _TIME,
    },
    "lead_versions": {
        "lead_id": pa.string(),
        "valid_from": _TIME,
        "source": pa.string(),
        "campaign_id": pa.string(),
        "product_interest": pa.string(),
        "state": pa.string(),
        "household_id": pa.string(),
        "attributes": pa.string(),
    },
    "lead_events": {
        "event_id": pa.string(),
        "lead_id": pa.string(),
        "event_type": pa.string(),
        "channel": pa.string(),
        "direction": pa.string(),
        "agent_id": pa.string(),
        "value": pa.decimal128(18, 4),
        "properties": pa.string(),
        "occurred_at": _TIME,
        "ingested_at": _TIME,
    },
    "agents": {
        "agent_id": pa.string(),
        "hired_at": _TIME,
        "specialty": pa.string(),
        "capacity": pa.int32(),
    },
    "assignments": {
        "lead_id": pa.string(),
        "agent_id": pa.string(),
        "assigned_at": _TIME,
        "ended_at": _TIME,
    },
    "policies": {
        "policy_id": pa.string(),
        "lead_id": pa.string(),
        "product": pa.string(),
        "annual_premium": pa.decimal128(18, 2),
        "bound_at": _TIME,
        "cancelled_at": _TIME,
    },
    "closures": {"lead_id": pa.string(), "closed_at": _TIME, "reason": pa.string()},
    "referrals": {
        "from_lead_id": pa.string(),
        "to_lead_id": pa.string(),
        "referred_at": _TIME,
    },
    "graph_metrics": {
        "entity_type": pa.string(),
        "entity_id": pa.string(),
        "as_of": _TIME,
        "computed_at": _TIME,
        "degree": pa.int32(),
        "degree_referral": pa.int32(),
        "degree_referral_made": pa.int32(),
        "degree_referral_received": pa.int32(),
        "degree_household": pa.int32(),
        "degree_assignment": pa.int32(),
        "pagerank": pa.float64(),
        "betweenness": pa.float64(),
        "closeness": pa.float64(),
        "clustering": pa.float64(),
        "core": pa.int32(),
        "community": pa.string(),
        "community_size": pa.int32(),
        "community_share": pa.float64(),
        "community_conversion_rate": pa.float64(),
        "referral_depth": pa.int32(),
        "referral_descendants": pa.int32(),
        "household_size": pa.int32(),
        "household_conversions": pa.int32(),
        "agent_load": pa.int32(),
        "agent_conversion_rate": pa.float64(),
        "nodes": pa.int32(),
    },
}

EVENTS = (
    ("email_sent", "email", "outbound"),
    ("email_open", "email", "inbound"),
    ("email_click", "email", "inbound"),
    ("email_reply", "email", "inbound"),
    ("call_attempt", "phone", "outbound"),
    ("call_connected", "phone", "outbound"),
    ("call_connected", "phone", "inbound"),
    ("call_inbound", "phone", "inbound"),
    ("page_view", "web", "inbound"),
    ("quote_request", "web", "inbound"),
    ("form_submit", "web", "inbound"),
    ("quote_sent", "email", "outbound"),
    ("document_received", "mail", "inbound"),
    ("note", "internal", "internal"),
    ("renewal_notice", "email", "outbound"),
)


@dataclass
class World:
    """Rows of every table that features read."""

    tables: dict[str, list[dict[str, Any]]] = field(
        default_factory=lambda: {name: [] for name in SCHEMAS}
    )

    def add(self, table: str, **row: Any) -> World:
        """Add a row; columns that are left out are null, or what a quick test does not care for."""
        known = SCHEMAS[table]
        defaults: dict[str, Any] = {"attributes": "{}", "properties": "{}"}
        if table == "leads":
            defaults |= {"source": "web", "updated_at": row["created_at"]}
        if table == "lead_versions":
            defaults |= {"source": "web"}
        if table == "lead_events":
            defaults |= {
                "event_id": f"e{len(self.tables[table])}",
                "event_type": "page_view",
                "channel": "web",
                "direction": "inbound",
                "ingested_at": row["occurred_at"],
            }
        if table == "policies":
            defaults |= {
                "policy_id": f"p{len(self.tables[table])}",
                "product": "auto",
                "annual_premium": Decimal("100.00"),
            }
        if table == "closures":
            defaults |= {"reason": "lost"}
        if table == "agents":
            defaults |= {"capacity": 5}
        if table == "graph_metrics":
            defaults |= {
                "entity_type": "lead",
                "computed_at": row["as_of"],
                **{c: 0 for c, t in known.items() if pa.types.is_integer(t)},
                **{c: 0.0 for c, t in known.items() if pa.types.is_floating(t)},
                "degree": 1,
                "degree_referral": 1,
                "pagerank": 0.125,
                "agent_conversion_rate": None,
                "community": "c",
                "community_size": 3,
                "nodes": 8,
            }
        whole = {**{k: v for k, v in defaults.items() if k in known}, **row}
        self.tables[table].append({name: whole.get(name) for name in known})
        return self

    def lead(self, lead_id: str, created_at: datetime, **more: Any) -> World:
        """Add a lead and its first version."""
        self.add("leads", lead_id=lead_id, created_at=created_at, **more)
        return self.add("lead_versions", lead_id=lead_id, valid_from=created_at, **more)

    def event(self, lead_id: str, occurred_at: datetime, **more: Any) -> World:
        """Add an event, by default a page view known at once."""
        return self.add("lead_events", lead_id=lead_id, occurred_at=occurred_at, **more)

    def before(self, moment: datetime) -> World:
        """The world without anything that happened or became known after a moment."""
        ends = {"ended_at", "cancelled_at"}
        # Later changes of a lead are in its versions; its own row shows the present.
        present = {"updated_at", "computed_at"}
        kept = World()
        for name, rows in self.tables.items():
            clocks = [c for c, t in SCHEMAS[name].items() if t == _TIME and c not in ends | present]
            for row in rows:
                if any(row[clock] is not None and row[clock] > moment for clock in clocks):
                    continue
                row = dict(row)
                for end in ends & row.keys():
                    if row[end] is not None and row[end] > moment:
                        row[end] = None
                kept.tables[name].append(row)
        return kept

    def parquet(self, folder: Path, *, shuffle: int | None = None) -> dict[str, Path]:
        """Write every table as Parquet; what an extract fills in is filled in."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = {}
        for name, rows in self.tables.items():
            if shuffle is not None:
                rows = random.Random(shuffle).sample(rows, len(rows))  # noqa: S311
            if name == "lead_events":
                rows = [row | {"ingested_at": known_at(row)} for row in rows]
            columns = {c: pa.array([r[c] for r in rows], t) for c, t in SCHEMAS[name].items()}
            paths[name] = folder / f"{name}.parquet"
            pq.write_table(pa.table(columns), paths[name])
        return paths

    def load(self, url: str) -> None:
        """Replace what PostgreSQL holds by this world."""
        with connect(url) as connection:
            # As in a customer's view: our own table would refuse an unknown time.
            connection.execute("ALTER TABLE crm.lead_events ALTER ingested_at DROP NOT NULL")
            for name, columns in SCHEMAS.items():
                schema = "leadml" if name == "graph_metrics" else "crm"
                empty_tables(connection, f"{schema}.{name}")
                rows = self.tables[name]
                with connection.cursor().copy(
                    f"COPY {schema}.{name} ({', '.join(columns)}) FROM STDIN"
                ) as copy:
                    for row in rows:
                        copy.write_row([row[column] for column in columns])
                if name == "leads":
                    connection.execute("DELETE FROM crm.lead_versions")
            for name in SCHEMAS:
                connection.execute(
                    f"ANALYZE {'leadml' if name == 'graph_metrics' else 'crm'}.{name}"
                )

    def normalized(self, url: str) -> World:
        """This world with JSON spelled as PostgreSQL spells it, as an extract would hold it."""
        result = World({name: [dict(r) for r in rows] for name, rows in self.tables.items()})
        with connect(url) as connection:
            for rows in result.tables.values():
                for column in ("attributes", "properties"):
                    texts = [r[column] for r in rows if column in r]
                    found = connection.execute(
                        "SELECT (t::jsonb)::text FROM unnest(%s::text[]) WITH ORDINALITY u(t, i) "
                        "ORDER BY i",
                        (texts,),
                    ).fetchall()
                    for row, (text,) in zip((r for r in rows if column in r), found, strict=True):
                        row[column] = text
        return result


def known_at(event: dict[str, Any]) -> datetime:
    """When an event became known: when it happened, where nothing else is told."""
    ingested_at: datetime | None = event["ingested_at"]
    return event["occurred_at"] if ingested_at is None else ingested_at


def empty_graph_metrics(folder: Path) -> Path:
    """The file of a graph that is younger than its first Monday: all columns and no row."""
    return World().parquet(folder)["graph_metrics"]


def spine(*rows: tuple[str | None, datetime]) -> pd.DataFrame:
    """A spine of ids and times."""
    return pd.DataFrame(
        {
            "entity_id": pd.Series([r[0] for r in rows], dtype=object),
            "as_of": pd.Series([r[1] for r in rows], dtype="datetime64[us, UTC]"),
        }
    )


_NUMBERS = ("0", "17", "5000", "12345.67", "0.1", "5000.000000000", "1e3", "-4", "1e400", '"35"')
_ODD = ('"n/a"', "null", "true", "{}", "[1, 2]", '"1e999"', '" 7"', "0.0000001", '"٣"')


def random_metrics(r: random.Random) -> dict[str, float]:
    """Every number of a row of graph metrics, in its range."""
    return {
        name: r.randrange(1, 9) if pa.types.is_integer(kind) else r.random()
        for name, kind in SCHEMAS["graph_metrics"].items()
        if pa.types.is_integer(kind) or pa.types.is_floating(kind)
    }


def random_world(seed: int, *, leads: int = 12, events: int = 250) -> World:
    """A world full of ties, late arrivals, exact window edges, changes of mind and odd JSON."""
    r = random.Random(seed)  # noqa: S311 - repeatable, not secret
    world = World()

    def moment(days: float = 120) -> datetime:
        kind = r.random()
        if kind < 0.35:  # exactly on an edge of a window, or one microsecond off it
            edge = NOW - timedelta(days=r.choice((0, 0, 1, 7, 30, 90)))
            return edge + MICROSECOND * r.choice((-1, 0, 0, 1))
        return NOW - timedelta(microseconds=r.randrange(int(days * 86_400e6))) + timedelta(days=10)

    def maybe(value: Any, chance: float = 0.7) -> Any:
        return value if r.random() < chance else None

    def attributes() -> str:
        content: dict[str, str] = {}
        for name in ("age", "requested_amount"):
            if r.random() < 0.8:
                content[name] = r.choice(_NUMBERS if r.random() < 0.8 else _ODD)
        for name, values in (
            ("income_band", ('"low"', '"middle"', '"high"', '"huge"', "3")),
            ("credit_band", ('"poor"', '"fair"', '"good"', '"excellent"', "null")),
            ("has_current_insurer", ("true", "false", "null", '"true"', "1")),
        ):
            if r.random() < 0.8:
                content[name] = r.choice(values)
        if r.random() < 0.2:
            content["nested"] = json.dumps({"age": 9, "text": 'a "quoted" \\ ü'})
        return "{" + ", ".join(f'"{k}": {v}' for k, v in content.items()) + "}"

    def properties() -> str:
        topic = r.choice(('"complaint"', '"bill"', '"Complaint"', "null", "7", '{"topic": "bill"}'))
        return f'{{"topic": {topic}}}' if r.random() < 0.6 else '{"page": {"topic": "complaint"}}'

    ids = [f"lead_{i}" for i in range(leads)]
    for i in ids:
        created = moment()
        for k in range(r.choice((1, 1, 2, 4))):
            facts = {
                "source": r.choice(("web", "referral", "social", "Ünïcode'")),
                "campaign_id": maybe(r.choice("ABC")),
                "product_interest": maybe(r.choice(("auto", "home"))),
                "state": maybe(r.choice(("CA", "NY"))),
                "household_id": maybe("h", 0.4),
                "attributes": attributes(),
            }
            if k == 0:
                world.lead(i, created, **facts)
                times = {created}
                continue
            at = max(created, moment())
            if at not in times:
                times.add(at)
                world.add("lead_versions", lead_id=i, valid_from=at, **facts)
    for _ in range(events):
        kind, channel, direction = r.choice(EVENTS)
        at = moment()
        late = r.choice((0, 0, None, 1, 3600e6, 20 * 86_400e6, -5))
        world.event(
            r.choice([*ids, "nobody"]),
            at,
            event_type=kind,
            channel=channel,
            direction=direction,
            agent_id=maybe(r.choice("ab"), 0.4),
            value=maybe(Decimal(r.randrange(-(10**17), 10**17)).scaleb(-4), 0.2)
            if r.random() < 0.1
            else maybe(Decimal(r.randrange(10**7)).scaleb(-4)),
            properties=properties(),
            ingested_at=None if late is None else at + timedelta(microseconds=late),
        )
    for agent in ("a", "b", "idle", "unborn"):
        world.add(
            "agents",
            agent_id=agent,
            hired_at={"a": None, "unborn": NOW + timedelta(days=5)}.get(agent, moment()),
            specialty=maybe(r.choice(("auto", "home"))),
            capacity=maybe(r.choice((0, 1, 3))),
        )
    for _ in range(2 * leads):
        start = moment()
        end = maybe(start + timedelta(days=r.choice((0, 1, 15))))
        world.add(
            "policies",
            product=r.choice(("auto", "home", "life", "health", "boat")),
            lead_id=r.choice(ids),
            bound_at=start,
            cancelled_at=end,
            annual_premium=Decimal(r.randrange(10**6)).scaleb(-2),
        )
    seen: set[Any] = set()
    for _ in range(leads):
        start = moment()
        agent, lead = r.choice(("a", "b")), r.choice(ids)
        end = maybe(start + timedelta(days=r.choice((0, 1, 15))))
        if ("a", lead, agent, start) not in seen:
            world.add("assignments", lead_id=lead, agent_id=agent, assigned_at=start, ended_at=end)
        if r.random() < 0.4 and ("c", lead, start) not in seen:
            world.add("closures", lead_id=lead, closed_at=start)
        other = r.choice(ids)
        if ("r", lead, other) not in seen:
            world.add("referrals", from_lead_id=lead, to_lead_id=other, referred_at=moment())
        if ("g", lead, start) not in seen:
            world.add(
                "graph_metrics",
                entity_id=lead,
                as_of=start,
                **random_metrics(r),
            )
            world.add("graph_metrics", entity_type="agent", entity_id=lead, as_of=start, degree=77)
        if ("g", agent, start) not in seen:
            world.add(
                "graph_metrics",
                entity_type="agent",
                entity_id=agent,
                as_of=start,
                **random_metrics(r),
            )
        seen |= {("a", lead, agent, start), ("c", lead, start)}
        seen |= {("g", lead, start), ("g", agent, start)}
        seen.add(("r", lead, other))
    return world
