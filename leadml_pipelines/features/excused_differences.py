"""Differences between served and computed vectors that are proven to be no skew.

The two cases, rows in flight and later metrics, are told in `features/audit.py`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from leadml_pipelines.features.compiler import compile_views
from leadml_pipelines.features.entity_types import entity_type
from leadml_pipelines.features.frames import features_of
from leadml_pipelines.features.lineage import lineage_of_view
from leadml_pipelines.features.served_vectors import ServedVectors
from leadml_pipelines.features.vector_comparison import Differences, compare
from leadml_pipelines.features.view import FeatureView
from leadml_pipelines.sources.contract import TABLES, Table

if TYPE_CHECKING:
    import pandas as pd

    from leadml_pipelines.features.catalogue import Catalogue
    from leadml_pipelines.features.duckdb_engine import DuckDBEngine

IN_FLIGHT = timedelta(seconds=2)
"""How long before a moment a row may bear its time and still have been in flight at the moment."""
EXPLAINED = 50
"""Vectors for which rows in flight are looked for; more than that are no accident."""
_TIMES = 3
"""Distinct times in flight up to which every combination is tried."""
_TRIES = 12
"""Combinations that are tried of more times than that: each costs a computation of all features."""


@dataclass
class SortedDifferences:
    """Differences by what they come from."""

    skew: Differences = field(default_factory=list)
    in_flight: Differences = field(default_factory=list)
    later_metrics: Differences = field(default_factory=list)


@dataclass(frozen=True)
class Excuses:
    """Looks for what excuses differences.

    Attributes:
        engine: Over the extract.
        catalogue: Where views find what they are built on.
        served: The vectors.
        views: Whose features were compared.
        spine: The vectors that were compared.
    """

    engine: DuckDBEngine
    catalogue: Catalogue
    served: ServedVectors
    views: Sequence[FeatureView]
    spine: pd.DataFrame

    def sort(self, differing: Differences) -> SortedDifferences:
        """Put every difference where it belongs."""
        result = SortedDifferences()
        if not differing:
            return result
        later = self._later_metrics({n for n, _ in differing})
        unexplained: dict[int, Differences] = {}
        for n, difference in differing:
            if (n, difference.feature) in later:
                result.later_metrics.append((n, difference))
            else:
                unexplained.setdefault(n, []).append((n, difference))
        rows = self._rows_in_flight(list(unexplained))
        for n, differences in unexplained.items():
            excused = {feature for m, feature in later if m == n}
            if self._equal_without(n, rows.get(n, {}), excused):
                result.in_flight += differences
            else:
                result.skew += differences
        return result

    def _later_metrics(self, places: set[int]) -> set[tuple[int, str]]:
        """Of which vectors which features rest on metrics that were computed after the vector."""
        explained: set[tuple[int, str]] = set()
        resting_on: dict[str, set[str]] = {}
        for view in self.views:
            traced = lineage_of_view(view, self.catalogue)
            for feature in view.features:
                for column in traced[feature.name].sources:
                    resting_on.setdefault(column.table, set()).add(feature.name)
        computed = self.engine.sql(
            "SELECT table_name FROM information_schema.columns "
            "WHERE column_name IN ('as_of', 'computed_at') GROUP BY ALL HAVING count(*) = 2"
        )["table_name"]
        vectors = self.spine[self.spine["n"].isin(places)]
        for table in resting_on.keys() & set(computed):
            late = self.engine.sql(
                f"SELECT v.n FROM vectors AS v ASOF JOIN (SELECT as_of, max(computed_at) AS "  # noqa: S608
                f"computed_at FROM {table} GROUP BY as_of) AS m ON v.as_of >= m.as_of "
                "WHERE m.computed_at > v.computed_at",
                vectors=vectors,
            )["n"].tolist()
            explained |= set(itertools.product(late, resting_on[table]))
        return explained

    def _rows_in_flight(self, places: Sequence[int]) -> dict[int, dict[str, pd.DataFrame]]:
        """Vector -> table -> keys and times of its own rows that may have been in flight."""
        entity = self.served.document["entity_type"]
        vectors = self.spine[self.spine["n"].isin(places[:EXPLAINED])]
        needed = self.catalogue.with_dependencies(self.views)
        found: dict[int, dict[str, pd.DataFrame]] = {}
        for name in dict.fromkeys(name for view in needed for name in view.inputs):
            owned = _owned(entity, TABLES[name]) if name in TABLES else ""
            if not owned:
                continue
            rows = self.engine.sql(
                f"SELECT v.n, t.* EXCLUDE (owner) FROM vectors AS v JOIN ({owned}) AS t "  # noqa: S608
                "ON t.owner = v.entity_id AND t.known_since <= v.as_of "
                "AND t.known_since > v.as_of - to_microseconds($before)",
                {"before": IN_FLIGHT // timedelta(microseconds=1)},
                vectors=vectors,
            )
            for n in rows["n"].unique().tolist():
                found.setdefault(n, {})[name] = rows[rows["n"] == n].drop(columns="n")
        return found

    def _equal_without(self, n: int, rows: Mapping[str, pd.DataFrame], excused: set[str]) -> bool:
        """Whether a vector is what it was served as when some rows in flight are left out."""
        times = sorted({time for frame in rows.values() for time in frame["known_since"]})
        features = [f for f in features_of(self.views) if f.name not in excused]
        for hidden in _combinations(times):
            left_out = {
                table: frame[frame["known_since"].isin(hidden)].drop(columns="known_since")
                for table, frame in rows.items()
            }
            if not compare(self.served, features, [n], self._compute_without(n, left_out)):
                return True
        return False

    def _compute_without(self, n: int, left_out: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
        tables = {
            table: f"(SELECT * FROM {table} ANTI JOIN left_out_{table} "  # noqa: S608
            f"USING ({', '.join(TABLES[table].key)}))"
            for table in left_out
        }
        statement = compile_views(
            self.views,
            "duckdb",
            catalogue=self.catalogue,
            tables=tables,
            spine="SELECT entity_id, as_of FROM vector",
        )
        return self.engine.sql(
            statement,
            None,
            vector=self.spine[self.spine["n"] == n][["entity_id", "as_of"]],
            **{f"left_out_{table}": rows for table, rows in left_out.items()},
        )


def _owned(entity: str, table: Table) -> str:
    """A SELECT of a table's rows with whose they are: owner, key, and since when they are known.

    Empty where the table has no rows that belong to one, and for the table of the entities
    themselves: a vector is there, so its entity was.

    Args:
        entity: Entity type of the owners. A row that names no agent belongs to those who were ever
            assigned to its lead.
        table: A source table.
    """
    kind = entity_type(entity)
    if table.name == kind.table:
        return ""
    keys = "".join(f", t.{key}" for key in table.key)
    rest = f"{keys}, t.{_known_since(table)} AS known_since FROM {table.name} AS t"
    owners = [kind.key] if kind.key in table.names else []
    if entity == "lead":
        owners = [*dict.fromkeys((*owners, *table.leads))]
    if entity == "agent" and not owners and "lead_id" in table.names:
        return (
            f"SELECT a.agent_id AS owner{rest} JOIN (SELECT DISTINCT agent_id, lead_id "  # noqa: S608
            "FROM assignments) AS a ON a.lead_id = t.lead_id"
        )
    return " UNION ALL ".join(f"SELECT t.{owner} AS owner{rest}" for owner in owners)


def _known_since(table: Table) -> str:
    """The column that tells when a row became known, or when it happened for want of that."""
    return (table.receipt or table.happened or table.times)[0]


def _combinations(times: Sequence[datetime]) -> Iterator[tuple[datetime, ...]]:
    """Which of some times to leave out, the likely ones of many first.

    All combinations of a few; of many all of them, then from the end on each time with those after
    it, and alone.
    """
    if len(times) <= _TIMES:
        for size in range(len(times), 0, -1):
            yield from itertools.combinations(times, size)
        return
    ends = range(len(times) - 1, 0, -1)
    likely = (tried for i in ends for tried in dict.fromkeys((tuple(times[i:]), (times[i],))))
    yield from itertools.islice(itertools.chain([tuple(times)], likely, [(times[0],)]), _TRIES)
