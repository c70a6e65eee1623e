"""Point-in-time training sets: each row of a spine with the features as of its own time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from leadml_pipelines.features.frames import features_of
from leadml_pipelines.features.spines import require_free
from leadml_pipelines.features.view import FeatureView

if TYPE_CHECKING:
    import pandas as pd

    from leadml_pipelines.features.duckdb_engine import DuckDBEngine


def training_set(
    spine: pd.DataFrame, views: Sequence[FeatureView], engine: DuckDBEngine
) -> pd.DataFrame:
    """Add the features of views to a spine, as they were known at each row's time.

    Args:
        spine: `entity_id` (text), `as_of` (timezone-aware), and any other columns, such as labels.
            It is not changed. The same entity may come at many times, the same row twice.
        views: Whose features to add.
        engine: Where the sources are.

    Returns:
        A new frame with the spine's index, order and columns, then one column per feature. Every
        row of the spine is there once; an unknown entity has the features' defaults.

    Raises:
        SpineError: a column of the spine has the name of a feature, or a key can't be used.
        NaiveTimeError: `as_of` has no time zone.
    """
    import pandas as pd

    names = [feature.name for feature in features_of(views)]
    require_free(list(spine.columns), names)
    computed = engine.compute(views, spine)[names]
    computed.index = spine.index
    return pd.concat([spine, computed], axis=1)
