"""The skew audit: were the features that callers got the ones that training would have seen?

The serving app logs a sample of the vectors it hands out, each with the moment it is as of
(`leadml.served_features`). The audit computes them again, in bulk, over the newest extract, each as
of its own moment, and compares bit for bit: a missing value equals a missing value, a category is
compared by its word, `0.0` and `-0.0` differ. A difference is skew, unless it is one of two that
are proven to be none:

* **In flight**: a row bears a time (`ingested_at`) at or before the vector's moment, but its
  transaction had not been committed when the vector was computed: nobody could have seen it. The
  extract sees it. Such a row became known in the last seconds before the moment, so the vector is
  computed again without the entity's rows of these seconds, in a bounded number of
  combinations; if it then equals what was served, in every feature, that was it.
* **Later metrics**: graph metrics are computed some time after the moment that they are as of. A
  vector that was computed before them could not have them; the extract has them. This explains
  only features built on metrics whose `computed_at` is later than the vector's.

Both are reported apart and are not counted as skew. A source that writes rows long after the time
they bear, without an `ingested_at` that says so, is no such case: training sees such a row earlier
than serving ever could, and that is skew.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from leadml_pipelines.features.entity_types import entity_type
from leadml_pipelines.features.excused_differences import Excuses
from leadml_pipelines.features.frames import features_of
from leadml_pipelines.features.served_vectors import ServedVectors, count_newer, read_served
from leadml_pipelines.features.vector_comparison import Differences, compare
from leadml_pipelines.features.view import Value
from leadml_pipelines.times import require_utc

if TYPE_CHECKING:
    import pandas as pd

    from leadml_pipelines.features.catalogue import Catalogue
    from leadml_pipelines.features.duckdb_engine import DuckDBEngine

SAMPLE = 1_000
"""Vectors that are computed again, of each entity type."""
WITHIN = timedelta(days=1)
"""Of the vectors that can be audited, those served in the last day are drawn from."""


@dataclass(frozen=True)
class Mismatch:
    """One feature of one served vector that the offline engine computes otherwise.

    Attributes:
        entity_type: Such as `lead`.
        entity_id: Whose vector.
        feature: Which feature.
        served: What the caller got; None is missing.
        offline: What the offline engine computes.
        as_of: The moment that the vector describes.
        computed_at: When it was computed.
        served_at: When it was handed out.
        source: Where the reader found it.
    """

    entity_type: str
    entity_id: str
    feature: str
    served: Value
    offline: Value
    as_of: datetime
    computed_at: datetime
    served_at: datetime
    source: str


@dataclass(frozen=True)
class AuditReport:
    """What an audit found.

    Attributes:
        extract_as_of: The present of the extract that was computed from.
        audited: Vectors that were computed again.
        skewed: How many of them differ without excuse.
        mismatches: Their features that differ: skew.
        in_flight: Differences that a row explains whose transaction was still open.
        later_metrics: Differences that metrics explain which were computed after the vector.
        too_new: Logged vectors that describe a moment after the extract: for the next audit.
        gone: Vectors drawn whose entity the extract does not have at that moment.
    """

    extract_as_of: datetime
    audited: int = 0
    skewed: int = 0
    mismatches: tuple[Mismatch, ...] = ()
    in_flight: tuple[Mismatch, ...] = ()
    later_metrics: tuple[Mismatch, ...] = ()
    too_new: int = 0
    gone: int = 0

    @property
    def share(self) -> float:
        """Share of the audited vectors that are skewed; 0 when there are none."""
        return self.skewed / self.audited if self.audited else 0.0

    def __add__(self, other: AuditReport) -> AuditReport:
        """Both, for several entity types."""
        return AuditReport(
            self.extract_as_of,
            self.audited + other.audited,
            self.skewed + other.skewed,
            self.mismatches + other.mismatches,
            self.in_flight + other.in_flight,
            self.later_metrics + other.later_metrics,
            self.too_new + other.too_new,
            self.gone + other.gone,
        )

    def sentence(self) -> str:
        """The outcome in one line."""
        parts = [f"{self.audited:,} served vectors audited", f"{len(self.mismatches):,} mismatches"]
        if self.in_flight:
            parts.append(f"{len(self.in_flight):,} explained by rows in flight")
        if self.later_metrics:
            parts.append(f"{len(self.later_metrics):,} by later graph metrics")
        if self.too_new:
            parts.append(f"{self.too_new:,} vectors newer than the extract")
        if self.gone:
            parts.append(f"{self.gone:,} of entities that are gone")
        return ", ".join(parts)


def audit(
    url: str,
    engine: DuckDBEngine,
    catalogue: Catalogue,
    extract_as_of: datetime,
    *,
    sample: int = SAMPLE,
    within: timedelta = WITHIN,
) -> AuditReport:
    """Compute a sample of the served vectors again and compare.

    Args:
        url: `postgresql://...`, whose log is read.
        engine: Over the newest extract.
        catalogue: How features are computed.
        extract_as_of: The extract's present; vectors of a later moment wait for the next extract.
        sample: Vectors of each entity type, drawn at random.
        within: How far back from the newest auditable one they are drawn from.

    Raises:
        MissingTableError: the extract has no graph metrics yet, and features are built on them.
    """
    moment = require_utc(extract_as_of, "extract_as_of")
    report = AuditReport(moment)
    for entity in catalogue.entities:
        report += AuditReport(moment, too_new=count_newer(url, entity, moment))
        for served in read_served(url, entity, moment, sample=sample, within=within):
            report += replay(engine, catalogue, served, moment)
    return report


def replay(
    engine: DuckDBEngine, catalogue: Catalogue, served: ServedVectors, extract_as_of: datetime
) -> AuditReport:
    """Compute vectors of one schema again, each as of its own moment, and compare.

    A feature that only one side knows is not compared: the catalogue changed in between.

    Args:
        engine: Over an extract.
        catalogue: How features are computed.
        served: What was handed out, of moments up to the extract's.
        extract_as_of: The extract's present.
    """
    entity = served.document["entity_type"]
    everything = served.spine()
    spine = _existing(engine, entity, everything)
    gone = len(everything) - len(spine)
    views = [
        view
        for view in catalogue.views(entity)
        if any(feature.name in served.columns for feature in view.features)
    ]
    if spine.empty or not views:
        return AuditReport(extract_as_of, gone=gone)
    differing = compare(served, features_of(views), spine["n"], engine.compute(views, spine))
    found = Excuses(engine, catalogue, served, views, spine).sort(differing)
    return AuditReport(
        extract_as_of,
        audited=len(spine),
        skewed=len({n for n, _ in found.skew}),
        mismatches=_rows(served, found.skew),
        in_flight=_rows(served, found.in_flight),
        later_metrics=_rows(served, found.later_metrics),
        gone=gone,
    )


def _existing(engine: DuckDBEngine, entity: str, spine: pd.DataFrame) -> pd.DataFrame:
    """The rows of a spine whose entity the extract has at that moment."""
    kind = entity_type(entity)
    there = engine.sql(
        f"SELECT DISTINCT v.n FROM vectors AS v JOIN {kind.table} AS e "  # noqa: S608
        f"ON e.{kind.key} = v.entity_id WHERE {kind.exists('e', 'v.as_of')}",
        vectors=spine,
    )
    return spine[spine["n"].isin(there["n"])].reset_index(drop=True)


def _rows(served: ServedVectors, found: Differences) -> tuple[Mismatch, ...]:
    return tuple(
        Mismatch(
            served.document["entity_type"],
            served.entity_ids[n],
            difference.feature,
            difference.served,
            difference.offline,
            served.as_of[n],
            served.computed_at[n],
            served.served_at[n],
            served.sources[n],
        )
        for n, difference in found
    )
