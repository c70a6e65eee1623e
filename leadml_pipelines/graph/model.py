"""What the property graph consists of, and how it looks as frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class NodeKind:
    """A label of the graph.

    Attributes:
        label: Its label in Cypher.
        entity_type: Its name in frames and tables.
        key: The property that identifies a node, unique among the label's nodes.
        born: The property that tells since when it exists; None where only its edges tell.
    """

    label: str
    entity_type: str
    key: str
    born: str | None = None


@dataclass(frozen=True)
class EdgeKind:
    """A relationship type of the graph; every edge starts at a lead.

    Attributes:
        relation: Its type in Cypher.
        target: What it points to.
        start: The property that tells since when it holds.
        end: The property that tells until when (exclusive), if it can end.
    """

    relation: str
    target: NodeKind
    start: str
    end: str | None = None

    @property
    def repeats(self) -> bool:
        """Whether two nodes may be joined several times, told apart by the start."""
        return self.end is not None


LEAD = NodeKind("Lead", "lead", "lead_id", "created_at")
AGENT = NodeKind("Agent", "agent", "agent_id", "hired_at")
CAMPAIGN = NodeKind("Campaign", "campaign", "campaign_id")
HOUSEHOLD = NodeKind("Household", "household", "household_id")
NODE_KINDS = (LEAD, AGENT, HOUSEHOLD, CAMPAIGN)

ASSIGNED_TO = EdgeKind("ASSIGNED_TO", AGENT, "since", "until")
REFERRED = EdgeKind("REFERRED", LEAD, "at")
MEMBER_OF = EdgeKind("MEMBER_OF", HOUSEHOLD, "since", "until")
CAME_FROM = EdgeKind("CAME_FROM", CAMPAIGN, "at")
EDGE_KINDS = (ASSIGNED_TO, REFERRED, MEMBER_OF, CAME_FROM)


@dataclass(frozen=True)
class GraphData:
    """The whole graph in memory.

    Attributes:
        nodes: `entity_type` (lead, agent, household, campaign), `entity_id`, `created_at` (missing:
            not known).
        edges: `src` (a lead id), `dst` (an id of the type the relation points to), `relation`,
            `since` (missing: as long as both ends exist), `until` (missing: it still holds).
            Times are `datetime64[us, UTC]`. An edge holds as of t if `since <= t < until`.
    """

    nodes: pd.DataFrame
    edges: pd.DataFrame
