"""Conversion: will this open lead bind a policy within 30 days?"""

from datetime import timedelta

from leadml_pipelines.learning.spec import NEW_LEAD_AGES, SMALL_GRID, ModelSpec

SPEC = ModelSpec(
    name="conversion",
    description="Chance that an open lead binds a policy within the horizon.",
    candidates="open",
    population="is_open",
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
    split_by="lead",
    grid=SMALL_GRID,
    metric="roc_auc",
    floor=0.6,
    heuristic="quality_threshold",
)
