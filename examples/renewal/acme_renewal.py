"""acme_renewal.py: which customers will still have all their policies in three months?"""

from datetime import timedelta

from leadml_pipelines.learning.spec import SMALL_GRID, Cost, ModelSpec

SPEC = ModelSpec(
    name="renewal",
    description="Chance that a customer keeps every policy for the next three months.",
    candidates="customer",
    population="active_policy_count > 0",
    label="""
        SELECT m.row_id, count(p.policy_id) = 0 AS label
        FROM moments m
        LEFT JOIN policies p
            ON p.lead_id = m.entity_id AND p.bound_at <= m.as_of
            AND p.cancelled_at > m.as_of AND p.cancelled_at <= m.until
        GROUP BY m.row_id
    """,
    horizon=timedelta(days=90),
    objective="classification",
    views=("profile", "lifecycle", "engagement"),
    split_by="row",
    grid=SMALL_GRID,
    # A customer who leaves though we thought him safe costs as much as ten needless calls.
    cost=Cost(miss=1, false_alarm=10),
    metric="roc_auc",
    floor=0.55,
    heuristic="base_rate",
    slices=("source", "state"),
)
