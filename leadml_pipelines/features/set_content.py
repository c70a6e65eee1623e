"""What makes a saved training set the same as another: definitions, rows, and where they differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from leadml_pipelines.features.catalogue import Catalogue
from leadml_pipelines.features.saved_sets import SavedSet, parquet
from leadml_pipelines.features.spines import to_frame
from leadml_pipelines.features.view import FeatureView

if TYPE_CHECKING:
    import pandas as pd


def definition_hashes(
    views: Sequence[FeatureView], catalogue: Catalogue, *, from_events: bool
) -> dict[str, str]:
    """View -> SHA-256 of what its values follow from.

    From events that is the statement that computes it; from snapshots, which were computed by
    whatever was its statement at the time, its features, their types and its time to live.
    """
    from leadml_pipelines.features.compiler import compile_views

    def of(view: FeatureView) -> str:
        if from_events:
            return compile_views([view], "duckdb", catalogue=catalogue)
        return json.dumps([str(view.ttl), *([f.name, f.type] for f in view.features)])

    return {view.name: hashlib.sha256(of(view).encode()).hexdigest() for view in views}


def as_saved(frame: Any, definition: Mapping[str, Any]) -> tuple[pd.DataFrame, dict[str, Any]]:
    """A set as it is saved: rows in the types that Parquet gives back, and the whole definition.

    Args:
        frame: The rows, as a frame or an Arrow table.
        definition: Its `spine` names the columns whose content becomes a part of it.
    """
    import pandas as pd

    rows = _canonical(frame if isinstance(frame, pd.DataFrame) else to_frame(frame))
    spine_hash = hashlib.sha256(parquet(rows[list(definition["spine"])])).hexdigest()
    return rows, {**definition, "spine_sha256": spine_hash}


def _canonical(frame: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    # Text comes back from Parquet as `str`; saved as that, a set that was read is written the same.
    texts = [
        name
        for name, kind in frame.dtypes.items()
        if pd.api.types.is_object_dtype(kind)
        and pd.api.types.infer_dtype(frame[name], skipna=True) == "string"
    ]
    return frame.astype(dict.fromkeys(texts, "str"))


def difference(
    saved: SavedSet, rows: pd.DataFrame, definition: Mapping[str, Any], frame: pd.DataFrame
) -> str:
    """Where a set that was built again differs from the saved one, as a sentence."""
    changed = sorted(
        view
        for view, value in saved.definition["views"].items()
        if definition["views"].get(view) != value
    )
    if changed:
        return f"the set {saved.name} can't be built again: {', '.join(changed)} changed since"
    differ = [
        str(name)
        for name in frame.columns
        if name not in rows or not frame[name].equals(rows[name])
    ]
    where = f"in {', '.join(differ)}" if differ else "in the versions of pandas or pyarrow alone"
    return (
        f"the set {saved.name} of {saved.facts.get('origin')} came out differently when it was "
        f"built again: {where}"
    )
