"""Whom a candidate is held to besides the champion, so that many small steps can't lead down."""

from __future__ import annotations

from leadml_pipelines.learning.registry.model_records import ModelRecord
from leadml_pipelines.learning.registry.promotion_rules import PROGRAM
from leadml_pipelines.learning.spec import HIGHER_IS_BETTER


def anchor_of(champion: ModelRecord) -> str:
    """The best champion since a person promoted last, by its id.

    A person's choice begins anew. After that each champion that was at least as good as the anchor
    before it, on the rows that both were measured on, is the next one; of the others the anchor
    stays. Each champion's evaluation tells whom it was held to, so one step back is enough.

    Args:
        champion: The present one; it may be the anchor itself.
    """
    before = champion.evaluation.get("held_to")
    if before is None or champion.promoted_by != PROGRAM:
        return champion.model_id
    gain = before["value"] if HIGHER_IS_BETTER[before["metric"]] else -before["value"]
    return champion.model_id if gain >= 0 else str(before["model_id"])
