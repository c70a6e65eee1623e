"""A catalogue that asks nothing of the sources' content."""

from __future__ import annotations

from leadml_pipelines.features.catalogue import Catalogue
from leadml_pipelines.features.view import Feature, FeatureView


def ones() -> Catalogue:
    """A feature of agents that needs nothing but the agent."""
    from sqlframe.standalone import functions as F  # noqa: N812

    feature = Feature("one", "integer", "", None, None, 0, "One.", "fit")
    view = FeatureView(
        "ones",
        "agent",
        "Ones.",
        (feature,),
        ("spine",),
        lambda read: read["spine"].select("entity_id", "as_of", F.lit(1).alias("one")),
    )
    return Catalogue([view])
