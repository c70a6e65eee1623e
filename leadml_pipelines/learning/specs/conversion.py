"""Conversion: will this open lead bind a policy within 30 days?"""

from datetime import timedelta

from leadml_pipelines.learning.spec import CLASS_GRID, NEW_LEAD_AGES, Cost, ModelSpec

SPEC = ModelSpec(
    name="conversion",
    description="Chance that an open lead binds a policy within the horizon.",
    candidates="open",
    population="is_open",
    population_text="each open lead",
    label="""
        SELECT m.row_id, count(p.policy_id) > 0 AS label
        FROM moments m
        LEFT JOIN policies p
            ON p.lead_id = m.entity_id AND p.bound_at > m.as_of AND p.bound_at <= m.until
        GROUP BY m.row_id
    """,
    horizon=timedelta(days=30),
    objective="classification",
    ages=NEW_LEAD_AGES,
    max_rows=150_000,
    split_by="lead",
    grid=CLASS_GRID,
    metric="roc_auc",
    floor=0.6,
    slice_floor=0.55,
    heuristic="quality_threshold",
    # A call in vain costs minutes of an agent; a buyer who was not called, a commission.
    cost=Cost(miss=10.0, false_alarm=1.0),
)
