from __future__ import annotations

from datetime import UTC, datetime

import dagster as dg
import numpy as np

from leadml_pipelines.assets.metadata import markdown_table, plain, rows


def test_numpy_scalars_reach_the_event_log() -> None:
    @dg.asset
    def numbers() -> dg.MaterializeResult:
        return dg.MaterializeResult(
            metadata=plain(
                {
                    "float": np.float64(0.5),
                    "count": np.int64(3),
                    "yes": np.bool_(True),
                    "nested": {"share": np.float32(0.25), "many": [np.int32(1)]},
                }
            )
        )

    with dg.instance_for_test() as instance:
        assert dg.materialize([numbers], instance=instance).success
        event = instance.get_latest_materialization_event(dg.AssetKey("numbers"))
    assert event is not None
    materialization = event.asset_materialization
    assert materialization is not None
    assert materialization.metadata["float"].value == 0.5
    assert materialization.metadata["count"].value == 3
    assert materialization.metadata["nested"].value == {"share": 0.25, "many": [1]}


def test_a_time_is_written_with_its_zone() -> None:
    assert plain({"at": datetime(2026, 1, 2, tzinfo=UTC)}) == {"at": "2026-01-02T00:00:00+00:00"}


def test_rows_go_under_the_key_that_the_ui_reads() -> None:
    assert rows(7, extract="x") == {"dagster/row_count": 7, "extract": "x"}


def test_a_table_is_markdown_with_short_numbers() -> None:
    table = markdown_table(["metric", "model"], [["roc_auc", 0.123456], ["rows", 12]])
    assert table.md_str == "| metric | model |\n| --- | --- |\n| roc_auc | 0.1235 |\n| rows | 12 |"
