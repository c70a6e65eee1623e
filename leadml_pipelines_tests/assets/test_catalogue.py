"""What Dagster knows of features: owners, columns, where each column comes from."""

from __future__ import annotations

import json
from pathlib import Path

import dagster as dg
import pytest

from leadml_pipelines.assets.catalogue import (
    FILE,
    column_metadata,
    column_schema,
    feature_catalogue,
)
from leadml_pipelines.assets.features import view_assets
from leadml_pipelines.definitions import defs
from leadml_pipelines.features.catalogue import catalogue
from leadml_pipelines.features.entries import entries
from leadml_pipelines.features.view import FeatureView
from leadml_pipelines.resources.connections import SettingsResource

VIEWS = [view for entity in catalogue().entities for view in catalogue().views(entity)]


def test_the_catalogue_is_written_whole(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEADML_HOME", str(home))
    with dg.instance_for_test() as instance:
        resources = {"settings": SettingsResource()}
        assert dg.materialize([feature_catalogue], instance=instance, resources=resources).success
        event = instance.get_latest_materialization_event(dg.AssetKey("feature_catalogue"))
    assert event is not None
    assert event.asset_materialization is not None
    metadata = event.asset_materialization.metadata
    rows = json.loads((home / FILE).read_text(encoding="utf-8"))
    assert metadata["dagster/row_count"].value == len(rows) == len(entries())
    assert "| email_open_rate |" in str(metadata["catalogue"].value)
    assert all(row["lineage"]["conditions"] for row in rows)


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_columns_come_from_columns_of_assets_that_the_view_depends_on(view: FeatureView) -> None:
    lineage = column_metadata(view)["dagster/column_lineage"]
    assert set(lineage.deps_by_column) == {feature.name for feature in view.features}
    graph = defs.resolve_asset_graph()
    parents = graph.get(dg.AssetKey(f"{view.name}_features")).parent_keys
    for deps in lineage.deps_by_column.values():
        for dep in deps:
            assert dep.asset_key in parents
            schema = graph.get(dep.asset_key).metadata.get("dagster/column_schema")
            if schema is not None:
                assert dep.column_name in {column.name for column in schema.columns}


def test_columns_tell_meaning_unit_and_range() -> None:
    schema = column_schema(catalogue().view("engagement"))
    column = next(c for c in schema.columns if c.name == "email_open_ratio_30d")
    assert column.type == "double"
    assert "smoothed" in str(column.description)
    assert column.constraints.other == [">= 0", "<= 1", "unit: share"]
    assert column.constraints.nullable is False
    assert column.tags == {"dimension": "engagement"}


def test_every_view_asset_has_the_owner_of_its_view() -> None:
    owners = {
        spec.key.to_user_string(): list(spec.owners)
        for asset in view_assets
        for spec in asset.specs
    }
    for view in VIEWS:
        assert owners[f"{view.name}_features"] == [view.owner]
