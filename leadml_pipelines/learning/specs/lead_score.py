"""Lead score: the premium that this open lead is expected to bind within 90 days."""

from datetime import timedelta

from leadml_pipelines.learning.spec import ModelSpec

SPEC = ModelSpec(
    name="lead_score",
    description="Expected premium of an open lead within the horizon, shown as 0-100 by rank.",
    candidates="open",
    population="is_open",
    label="""
        SELECT m.row_id, coalesce(sum(p.annual_premium), 0) AS label
        FROM moments m
        LEFT JOIN policies p
            ON p.lead_id = m.entity_id AND p.bound_at > m.as_of AND p.bound_at <= m.until
        GROUP BY m.row_id
    """,
    horizon=timedelta(days=90),
    objective="regression",
    ages=(timedelta(hours=1), timedelta(hours=24), timedelta(hours=72), timedelta(hours=168)),
    split_by="lead",
    grid=(
        {"max_depth": 3, "min_child_weight": 10},
        {"max_depth": 4, "min_child_weight": 30},
        {"max_depth": 6, "min_child_weight": 30},
    ),
    metric="spearman",
    floor=0.05,
    heuristic="quality_rescaled",
)
