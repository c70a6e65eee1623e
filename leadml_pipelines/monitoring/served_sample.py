"""The vectors that a model answered by, out of the sampled log of what was served.

`leadml.served_features` has every vector with a chance that was kept with it, and has it once
however often it was served (`serving/served_log.py`); the log of predictions has every answer.
Together they tell whose features went into answers of this model, and how likely an entity is to be
in the sample: `1 - (1 - share) ** answers`. Entities that were asked about often are thinned out to
the chance of the one asked about least, so that each counts once, as it does in a snapshot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from leadml_pipelines.learning.encoding import CATEGORY
from leadml_pipelines.monitoring.patience import connect

if TYPE_CHECKING:
    import pandas as pd

BEFORE = timedelta(days=7)
"""A vector of the day may have been served, and logged, so long before it."""

# An answer's vector is known by whose it is and what moment it describes.
_SAMPLE = """
WITH asked AS (
    SELECT entity_id, features_as_of AS as_of, count(*) AS answers FROM leadml.predictions
    WHERE entity_type = %(entity)s AND predicted_at > %(early)s AND predicted_at <= %(until)s
    GROUP BY entity_id, features_as_of
    HAVING bool_or(model_name = %(name)s AND predicted_at > %(since)s)
), mine AS (
    SELECT entity_id, as_of, sum(answers) OVER (PARTITION BY entity_id)::float8 AS answers
    FROM asked
)
SELECT DISTINCT ON (f.entity_id) f.schema_id, f.vector, f.share, m.answers
FROM leadml.served_features f
JOIN mine m ON m.entity_id = f.entity_id AND m.as_of = f.as_of
WHERE f.entity_type = %(entity)s AND f.share > 0
AND f.served_at > %(early)s AND f.served_at <= %(until)s
ORDER BY f.entity_id, f.as_of DESC, f.served_at DESC
"""
_SCHEMAS = "SELECT schema_id, document FROM leadml.served_schemas WHERE entity_type = %s"


def read_served_sample(
    url: str, name: str, entity: str, since: datetime, until: datetime, seed: int
) -> pd.DataFrame:
    """A fair sample of the entities that a model answered about, each with a vector it answered by.

    Args:
        url: PostgreSQL, migrated.
        name: Name of the model.
        entity: Its entity type.
        since: Of answers after that.
        until: Of answers up to then.
        seed: Of the thinning.

    Returns:
        A column per feature of the vectors' schemas, numbers as float64 and categories as words; a
        feature that a vector's schema does not have is missing there. No rows where none is logged.
    """
    import pandas as pd

    times = {"since": since, "until": until, "early": since - BEFORE}
    with connect(url) as connection:
        # Nobody can tell beforehand how many groups there are, and a loop in a loop takes hours.
        connection.execute("SET LOCAL enable_nestloop = off")
        rows = connection.execute(_SAMPLE, {"name": name, "entity": entity, **times}).fetchall()
        documents = dict(connection.execute(_SCHEMAS, (entity,)).fetchall())
    if not rows:
        return pd.DataFrame()
    share, answers = (np.array([row[at] for row in rows], np.float64) for at in (2, 3))
    chance = 1 - (1 - share) ** answers
    kept = np.random.default_rng(seed).random(len(rows)) < chance.min() / chance
    schemas: dict[int, list[Sequence[float]]] = {}
    for (schema_id, vector, *_), keep in zip(rows, kept, strict=True):
        if keep:
            schemas.setdefault(schema_id, []).append(vector)
    return pd.concat(
        [_decoded(documents[schema_id], vectors) for schema_id, vectors in schemas.items()],
        ignore_index=True,
    )


def _decoded(document: Mapping[str, Any], vectors: list[Sequence[float]]) -> pd.DataFrame:
    import pandas as pd

    values = np.array(vectors, np.float64)
    columns: dict[str, Any] = {}
    for at, entry in enumerate(document["features"]):
        column = values[:, at]
        if entry["type"] == CATEGORY:
            words = entry["vocabulary"]
            named = [None if np.isnan(code) else words[int(code)] for code in column]
            columns[entry["name"]] = pd.Series(named, dtype=object)
        else:
            columns[entry["name"]] = pd.Series(column)
    return pd.DataFrame(columns)
