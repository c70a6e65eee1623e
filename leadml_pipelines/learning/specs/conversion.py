"""Conversion: will this open lead bind a policy within 30 days?"""

from datetime import timedelta

from leadml_pipelines.learning.spec import ModelSpec

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
    ages=(timedelta(hours=1), timedelta(hours=24), timedelta(hours=72), timedelta(hours=168)),
    split_by="lead",
    grid=(
        {"max_depth": 3, "min_child_weight": 10},
        {"max_depth": 4, "min_child_weight": 30},
        {"max_depth": 6, "min_child_weight": 30},
    ),
    metric="roc_auc",
    floor=0.6,
    heuristic="quality_threshold",
)
