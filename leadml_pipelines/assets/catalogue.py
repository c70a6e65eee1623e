"""The feature catalogue in Dagster: an asset of its own, and what each view's asset tells."""

import json
from typing import Any

import dagster as dg

from leadml_pipelines.assets.metadata import markdown_table, rows
from leadml_pipelines.features.view import Feature, FeatureView
from leadml_pipelines.resources.connections import SettingsResource

FILE = "feature_catalogue.json"
"""Name of the file in the home folder."""


def column_schema(view: FeatureView) -> dg.TableSchema:
    """The columns of a view's table: types, meanings, units and ranges. Costs nothing."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                feature.name,
                feature.type,
                feature.description,
                dg.TableColumnConstraints(
                    nullable=feature.default is None, other=_constraints(feature)
                ),
                tags={"dimension": feature.dimension},
            )
            for feature in view.features
        ]
    )


def column_metadata(view: FeatureView) -> dict[str, Any]:
    """Metadata of a materialization of a view: each column's inputs, one asset back.

    The first call compiles the view, which has just been done when it was computed.
    """
    from leadml_pipelines.features.lineage import lineage_of_view

    traced = lineage_of_view(view)
    views = {name: f"{name}_features" for name in view.views}
    return {
        "dagster/column_lineage": dg.TableColumnLineage(
            {
                feature.name: [
                    dg.TableColumnDep(
                        asset_key=views.get(column.table, column.table), column_name=column.column
                    )
                    for column in traced[feature.name].inputs
                ]
                for feature in view.features
            }
        )
    }


@dg.asset(group_name="features", kinds={"json"})
def feature_catalogue(settings: SettingsResource) -> dg.MaterializeResult:
    """Every feature: type, unit, range, owner, meaning, dimension, freshness, source columns.

    Written to `feature_catalogue.json` in the home folder, a row per feature.
    """
    from leadml_pipelines.features.entries import entries, record
    from leadml_pipelines.features.lineage import lineage_of_all

    found, lineages = entries(), lineage_of_all()
    content = [record(one, lineages[one.name]) for one in found]
    path = settings.load().root / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{FILE}.new")
    staged.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
    staged.replace(path)
    shown = [
        (
            one.name,
            one.entity,
            one.view,
            one.type,
            one.unit,
            one.owner,
            one.description,
            ", ".join(map(str, lineages[one.name].values)),
        )
        for one in found
    ]
    header = ("feature", "entity", "view", "type", "unit", "owner", "meaning", "made of")
    return dg.MaterializeResult(
        metadata={
            **rows(len(found), views=len({one.view for one in found})),
            "path": dg.MetadataValue.path(str(path)),
            "catalogue": markdown_table(header, shown),
        }
    )


def _constraints(feature: Feature) -> list[str]:
    bounds = [
        f"{sign} {bound:.10g}"
        for sign, bound in ((">=", feature.low), ("<=", feature.high))
        if bound is not None
    ]
    return [*bounds, *([f"unit: {feature.unit}"] if feature.unit else [])]
