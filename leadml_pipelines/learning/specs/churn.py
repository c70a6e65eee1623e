"""Churn: is this lead or customer about to leave?

An open lead churns when it is closed as lost, or sends no sign of life in the whole horizon; not
when it binds a policy or is closed for a reason that is not its own choice (declined, duplicate).
A customer churns when a policy that was active is cancelled. A customer's silence is no churn:
people rarely write to an insurer that serves them well.
"""

from datetime import timedelta

from leadml_pipelines.learning.spec import CLASS_GRID, Cost, Group, ModelSpec

SPEC = ModelSpec(
    name="churn",
    description="Chance that an active lead is lost or falls silent, or a customer cancels.",
    candidates="alive",
    population="(is_open and inbound_count_30d > 0) or active_policy_count > 0",
    population_text="each open lead that has given a sign of life in the last 30 days, and each "
    "customer with an active policy",
    label="""
        WITH held AS (
            SELECT m.row_id,
                count(p.policy_id) FILTER (
                    p.bound_at <= m.as_of AND (p.cancelled_at IS NULL OR p.cancelled_at > m.as_of)
                ) AS active,
                count(p.policy_id) FILTER (
                    p.bound_at <= m.as_of AND p.cancelled_at > m.as_of
                    AND p.cancelled_at <= m.until
                ) AS cancelled,
                count(p.policy_id) FILTER (
                    p.bound_at > m.as_of AND p.bound_at <= m.until
                ) AS bound
            FROM moments m LEFT JOIN policies p ON p.lead_id = m.entity_id
            GROUP BY m.row_id
        ), closed AS (
            SELECT m.row_id, bool_or(c.reason = 'lost') AS lost,
                bool_or(c.reason <> 'lost') AS otherwise
            FROM moments m
            JOIN closures c
                ON c.lead_id = m.entity_id AND c.closed_at > m.as_of AND c.closed_at <= m.until
            GROUP BY m.row_id
        ), heard AS (
            SELECT DISTINCT m.row_id
            FROM moments m
            JOIN lead_events e
                ON e.lead_id = m.entity_id AND e.direction = 'inbound'
                AND e.occurred_at > m.as_of AND e.occurred_at <= m.until
        )
        SELECT m.row_id,
            CASE
                WHEN held.active > 0 THEN held.cancelled > 0
                WHEN held.bound > 0 OR coalesce(closed.otherwise, false) THEN false
                ELSE coalesce(closed.lost, false) OR heard.row_id IS NULL
            END AS label
        FROM moments m
        JOIN held USING (row_id)
        LEFT JOIN closed USING (row_id)
        LEFT JOIN heard USING (row_id)
    """,
    horizon=timedelta(days=60),
    objective="classification",
    # Customers who leave are few: one row in thirty of theirs.
    max_rows=150_000,
    split_by="row",
    grid=CLASS_GRID,
    metric="roc_auc",
    floor=0.6,
    slice_floor=0.6,
    heuristic="random",
    slices=("stage", "source", "state", "product_interest", "agent", "lead_age"),
    # Of open leads three in five are lost, of customers one in twenty: a chance of 0.15 is little
    # for the one, and three times the usual for the other.
    risk_levels=(0.25, 0.5, 0.75),
    group_by="stage",
    groups=(
        Group(
            word="customer",
            # A policy that ends costs its commissions of years to come, a needless call minutes.
            cost=Cost(miss=10.0, false_alarm=1.0),
            risk_levels=(0.08, 0.15, 0.25),
            # Half the way from a coin to what can be known of them at all (docs/measurements.md).
            slice_floor=0.6,
        ),
    ),
)
