"""Versions of leads that arrive after a newer one: they enter the history, not `leads`.

The first version of a lead is valid from its creation on, whenever it was written. When an older
one turns up, that one takes its place and the former first becomes valid from its own `updated_at`:
what was written later must not be seen earlier.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

_PROFILE = ("source", "campaign_id", "product_interest", "state", "household_id", "attributes")


def enter_late_versions(connection: psycopg.Connection[Any], schema: str) -> list[tuple[int]]:
    """Put older versions in `pg_temp.staged` into the history; return the numbers of those rows.

    The caller holds the locks of the leads. A version that says what the history says of its time
    already is left out. Where the history is not kept by our trigger, nothing is done: nobody knows
    there when the first version was written.
    """
    names = {
        "leads": sql.Identifier(schema, "leads"),
        "versions": sql.Identifier(schema, "lead_versions"),
        "profile": sql.SQL(", ").join(map(sql.Identifier, _PROFILE)),
        "staged": sql.SQL(", ").join(sql.Identifier("s", name) for name in _PROFILE),
        "known": sql.SQL(", ").join(sql.Identifier("v", name) for name in _PROFILE),
        "taken": sql.SQL(", ").join(
            sql.SQL("{c} = excluded.{c}").format(c=sql.Identifier(name)) for name in _PROFILE
        ),
    }
    if not _is_kept(connection, schema):
        return []
    connection.execute("DROP TABLE IF EXISTS pg_temp.late")
    connection.execute(
        sql.SQL(
            "CREATE TEMP TABLE late ON COMMIT DROP AS"
            " SELECT DISTINCT ON (s.lead_id, s.updated_at) s.*, f.first_at,"
            " s.updated_at < f.first_at AND s.updated_at ="
            " min(s.updated_at) OVER (PARTITION BY s.lead_id) AS oldest"
            " FROM pg_temp.staged s JOIN {leads} t ON t.lead_id = s.lead_id"
            " AND t.created_at = s.created_at AND t.updated_at > s.updated_at"
            " LEFT JOIN leadml.first_versions w ON w.lead_id = s.lead_id"
            " CROSS JOIN LATERAL (SELECT coalesce(w.updated_at, t.created_at) AS first_at) f"
            " LEFT JOIN LATERAL (SELECT * FROM {versions} v WHERE v.lead_id = s.lead_id"
            " AND v.valid_from <= s.updated_at ORDER BY v.valid_from DESC LIMIT 1) v ON true"
            " WHERE s.updated_at < f.first_at OR (s.updated_at > f.first_at"
            " AND v.valid_from < s.updated_at AND ({staged}) IS DISTINCT FROM ({known}))"
            " ORDER BY s.lead_id, s.updated_at, s.n"
        ).format(**names)
    )
    connection.execute(
        sql.SQL(
            "UPDATE {versions} v SET valid_from = s.first_at FROM pg_temp.late s"
            " WHERE s.oldest AND v.lead_id = s.lead_id AND v.valid_from = s.created_at"
            " AND NOT EXISTS (SELECT FROM {versions} x"
            " WHERE x.lead_id = s.lead_id AND x.valid_from = s.first_at)"
        ).format(**names)
    )
    connection.execute(
        sql.SQL(
            "INSERT INTO {versions} (lead_id, valid_from, {profile})"
            " SELECT lead_id, created_at, {profile} FROM pg_temp.late WHERE oldest"
            " ON CONFLICT (lead_id, valid_from) DO UPDATE SET {taken}"
        ).format(**names)
    )
    connection.execute(
        "INSERT INTO leadml.first_versions (lead_id, updated_at)"
        " SELECT lead_id, updated_at FROM pg_temp.late WHERE oldest"
        " ON CONFLICT (lead_id) DO UPDATE SET updated_at = excluded.updated_at"
    )
    connection.execute(
        sql.SQL(
            "INSERT INTO {versions} (lead_id, valid_from, {profile})"
            " SELECT lead_id, updated_at, {profile} FROM pg_temp.late WHERE NOT oldest"
            " ON CONFLICT DO NOTHING"
        ).format(**names)
    )
    return connection.execute("SELECT n FROM pg_temp.late").fetchall()


def _is_kept(connection: psycopg.Connection[Any], schema: str) -> bool:
    leads = sql.Identifier(schema, "leads").as_string(connection)
    found = connection.execute(
        "SELECT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = to_regclass(%s)"
        " AND tgenabled <> 'D' AND tgfoid = 'leadml.keep_lead_versions'::regproc)",
        (leads,),
    ).fetchone()
    return bool(found and found[0])
