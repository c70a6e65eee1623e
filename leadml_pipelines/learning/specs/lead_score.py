"""Lead score: the premium that this open lead is expected to bind within 90 days."""

from datetime import timedelta

from leadml_pipelines.learning.spec import NEW_LEAD_AGES, SMALL_GRID, Companion, ModelSpec

SPEC = ModelSpec(
    name="lead_score",
    description="Expected premium of an open lead within the horizon, shown as 0-100 by rank.",
    candidates="open",
    population="is_open",
    population_text="each open lead",
    label="""
        SELECT m.row_id, coalesce(sum(p.annual_premium), 0) AS label
        FROM moments m
        LEFT JOIN policies p
            ON p.lead_id = m.entity_id AND p.bound_at > m.as_of AND p.bound_at <= m.until
        GROUP BY m.row_id
    """,
    horizon=timedelta(days=90),
    objective="regression",
    ages=NEW_LEAD_AGES,
    split_by="lead",
    grid=SMALL_GRID,
    # Most leads bind nothing, and premiums differ by factors: squares would hear of the few large
    # policies alone. Tweedie's deviance is that of such sums; with a power near 1, Poisson's, the
    # predicted values sum up to those that came, while 1.5 leaves a quarter of the sum out.
    params={"objective": "reg:tweedie", "tweedie_variance_power": 1.1},
    # Not Spearman's correlation: where nine of ten labels are 0 it asks who buys, not for how much,
    # and the very expectation of the premium can lose by it to a rule that knows no premiums.
    metric="gini",
    floor=0.2,
    slice_floor=0.0,
    champion_margin=0.04,
    heuristic="quality_rescaled",
    companions=(
        Companion(
            name="timing",
            label="""
                SELECT m.row_id,
                    CASE
                        WHEN min(p.bound_at) <= m.as_of + INTERVAL 7 DAY THEN 'within a week'
                        WHEN min(p.bound_at) <= m.as_of + INTERVAL 30 DAY THEN 'within a month'
                        WHEN count(p.bound_at) > 0 THEN 'later'
                    END AS label
                FROM moments m
                LEFT JOIN policies p
                    ON p.lead_id = m.entity_id AND p.bound_at > m.as_of AND p.bound_at <= m.until
                GROUP BY m.row_id, m.as_of
            """,
            answer="urgency",
            words=("within a week", "within a month", "later"),
        ),
        Companion(
            name="product",
            label="""
                SELECT m.row_id, arg_min(p.product, p.bound_at) AS label
                FROM moments m
                LEFT JOIN policies p
                    ON p.lead_id = m.entity_id AND p.bound_at > m.as_of AND p.bound_at <= m.until
                GROUP BY m.row_id
            """,
            answer="cross_sell",
        ),
    ),
)
