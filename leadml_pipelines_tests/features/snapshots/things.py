"""Two small views of one entity type, and frames of their values."""

from __future__ import annotations

from datetime import datetime

import pandas as pd

from leadml_pipelines.features.catalogue import Catalogue
from leadml_pipelines.features.snapshots.checks import check_snapshot
from leadml_pipelines.features.snapshots.writing import write_view_snapshot
from leadml_pipelines.features.view import Feature, FeatureView
from leadml_pipelines_tests.features.world import NOW


def never(_: object) -> object:
    raise AssertionError("a snapshot must not compile anything")


HEIGHT = Feature("height", "double", "m", 0, 10, None, "Height.", "fit")
LEVEL = Feature("level", "integer", "", 0, None, 0, "Level.", "fit")
GOOD = Feature("good", "boolean", "", None, None, None, "Whether it is good.", "fit")
KIND = Feature("kind", "category", "", None, None, None, "Kind.", "fit")
BODY = FeatureView("body", "thing", "A body.", (HEIGHT, LEVEL), ("spine",), never)
MIND = FeatureView("mind", "thing", "A mind.", (GOOD, KIND), ("spine",), never)
THINGS = Catalogue([BODY, MIND])


def body(as_of: datetime = NOW, ids: tuple[str, ...] = ("a", "b"), height: float = 0.1 + 0.2):
    return pd.DataFrame(
        {
            "entity_id": pd.Series(ids, dtype=object),
            "as_of": pd.Series([as_of] * len(ids), dtype="datetime64[us, UTC]"),
            "height": pd.Series([height, *[float("nan")] * (len(ids) - 1)], dtype="float64"),
            "level": pd.Series([2**53 + 1, *[None] * (len(ids) - 1)], dtype="Int64"),
        }
    )


def mind(as_of: datetime = NOW, ids: tuple[str, ...] = ("a", "b")) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "entity_id": pd.Series(ids, dtype=object),
            "as_of": pd.Series([as_of] * len(ids), dtype="datetime64[us, UTC]"),
            "good": pd.Series([True, *[None] * (len(ids) - 1)], dtype="boolean"),
            "kind": pd.Series(["ü'\"\\", *[None] * (len(ids) - 1)], dtype=object),
        }
    )


def whole(url: str, as_of: datetime = NOW, **more: object) -> bool:
    write_view_snapshot(url, BODY, body(as_of, **more), as_of)  # type: ignore[arg-type]
    write_view_snapshot(url, MIND, mind(as_of), as_of)
    return check_snapshot(url, THINGS, "thing", as_of).sound


def versions(number: int) -> pd.DataFrame:
    """Both views of 50 entities, whose every value tells which writer wrote it."""
    ids = tuple(f"x{i:02}" for i in range(50))
    both = body(ids=ids).merge(mind(ids=ids), on=["entity_id", "as_of"])
    level = pd.Series([number] * len(ids), dtype="Int64")
    return both.assign(level=level, kind=str(number))


def writers_seen(frame: pd.DataFrame) -> set[str]:
    assert len(frame) == 50
    return {*frame["level"].astype(str), *frame["kind"]}
